"""How filters lie in the file: as the engine's kernels read them, outputs in panels of 16.

    matrix, float32    [N/16][K][16]
    matrix, bfloat16   [N/16][K/2][16][2]    K padded to a multiple of 32
    matrix, int8       [N/16][K/4][16][4]    K padded to a multiple of 64
    depthwise          [C/16][k*k][16]       float32 (also among bfloat16), or int8;
                                             int16 of a wide network

All padding is zeros. K counts the input's channels; with a kernel above 1 rows, columns, then
channels padded to 16; where the image is read channels, rows, columns, and the matrix is float32,
among int8 of whole numbers.
"""

import numpy as np
from numpy.typing import NDArray

from ..program import Floats

PANEL = 16
TOGETHER = {"float32": 1, "bfloat16": 2, "int8": 4}  # numbers of one output side by side
K_MULTIPLE = {"float32": 1, "bfloat16": 32, "int8": 64}


def padded(array: NDArray, axis: int, multiple: int) -> NDArray:
    """The array with zeros behind it, up to the multiple."""
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, round_up(array.shape[axis], multiple) - array.shape[axis])
    return np.pad(array, widths)


def round_up(size: int, multiple: int) -> int:
    """The next multiple, or `size` itself."""
    return -(-size // multiple) * multiple


def inputs_of(kernel: int, channels: int, *, image: bool) -> int:
    """K of a convolution, before the matrix is padded."""
    return kernel * kernel * (channels if image or kernel == 1 else round_up(channels, PANEL))


def to_matrix(weight: NDArray, *, image: bool) -> NDArray:
    """(O, I, k, k) as (O, K)."""
    if image or weight.shape[2] == 1:
        return weight.reshape(len(weight), -1)
    return padded(weight.transpose(0, 2, 3, 1), 3, PANEL).reshape(len(weight), -1)


def from_matrix(matrix: NDArray, kernel: int, channels: int, *, image: bool) -> NDArray:
    """The inverse of `to_matrix`."""
    if image or kernel == 1:
        return matrix.reshape(len(matrix), channels, kernel, kernel)
    apart = matrix.reshape(len(matrix), kernel, kernel, -1)
    return apart[..., :channels].transpose(0, 3, 1, 2)


def to_panels(matrix: NDArray, together: int) -> NDArray:
    """(N, K) as [N/16][K/together][16][together]."""
    whole = padded(matrix, 0, PANEL)
    apart = whole.reshape(-1, PANEL, whole.shape[1] // together, together)
    return np.ascontiguousarray(apart.transpose(0, 2, 1, 3))


def from_panels(flat: NDArray, inputs: int, together: int) -> NDArray:
    """The inverse: (N padded to 16, K)."""
    apart = flat.reshape(-1, inputs // together, PANEL, together)
    return apart.transpose(0, 2, 1, 3).reshape(-1, inputs)


def to_bfloat16(x: Floats) -> NDArray[np.uint16]:
    """The upper halves of finite float32 numbers, rounded to nearest, halves to even."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def from_bfloat16(x: NDArray[np.uint16]) -> Floats:
    """The numbers that these halves stand for, exactly."""
    return (x.astype(np.uint32) << 16).view(np.float32)
