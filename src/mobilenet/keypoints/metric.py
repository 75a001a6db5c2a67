"""Object keypoint similarity and its average precision, as COCO measures poses; NumPy only.

The arithmetic of pycocotools/cocoeval.py (`computeOks`, `evaluateImg`, `accumulate`), on arrays.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .decode import People
from .spec import COCO_SIGMAS

Doubles = NDArray[np.float64]

THRESHOLDS = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0.0, 1.0, 101)
_AREAS = {"all": (0.0, 1e10), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
_MOST = 20  # people a picture


@dataclass(frozen=True, kw_only=True, eq=False)
class TruePeople:
    """Labelled people of one picture: keypoints (N, K, 3) with visibility 0, 1 or 2, boxes (N, 4)
    as x0, y0, x1, y1 in pixels, areas (N,) in square pixels, crowd (N,)."""

    keypoints: NDArray
    boxes: NDArray
    areas: NDArray
    crowd: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class KeypointScores:
    """From 0 to 1; None where no person of that size is labelled. Means over OKS 0.50:0.05:0.95 but
    for `ap50` and `ap75`; medium is 32² to 96² square pixels, large above."""

    ap: float | None
    ap50: float | None
    ap75: float | None
    ap_medium: float | None
    ap_large: float | None
    ar: float | None


def oks(found: NDArray, truth: TruePeople, *, sigmas: Sequence[float] = COCO_SIGMAS) -> Doubles:
    """Similarity (P, N) from 0 to 1 of found keypoints (P, K, 2 or more) and labelled people.

    The mean over a person's labelled keypoints of exp(-d² / (2 area (2 sigma)²)). Where none is
    labelled, d is the distance to twice the box, of every keypoint.
    """
    points, people = np.asarray(found, np.float64), np.asarray(truth.keypoints, np.float64)
    spread = (2 * np.asarray(sigmas, np.float64)) ** 2
    if len(points) == 0 or len(people) == 0:
        return np.zeros((len(points), len(people)))
    if not points.shape[1] == people.shape[1] == len(spread):
        raise ValueError(
            f"{points.shape[1]} found and {people.shape[1]} labelled keypoints, {len(spread)} "
            "sigmas: expected one number"
        )
    similar = np.zeros((len(points), len(people)))
    for index, (person, box, area) in enumerate(
        zip(people, np.asarray(truth.boxes, np.float64), truth.areas, strict=True)
    ):
        labelled = person[:, 2] > 0
        if labelled.any():
            apart = points[:, :, :2] - person[None, :, :2]
        else:
            size = box[2:] - box[:2]
            below, above = box[:2] - size, box[2:] + size
            apart = np.maximum(below - points[:, :, :2], 0) + np.maximum(
                points[:, :, :2] - above, 0
            )
            labelled = np.ones_like(labelled)
        square = (apart**2).sum(2) / spread / (float(area) + np.spacing(1)) / 2
        similar[:, index] = np.exp(-square[:, labelled]).mean(1)
    return similar


def keypoint_scores(
    truths: Sequence[TruePeople],
    found: Sequence[People],
    *,
    sigmas: Sequence[float] = COCO_SIGMAS,
) -> KeypointScores:
    """AP and AR over pictures, at most 20 people found in each.

    Crowds, people without a labelled keypoint, and those of another size are neither right nor
    wrong. Raises ValueError where the pictures are not as many.
    """
    if len(truths) != len(found):
        raise ValueError(f"{len(found)} pictures found for {len(truths)} labelled ones")
    people = [_best(one) for one in found]
    similar = [
        oks(one.keypoints, truth, sigmas=sigmas) for one, truth in zip(people, truths, strict=True)
    ]
    by_area = {name: _precisions(truths, people, similar, area) for name, area in _AREAS.items()}
    precision, recall = by_area["all"]
    return KeypointScores(
        ap=_mean(precision),
        ap50=_mean(precision[0:1]),
        ap75=_mean(precision[5:6]),
        ap_medium=_mean(by_area["medium"][0]),
        ap_large=_mean(by_area["large"][0]),
        ar=_mean(recall),
    )


def _best(people: People) -> People:
    order = np.argsort(-people.scores, kind="mergesort")[:_MOST]
    return People(keypoints=people.keypoints[order], scores=people.scores[order])


def _mean(values: Doubles) -> float | None:
    return None if np.isnan(values).any() else float(values.mean())


def _precisions(
    truths: Sequence[TruePeople],
    found: Sequence[People],
    similar: Sequence[Doubles],
    area: tuple[float, float],
) -> tuple[Doubles, Doubles]:
    """Precision (10, 101) at every recall, recall (10,); nan where nobody is to be found."""
    scores, matched, skipped, wanted = [], [], [], 0
    for truth, people, table in zip(truths, found, similar, strict=True):
        there = _counted(truth, area)
        wanted += int(there.sum())
        matches, spared = _match(table, there, np.asarray(truth.crowd, bool))
        size = np.ptp(people.keypoints[:, :, :2].astype(np.float64), axis=1).prod(1)
        outside = (size < area[0]) | (size > area[1])
        scores.append(people.scores.astype(np.float64))
        matched.append(matches)
        skipped.append(spared | (~matches & outside))
    if wanted == 0:
        return np.full((len(THRESHOLDS), len(_RECALLS)), np.nan), np.full(len(THRESHOLDS), np.nan)
    order = np.argsort(-np.concatenate(scores), kind="mergesort")
    hits, spared = np.concatenate(matched, 1)[:, order], np.concatenate(skipped, 1)[:, order]
    right = (hits & ~spared).cumsum(1).astype(np.float64)
    wrong = (~hits & ~spared).cumsum(1).astype(np.float64)
    precision, recall = np.zeros((len(THRESHOLDS), len(_RECALLS))), np.zeros(len(THRESHOLDS))
    for index, (tp, fp) in enumerate(zip(right, wrong, strict=True)):
        if len(tp) == 0:
            continue
        share = tp / wanted
        recall[index] = share[-1]
        exact = tp / (tp + fp + np.spacing(1))
        exact = np.maximum.accumulate(exact[::-1])[::-1]
        places = np.searchsorted(share, _RECALLS, side="left")
        inside = places < len(exact)
        precision[index, inside] = exact[places[inside]]
    return precision, recall


def _counted(truth: TruePeople, area: tuple[float, float]) -> NDArray[np.bool_]:
    """Which people are to be found."""
    labelled = (truth.keypoints[:, :, 2] > 0).any(1)
    fits = (truth.areas >= area[0]) & (truth.areas <= area[1])
    return labelled & fits & ~np.asarray(truth.crowd, bool)


def _match(
    similar: Doubles, counted: NDArray[np.bool_], crowd: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """By threshold and found person, the surest first: whether a labelled one is matched, and
    whether that one is not counted. Counted people are matched before others, crowds any number
    of times."""
    shape = len(THRESHOLDS), len(similar)
    matched, spared = np.zeros(shape, bool), np.zeros(shape, bool)
    order = np.argsort(~counted, kind="mergesort")
    for level, threshold in enumerate(THRESHOLDS):
        taken = np.zeros(len(counted), bool)
        for index, row in enumerate(similar):
            best, chosen = min(threshold, 1 - 1e-10), -1
            for person in order:
                if taken[person] and not crowd[person]:
                    continue
                if chosen >= 0 and counted[chosen] and not counted[person]:
                    break
                if row[person] >= best:
                    best, chosen = row[person], person
            if chosen >= 0:
                taken[chosen] = True
                matched[level, index], spared[level, index] = True, not counted[chosen]
    return matched, spared
