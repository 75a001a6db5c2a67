"""Embeddings of faces: `EmbeddingSpec`, MobileFaceNet's table and its program."""

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..architectures import Block, Bottleneck, make_divisible
from ..errors import UsageError
from ..program import IMAGE, Builder, Floats, Program, folded_filter

if TYPE_CHECKING:
    from .mobilefacenet import MobileFaceNet

EMBEDDING = "embedding"
STRIDE = 16  # pixels a cell of the last map
EmbeddingActivation = Literal["prelu", "relu6"]
ACTIVATIONS: tuple[str, ...] = ("prelu", "relu6")

# MobileFaceNet (arXiv 1804.07573, Table 1): a 3x3 convolution to 64 channels at stride 2, a
# depthwise 3x3, these rows, a 1x1 convolution to 512, a depthwise one over the whole map, a 1x1
STEM, LAST = 64, 512
# fmt: off
MOBILEFACENET: tuple[Bottleneck, ...] = (
    #          t  c    n  s
    Bottleneck(2, 64,  5, 2),
    Bottleneck(4, 128, 1, 2),
    Bottleneck(2, 128, 6, 1),
    Bottleneck(4, 128, 1, 2),
    Bottleneck(2, 128, 2, 1),
)
# fmt: on


@dataclass(frozen=True, kw_only=True)
class EmbeddingSpec:
    """MobileFaceNet: `width` multiplies its channels but not the `dimension` of the embedding;
    `size` is the side of its square input in pixels, a multiple of 16.

    activation "prelu" is the paper's, with a slope a channel; the native engine and 8 bits need
    "relu6". Raises UsageError for what cannot be built.
    """

    width: float = 1.0
    activation: EmbeddingActivation = "prelu"
    size: int = 112
    dimension: int = 128

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise UsageError(f"activation {self.activation!r}: expected one of {ACTIVATIONS}")
        if not 0 < self.width < float("inf") or self.dimension < 1:
            raise UsageError(
                f"width {self.width!r}, dimension {self.dimension!r}: expected above 0 and at "
                "least 1"
            )
        if self.size < STRIDE or self.size % STRIDE or self.cells % 2 == 0:
            raise UsageError(
                f"size {self.size!r}: expected an odd multiple of {STRIDE}, such as 112 or 80"
            )

    @property
    def cells(self) -> int:
        """The side of the last map, and of the depthwise convolution over all of it."""
        return self.size // STRIDE

    @property
    def stem(self) -> int:
        """Channels of the first two layers."""
        return make_divisible(STEM * self.width)

    @property
    def last(self) -> int:
        """Channels of the last map."""
        return make_divisible(LAST * self.width)

    def blocks(self) -> tuple[Block, ...]:
        """The rows between the first two layers and the last map."""
        found, before, stage = [], self.stem, 1
        for row in MOBILEFACENET:
            for repeat in range(row.n):
                stride = row.s if repeat == 0 else 1
                stage += stride == 2
                after = make_divisible(row.c * self.width)
                found.append(
                    Block(
                        kind="inverted",
                        kernel=3,
                        in_channels=before,
                        expanded=before * row.t,
                        out_channels=after,
                        activation="relu6",
                        stride=stride,
                        stage=stage,
                    )
                )
                before = after
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """A JSON object of every field."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "EmbeddingSpec":
        """The inverse of `to_dict`. Raises UsageError on unknown fields."""
        if unknown := sorted(set(data) - {field.name for field in fields(cls)}):
            raise UsageError(f"embedding description: unknown fields {unknown}")
        return cls(**data)


def create_embedding(spec: EmbeddingSpec) -> "MobileFaceNet":
    """Build the network, randomly initialised from torch's global generator, in training mode."""
    from .mobilefacenet import MobileFaceNet

    return MobileFaceNet(spec)


def normalise(embeddings: Floats) -> Floats:
    """Embeddings (N, D) of length 1. Raises UsageError for one of length 0, or of no numbers."""
    length = np.linalg.norm(np.asarray(embeddings, np.float64), axis=1, keepdims=True)
    if wrong := np.flatnonzero(~((length > 0) & np.isfinite(length))).tolist():
        raise UsageError(f"embedding {wrong[0]}: its length is {length[wrong[0], 0]}")
    return (embeddings / length).astype(np.float32)


def embedding_program(network: "MobileFaceNet") -> Program:
    """The program whose output is "embedding" (N, D, 1, 1), before `normalise`.

    Raises UsageError for activation "prelu", which no step has.
    """
    from .mobilefacenet import Bottleneck as Module

    spec = network.spec
    if spec.activation != "relu6":
        raise UsageError(
            f"activation {spec.activation!r} has no program: train with 'relu6' to export"
        )
    builder = Builder()
    value = builder.conv(IMAGE, folded_filter(network.stem.conv), stride=2, activation="relu6")
    # a block's depthwise convolution has a 1x1 behind it: the first block's expansion
    first = network.blocks[0]
    assert isinstance(first, Module)
    value = builder.block(
        value,
        depthwise=folded_filter(network.depthwise.conv),
        project=folded_filter(first.expand.conv),
        activation="relu6",
        out_activation="relu6",
    )
    for index, (block, module) in enumerate(zip(spec.blocks(), network.blocks, strict=True)):
        assert isinstance(module, Module)
        value = builder.block(
            value,
            expand=folded_filter(module.expand.conv) if index else None,
            depthwise=folded_filter(module.depthwise.conv),
            project=folded_filter(module.project),
            stride=block.stride,
            activation="relu6",
            residual=block.residual,
        )
    value = builder.conv(value, folded_filter(network.last.conv), activation="relu6")
    value = builder.block(
        value,
        depthwise=folded_filter(network.whole),
        project=folded_filter(network.linear),
        # as far as the map: at that stride TensorFlow's padding adds nothing, and one window fits
        stride=spec.cells,
        padding="same",
        activation="none",
    )
    return builder.program({EMBEDDING: value})
