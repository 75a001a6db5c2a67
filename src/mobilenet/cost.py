"""Parameters, multiply-adds and peak activation memory, computed from resolved rows.

Multiply-adds are those of convolutions and linear layers only (no norm, activation, pooling or
squeeze-excite product), as the papers count. Parameters include the norm's scale and shift and
exclude its running statistics.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from .architectures import Block, Network


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One convolution or linear layer. Sizes are pixels of the square input and output maps."""

    name: str
    operator: str
    in_size: int
    out_size: int
    in_channels: int
    out_channels: int
    kernel: int
    stride: int
    params: int
    madds: int


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a network costs at one input size, batch 1.

    `peak_elements`: layer by layer, the largest sum of a layer's input and output (a residual's
    input kept alive; norm and activation in place). `block_elements`: the same with every block
    taken as one operation, so that only bottlenecks live (V2 paper, 5.1).
    """

    params: int
    madds: int
    peak_elements: int
    block_elements: int
    layers: tuple[Layer, ...]


def count(network: Network, size: int) -> Cost:
    """Count a network at a square input of `size` pixels. Raises ValueError below 32."""
    if size < 32:
        raise ValueError(f"size {size}: expected at least 32 pixels")
    layers: list[Layer] = []
    peak = block_peak = 0
    pixels = size
    for index, block in enumerate(network.blocks):
        out_pixels = -(-pixels // block.stride)
        layers += _block_layers(f"blocks.{index}", block, pixels, out_pixels)
        peak = max(peak, *_live_elements(block, pixels, out_pixels))
        ends = block.in_channels * pixels**2 + block.out_channels * out_pixels**2
        block_peak = max(block_peak, ends)
        pixels = out_pixels
    features = network.features
    if network.hidden is not None:
        layers.append(_linear("head.hidden", features, network.hidden))
        features = network.hidden
    layers.append(_linear("head.classifier", features, network.classes))
    return Cost(
        params=sum(layer.params for layer in layers),
        madds=sum(layer.madds for layer in layers),
        peak_elements=peak,
        block_elements=block_peak,
        layers=tuple(layers),
    )


def _block_layers(name: str, block: Block, pixels: int, out_pixels: int) -> Iterator[Layer]:
    inner, squeeze = block.expanded, block.squeeze
    if block.kind == "conv":
        yield _conv(f"{name}.conv", "conv", block, pixels, out_pixels, block.in_channels, inner)
        return
    if block.expands:
        yield _pointwise(f"{name}.expand", pixels, block.in_channels, inner)
    yield _conv(f"{name}.depthwise", "depthwise", block, pixels, out_pixels, inner, inner)
    if squeeze:
        yield _linear(f"{name}.squeeze.reduce", inner, squeeze)
        yield _linear(f"{name}.squeeze.expand", squeeze, inner)
    last = "pointwise" if block.kind == "separable" else "project"
    yield _pointwise(f"{name}.{last}", out_pixels, inner, block.out_channels)


def _conv(
    name: str, operator: str, block: Block, pixels: int, out_pixels: int, cin: int, cout: int
) -> Layer:
    weights = block.kernel**2 * (cin if operator == "conv" else 1) * cout
    return Layer(
        name=name,
        operator=operator,
        in_size=pixels,
        out_size=out_pixels,
        in_channels=cin,
        out_channels=cout,
        kernel=block.kernel,
        stride=block.stride,
        params=weights + 2 * cout,
        madds=weights * out_pixels**2,
    )


def _pointwise(name: str, pixels: int, cin: int, cout: int) -> Layer:
    return Layer(
        name=name,
        operator="conv",
        in_size=pixels,
        out_size=pixels,
        in_channels=cin,
        out_channels=cout,
        kernel=1,
        stride=1,
        params=cin * cout + 2 * cout,
        madds=cin * cout * pixels**2,
    )


def _linear(name: str, cin: int, cout: int) -> Layer:
    """A 1x1 convolution with bias on the pooled vector."""
    return Layer(
        name=name,
        operator="linear",
        in_size=1,
        out_size=1,
        in_channels=cin,
        out_channels=cout,
        kernel=1,
        stride=1,
        params=cin * cout + cout,
        madds=cin * cout,
    )


def _live_elements(block: Block, pixels: int, out_pixels: int) -> Iterator[int]:
    """Elements alive during each layer of a block: its input, its output, a residual's input."""
    entry = block.in_channels * pixels**2
    kept = entry if block.residual else 0
    exit_ = block.out_channels * out_pixels**2
    if block.kind == "conv":
        yield entry + exit_
        return
    wide, narrow = block.expanded * pixels**2, block.expanded * out_pixels**2
    if block.expands:
        yield entry + wide
        yield kept + wide + narrow
    else:
        yield entry + narrow
    yield kept + narrow + exit_
