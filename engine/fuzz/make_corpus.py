"""Small model files for the fuzzer to begin with: every kind of step, in every precision.

python engine/fuzz/make_corpus.py FOLDER
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mobilenet.flat import Card, EngineFile, write_engine
from mobilenet.integer import places
from mobilenet.program import IMAGE, Builder, Filter, Program
from mobilenet.quantize import quantise

RANDOM = np.random.default_rng(0)


def filter(outputs: int, inputs: int, kernel: int = 1) -> Filter:
    shape = (outputs, inputs, kernel, kernel)
    weight = RANDOM.normal(size=shape, scale=(inputs * kernel**2) ** -0.5)
    return Filter(
        weight=weight.astype(np.float32),
        bias=RANDOM.normal(size=outputs).astype(np.float32),
    )


def separable() -> Program:
    """As MobileNetV1: what is pointwise fills the ring of the next depthwise convolution."""
    b = Builder()
    value = b.conv(IMAGE, filter(8, 3, 3), stride=2, padding="same", activation="relu6")
    for inputs, outputs, stride in ((8, 16, 1), (16, 24, 2), (24, 24, 1)):
        value = b.block(
            value,
            depthwise=filter(inputs, 1, 3),
            project=filter(outputs, inputs),
            stride=stride,
            padding="same",
            activation="relu6",
            out_activation="relu6",
        )
    return b.program({"logits": b.conv(b.pool(value), filter(5, 24))})


def inverted() -> Program:
    """As MobileNetV3: expanded, squeezed, with residuals and two kernels; a tap on the way."""
    b = Builder()
    stem = b.conv(IMAGE, filter(16, 3, 3), stride=2, activation="hard_swish")
    squeezed = b.block(
        stem,
        depthwise=filter(16, 1, 3),
        reduce=filter(8, 16),
        excite=filter(16, 8),
        project=filter(16, 16),
        activation="relu",
        residual=True,
    )
    strided = b.block(
        squeezed,
        expand=filter(36, 16),
        depthwise=filter(36, 1, 5),
        project=filter(12, 36),
        stride=2,
        activation="hard_swish",
    )
    residual = b.block(
        strided,
        expand=filter(40, 12),
        depthwise=filter(40, 1, 3),
        project=filter(12, 40),
        dilation=2,
        activation="relu6",
        residual=True,
    )
    mean = b.pool(b.conv(residual, filter(33, 12), activation="hard_swish"))
    hidden = b.conv(mean, filter(20, 33), activation="hard_swish")
    return b.program({"logits": b.conv(hidden, filter(5, 20)), "c3": strided, "c4": residual})


def heads() -> Program:
    """What stands behind a backbone."""
    b = Builder()
    stem = b.conv(IMAGE, filter(16, 3, 3), stride=2, activation="relu")
    deep = b.conv(stem, filter(24, 16, 3), stride=2, dilation=2, activation="relu")
    wide = b.resize(b.conv(deep, filter(16, 24)), like=stem)
    joined = b.concat(wide, stem)
    gates = b.conv(b.pool(joined), filter(32, 32), activation="hard_sigmoid")
    gated = b.multiply(joined, gates)
    small = b.average_pool(gated, kernel=2, stride=2)
    added = b.add(small, small, activation="relu6")
    return b.program({"map": b.conv(added, filter(3, 32)), "gated": gated})


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    made: tuple[Callable[[], Program], ...] = (separable, inverted, heads)
    for make in made:
        program = make()
        quantised = quantise(program, dict.fromkeys(places(program), (-3.0, 5.0)))
        for network, precision in (
            (program, "float32"),
            (program, "bfloat16"),
            (quantised, "int8"),
        ):
            card = Card(labels=("cat", "dog"))
            file = EngineFile(network=network, precision=precision, height=16, width=14, card=card)
            (folder / f"{make.__name__}-{precision}.mbn").write_bytes(write_engine(file))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
