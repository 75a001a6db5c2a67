"""Networks made hostile to quantisers on purpose, while they answer as before in float32.

Training leaves such networks behind by chance: channels of one tensor whose ranges differ by a
factor of a hundred, and hard-swish layers of which a few channels have long tails.

    linear, ReLU     a channel times g in front, its weights divided by g behind: exact for g > 0
    ReLU6            the same with g <= 1, of channels that stay below 6
    hard-swish       is x for large x only: channels with little weight behind them times 100, which
                     turns them into ReLU; close, not exact
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from mobilenet.classify import Classifier, ClassifierHead
from mobilenet.layers import ConvBlock, ConvNormAct, DepthwiseSeparable, InvertedResidual
from mobilenet.layers import SqueezeExcite as Squeeze

SPREAD = 100.0  # the largest factor between channels of one tensor
PART = 0.5  # of the channels that are scaled
SAFE = 4.0  # of ReLU6's 6: what channels may reach that are scaled below
TAILS = 0.02  # of the channels of a hard-swish layer
AGREEMENT, ERROR = 0.99, 0.05  # of first classes at least, and of the logits' rms at most
_CHUNK = 32


@dataclass(frozen=True, kw_only=True, eq=False)
class Pair:
    """Layers that write one tensor, or a stream of them, and the convolutions that read it."""

    producers: tuple[ConvNormAct, ...]
    consumers: tuple[nn.Conv2d, ...]

    def scale(self, factors: Tensor) -> None:
        """Multiply channel by channel by `factors` (C,), in place, and make up for it."""
        for layer in self.producers:
            layer.norm.weight.mul_(factors)
            layer.norm.bias.mul_(factors)
        for conv in self.consumers:
            columns = conv.weight if conv.groups > 1 else conv.weight.transpose(0, 1)
            columns.div_(factors[:, None, None, None])


def hostile(classifier: Classifier, images: np.ndarray, *, seed: int) -> Classifier:
    """A copy with channels scaled, up to a hundredfold; `images` float32 (N, 3, H, W) show what
    ReLU6 and hard-swish are given. Raises ValueError where the copy answers otherwise."""
    changed = copy.deepcopy(classifier).eval()
    rng = np.random.default_rng(seed)
    with torch.inference_mode(False), torch.no_grad():
        peaks, before = _run(changed, images)
        for pair in pairs(changed):
            pair.scale(_factors(pair, peaks[pair.producers[0]], rng))
        _, after = _run(changed, images)
    agreement = float((before.argmax(1) == after.argmax(1)).mean())
    error = float(np.sqrt(((after - before) ** 2).mean() / (before**2).mean()))
    if agreement < AGREEMENT or error > ERROR:
        raise ValueError(f"another function: agreement {agreement:.4f}, error {error:.4f}")
    return changed


def pairs(classifier: Classifier) -> Iterator[Pair]:
    """Every place where channels may be scaled."""
    blocks = list(classifier.backbone.blocks)
    for index, block in enumerate(blocks):
        match block:
            case InvertedResidual():
                yield from _within(block)
                if not block.residual:
                    yield _stream(blocks[index:])
            case DepthwiseSeparable():
                yield Pair(producers=(block.depthwise,), consumers=(block.pointwise.conv,))
        writer = {ConvBlock: "conv", DepthwiseSeparable: "pointwise"}.get(type(block))
        if writer is not None:
            reader = _reader(blocks[index + 1] if index + 1 < len(blocks) else classifier.head)
            yield Pair(producers=(getattr(block, writer),), consumers=(reader,))


def _within(block: InvertedResidual) -> Iterator[Pair]:
    if isinstance(block.expand, ConvNormAct):
        yield Pair(producers=(block.expand,), consumers=(block.depthwise.conv,))
    gate = (block.squeeze.reduce,) if isinstance(block.squeeze, Squeeze) else ()
    yield Pair(producers=(block.depthwise,), consumers=(block.project.conv, *gate))


def _stream(blocks: list[nn.Module]) -> Pair:
    """The linear bottleneck that the first block begins and those behind it add to."""
    first, *rest = blocks
    assert isinstance(first, InvertedResidual)
    producers, consumers = [first.project], []
    for block in rest:
        consumers.append(_reader(block))
        if not (isinstance(block, InvertedResidual) and block.residual):
            break
        producers.append(block.project)
    return Pair(producers=tuple(producers), consumers=tuple(consumers))


def _reader(block: nn.Module) -> nn.Conv2d:
    """The convolution that reads what is given to a block or to the head."""
    match block:
        case ClassifierHead():
            return block.classifier if block.hidden is None else block.hidden
        case ConvBlock():
            return block.conv.conv
        case InvertedResidual() if isinstance(block.expand, ConvNormAct):
            return block.expand.conv
        case InvertedResidual() | DepthwiseSeparable():
            return block.depthwise.conv
    raise AssertionError(block)


def _factors(pair: Pair, peaks: Tensor, rng: np.random.Generator) -> Tensor:
    """What every channel is multiplied by, (C,)."""
    channels = len(peaks)
    spread = SPREAD ** rng.uniform(0, 1, channels)
    chosen = rng.uniform(size=channels) < PART
    match pair.producers[0].act:
        case nn.ReLU6():
            spread, chosen = 1 / spread, chosen & (peaks.numpy() < SAFE)
        case nn.Hardswish():
            spread, chosen = np.full(channels, SPREAD), _tails(pair, peaks)
    return torch.from_numpy(np.where(chosen, spread, 1.0).astype(np.float32))


def _tails(pair: Pair, peaks: Tensor) -> np.ndarray:
    """Of the channels that reach far, those with the least weight behind them."""
    chosen = np.zeros(len(peaks), bool)
    dense = next((conv for conv in pair.consumers if conv.groups == 1), None)
    if dense is not None:
        weight = dense.weight.square().sum((0, 2, 3))
        weight[peaks < peaks.max() / 10] = torch.inf
        chosen[weight.argsort()[: max(1, round(TAILS * len(peaks)))].numpy()] = True
    return chosen


def _run(classifier: Classifier, images: np.ndarray) -> tuple[dict[nn.Module, Tensor], np.ndarray]:
    """The greatest number of every channel behind every ConvNormAct, and the logits."""
    peaks: dict[nn.Module, Tensor] = {}

    def observe(layer: nn.Module, _: object, y: Tensor) -> None:
        top = y.amax((0, 2, 3))
        peaks[layer] = torch.maximum(peaks[layer], top) if layer in peaks else top

    layers = [layer for layer in classifier.modules() if isinstance(layer, ConvNormAct)]
    hooks = [layer.register_forward_hook(observe) for layer in layers]
    parts = torch.from_numpy(images).split(_CHUNK)
    logits = torch.cat([classifier(part) for part in parts]).numpy()
    for hook in hooks:
        hook.remove()
    return peaks, logits
