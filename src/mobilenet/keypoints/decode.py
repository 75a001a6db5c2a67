"""From maps to keypoints, as a device does it: NumPy only."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .spec import STRIDE

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class People:
    """People of one picture, the surest first. `keypoints` (P, K, 3): x, y in pixels of the
    network's input and a score from 0 to 1; `scores` (P,), likewise."""

    keypoints: Floats
    scores: Floats


def decode_single(maps: Mapping[str, Floats]) -> Floats:
    """Head "heatmap": x, y in pixels and score of each keypoint, (N, K, 3), where its heatmap
    (N, K, h, w) is highest, moved by the offset that stands there."""
    heatmaps = maps["heatmaps"]
    count, keypoints, _, width = heatmaps.shape
    flat = heatmaps.reshape(count, keypoints, -1)
    best = flat.argmax(2)
    offsets = maps["offsets"].reshape(count, keypoints, 2, -1)
    moved = np.take_along_axis(offsets, best[:, :, None, None], 3)[..., 0]
    cells = np.stack([best % width, best // width], 2) + moved
    score = np.clip(np.take_along_axis(flat, best[:, :, None], 2), 0, 1)
    return np.concatenate([_pixels(cells), score], 2).astype(np.float32)


def decode_people(
    maps: Mapping[str, Floats],
    *,
    limit: int = 20,
    threshold: float = 0.1,
    keypoint_threshold: float = 0.05,
) -> list[People]:
    """Head "centre": at most `limit` people a picture whose score is at least `threshold`.

    A centre is a cell that is the highest of its 3x3. From it every keypoint is where the
    regression says, or rather at the best peak near there: heatmap times a Gaussian of a fifth of
    the figure's size, moved by the offset, if the heatmap there is at least `keypoint_threshold`.
    A person's score is the centre's times the mean of its keypoints'.
    """
    pictures = zip(
        _sigmoid(maps["centres"][:, 0]),
        maps["regression"],
        _sigmoid(maps["heatmaps"]),
        maps["offsets"],
        strict=True,
    )
    return [
        _people(*picture, limit=limit, threshold=threshold, least=keypoint_threshold)
        for picture in pictures
    ]


def _people(
    centres: Floats,
    regression: Floats,
    heatmaps: Floats,
    offsets: Floats,
    *,
    limit: int,
    threshold: float,
    least: float,
) -> People:
    count, height, width = heatmaps.shape
    peaks = np.where(centres == _highest_around(centres), centres, -1).reshape(-1)
    cells = np.argsort(-peaks, kind="stable")[:limit]
    cells = cells[peaks[cells] >= threshold]
    rows, columns = np.divmod(cells, width)
    found, scores = np.zeros((len(cells), count, 3)), np.zeros(len(cells))
    for person, (row, column) in enumerate(zip(rows, columns, strict=True)):
        ways = regression[:, row, column].reshape(count, 2).astype(np.float64)
        guess = ways + np.array([column, row])
        size = max(float(np.ptp(guess, axis=0).max()), 5.0)
        for index in range(count):
            x, y = guess[index]
            across = np.exp(-((np.arange(width) - x) ** 2) / (2 * (0.2 * size) ** 2))
            down = np.exp(-((np.arange(height) - y) ** 2) / (2 * (0.2 * size) ** 2))
            near = heatmaps[index] * down[:, None] * across
            peak_row, peak_column = divmod(int(near.argmax()), width)
            score = float(heatmaps[index, peak_row, peak_column])
            if score >= least:
                pair = offsets[2 * index : 2 * index + 2, peak_row, peak_column]
                x, y = peak_column + float(pair[0]), peak_row + float(pair[1])
            found[person, index] = x, y, score
        scores[person] = peaks[cells[person]] * found[person, :, 2].mean()
    found[..., :2] = _pixels(found[..., :2])
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] >= threshold]
    return People(
        keypoints=found[order].astype(np.float32), scores=scores[order].astype(np.float32)
    )


def _highest_around(x: Floats) -> Floats:
    """The maximum of every cell's 3x3 neighbourhood."""
    padded = np.pad(x, 1, constant_values=-np.inf)
    return np.lib.stride_tricks.sliding_window_view(padded, (3, 3)).max((2, 3))


def _pixels(cells: NDArray) -> NDArray:
    return (cells + 0.5) * STRIDE


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -60, 60))), np.float32)
