"""Where windows and pixels lie: the same for float and integer arithmetic."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from .steps import Padding


def out_size(size: int, stride: int) -> int:
    """Pixels of a convolution's output, under either padding rule."""
    return -(-size // stride)


def pads(size: int, kernel: int, stride: int, dilation: int, padding: Padding) -> tuple[int, int]:
    """Pixels that an axis of `size` is padded by: (before, after)."""
    reach = dilation * (kernel - 1)
    if padding == "symmetric":
        return reach // 2, reach // 2
    total = max((out_size(size, stride) - 1) * stride + reach + 1 - size, 0)
    return total // 2, total - total // 2


def windows(
    x: NDArray, kernel: int, stride: int, dilation: int, padding: Padding
) -> Iterator[tuple[int, int, NDArray]]:
    """Every place (row, column) of the kernel, and the input that it meets at each output pixel,
    (N, C, OH, OW); x is (N, C, H, W), padded with zeros."""
    height, width = x.shape[2:]
    rows = pads(height, kernel, stride, dilation, padding)
    columns = pads(width, kernel, stride, dilation, padding)
    padded = np.pad(x, ((0, 0), (0, 0), rows, columns))
    down = (out_size(height, stride) - 1) * stride + 1
    across = (out_size(width, stride) - 1) * stride + 1
    for row in range(kernel):
        for column in range(kernel):
            top, left = row * dilation, column * dilation
            yield (
                row,
                column,
                padded[:, :, top : top + down : stride, left : left + across : stride],
            )


def bilinear(size: int, out: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """For every one of `out` pixels of an axis: its two neighbours among `size`, and the second's
    weight. Half-pixel centres, the position in float64."""
    position = np.maximum((np.arange(out) + 0.5) * size / out - 0.5, 0)
    before = np.minimum(position.astype(np.intp), size - 1)
    after = np.minimum(before + 1, size - 1)
    return before, after, (position - before).astype(np.float32)
