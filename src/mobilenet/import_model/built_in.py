"""Preprocessing that a graph does by itself, as a contract; what is assumed where it does none."""

import numpy as np

from ..preprocess import HALF, Preprocess, torchvision
from ..preprocess import keras as keras_rule
from ..program import Floats
from .graph import FoundGraph
from .source import SIZE

_BYTES = 255.0


def preprocessing(
    graph: FoundGraph, *, keras: bool, producer: str
) -> tuple[Preprocess, list[str], list[str]]:
    """The contract of a graph, the facts and the assumptions behind it.

    `keras`: its input is laid out as TensorFlow's are.
    """
    size = graph.size or SIZE
    rule = keras_rule(size) if keras else torchvision(size)
    facts = [f"input of {size} pixels, from the graph"] if graph.size else []
    assumed = [] if graph.size else [f"an input of {size} pixels, which the file leaves open"]
    like = "Keras'" if keras else "torchvision's"
    if _does_nothing(graph):
        assumed.append(
            f"preprocessing like {like} (mean {_listed(rule.mean)}, std {_listed(rule.std)} of RGB "
            f"in [0, 1]), as {producer} wrote the file and nothing in it tells"
        )
        return rule, facts, assumed
    scale, offset = (values.astype(np.float64) for values in (graph.scale, graph.offset))
    scale = scale * largest(graph)
    mean, std = _three(-offset / scale), _three(1 / scale)
    facts.append(
        f"mean {_listed(mean)}, std {_listed(std)} of RGB in [0, 1], from the graph, which "
        f"normalises values of 0 to {largest(graph):g} by itself"
    )
    assumed.append(f"resize and crop like {like}, which nothing in the file tells")
    exact = HALF if np.allclose([*mean, *std], 0.5, atol=1e-6) else None
    return (
        Preprocess(
            size=size,
            resize_mode=rule.resize_mode,
            resize=rule.resize,
            mean=exact or mean,
            std=exact or std,
        ),
        facts,
        assumed,
    )


def largest(graph: FoundGraph) -> float:
    """The largest value of a picture that the file takes: 255 where its own scaling is that of
    bytes, else 1."""
    return _BYTES if float(np.abs(graph.scale).max()) < 0.1 else 1.0


def as_fed(images: Floats, graph: FoundGraph) -> Floats:
    """What to give the file so that its first convolution reads `images` (N, 3, H, W)."""
    if _does_nothing(graph):
        return images
    scale, offset = (
        values.astype(np.float64)[:, None, None] for values in (graph.scale, graph.offset)
    )
    return ((images - offset) / scale).astype(np.float32)


def _does_nothing(graph: FoundGraph) -> bool:
    return bool((graph.scale == 1).all() and (graph.offset == 0).all())


def _three(values: np.ndarray) -> tuple[float, float, float]:
    red, green, blue = (round(float(value), 7) for value in np.broadcast_to(values, 3))
    return red, green, blue


def _listed(values: tuple[float, ...]) -> str:
    return f"{values[0]:g}" if len(set(values)) == 1 else " ".join(f"{v:g}" for v in values)
