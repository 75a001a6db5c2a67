"""WIDER FACE's average precision, and how far landmarks lie from where they should (NumPy)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..detect import Truth
from ..detect.boxes import iou
from ..errors import DataError, UsageError
from ..program import Floats
from .decode import Faces

Doubles = NDArray[np.float64]
Bools = NDArray[np.bool_]

OVERLAP = 0.5  # IoU from which a face is found
THRESHOLDS = 1000  # of the scores, which first are stretched from 0 to 1
# Heights in pixels from which a face counts, to stand in for the benchmark's own lists of easy,
# medium and hard faces. Those were drawn up by how many faces proposals found, and come as .mat:
# a score of these heights is not to be compared with one of those lists
HEIGHTS: dict[str, float] = {"easy": 50.0, "medium": 30.0, "hard": 10.0}


@dataclass(frozen=True, kw_only=True, eq=False)
class WiderScore:
    """Average precision, NaN without a face that counts; the precision and recall (1000,) that it
    is of, from the highest threshold down; how many `faces` counted, in how many `pictures`."""

    ap: float
    precision: Doubles
    recall: Doubles
    faces: int
    pictures: int


def height_subset(truths: Sequence[Truth], least: float) -> list[Bools]:
    """For `wider_scores`: the faces at least so many pixels high."""
    return [np.asarray(each.boxes[:, 3] - each.boxes[:, 1] >= least, bool) for each in truths]


@dataclass(frozen=True, kw_only=True, eq=False)
class JudgedFaces:
    """What was found in one picture, held against its faces: the scores (N,), which of them are
    `proposals`, neither right nor wrong otherwise, and which are right; how many `faces` count."""

    scores: Doubles
    proposals: Bools
    hits: Bools
    faces: int


def judge_faces(boxes: Floats, counted: Bools, found: Faces) -> JudgedFaces:
    """For `score_faces`: true boxes (N, 4), which of them (N,) count, and what was found."""
    order = np.argsort(-found.scores, kind="stable")
    proposals, hits = _picture(boxes, counted, found.boxes[order])
    return JudgedFaces(
        scores=found.scores[order].astype(np.float64),
        proposals=proposals,
        hits=hits,
        faces=int(counted.sum()),
    )


def wider_scores(
    truths: Sequence[Truth], found: Sequence[Faces], *, subset: Sequence[Bools] | None = None
) -> WiderScore:
    """Average precision as WIDER FACE's own evaluation reckons it (arXiv 1511.06523; eval_tools).

    `subset`: for each picture which faces (N,) count, None: all; a crowd box never does. Found
    faces that overlap most one that does not count are neither right nor wrong; of several that
    overlap one that does, the surest is right. Sides are counted with both end pixels. The
    evaluation passes over pictures without a face; here what is found on them is wrong.

    Raises UsageError where the pictures, or the faces of one and its subset, are not as many.
    """
    if not len(truths) == len(found) == len(truths if subset is None else subset):
        raise UsageError(
            f"{len(truths)} pictures labelled, {len(found)} found, subset of "
            f"{len(truths if subset is None else subset)}: expected as many"
        )
    judged = []
    for index, (truth, own) in enumerate(zip(truths, found, strict=True)):
        counted = ~np.asarray(truth.crowd, bool)
        if subset is not None:
            if len(subset[index]) != len(counted):
                raise UsageError(
                    f"picture {index}: {len(counted)} faces, subset of {len(subset[index])}"
                )
            counted &= np.asarray(subset[index], bool)
        judged.append(judge_faces(truth.boxes, counted, own))
    return score_faces(judged)


def score_faces(judged: Sequence[JudgedFaces]) -> WiderScore:
    """As `wider_scores`, of pictures that were judged one by one."""
    total = sum(each.faces for each in judged)
    if total == 0:
        nothing = np.full(THRESHOLDS, np.nan)
        return WiderScore(
            ap=float("nan"), precision=nothing, recall=nothing, faces=0, pictures=len(judged)
        )
    scores = np.concatenate([each.scores for each in judged])
    order = np.argsort(-scores, kind="stable")
    low, span = (scores.min(), np.ptp(scores)) if scores.size else (0.0, 0.0)
    stretched = (scores[order] - low) / span if span else np.ones(len(scores))
    levels = 1 - np.arange(1, THRESHOLDS + 1) / THRESHOLDS
    above = np.searchsorted(-stretched, -levels, side="right")  # how many are at least as sure
    proposals = np.concatenate([each.proposals for each in judged])[order]
    hits = np.concatenate([each.hits for each in judged])[order]
    proposed = np.concatenate([[0], proposals.cumsum()])[above].astype(np.float64)
    right = np.concatenate([[0], hits.cumsum()])[above].astype(np.float64)
    precision = np.divide(right, proposed, out=np.zeros(THRESHOLDS), where=proposed > 0)
    recall = right / total
    return WiderScore(
        ap=_area_under(recall, precision),
        precision=precision,
        recall=recall,
        faces=total,
        pictures=len(judged),
    )


def _picture(truth: Floats, counted: Bools, found: Floats) -> tuple[Bools, Bools]:
    """Of boxes found (N, 4), the surest first: which are proposals, and which find a face."""
    proposals, hits = np.ones(len(found), bool), np.zeros(len(found), bool)
    if len(truth) == 0 or len(found) == 0:
        return proposals, hits
    overlap = _pixel_iou(found, truth)
    taken = np.zeros(len(truth), bool)
    for row, face in enumerate(overlap.argmax(1)):
        if overlap[row, face] < OVERLAP:
            continue
        if not counted[face]:
            proposals[row] = False
        elif not taken[face]:
            taken[face] = hits[row] = True
    return proposals, hits


def _pixel_iou(first: Floats, second: Floats) -> Floats:
    """IoU (N, M) of boxes whose corners are pixels that belong to them."""
    behind = np.array([0, 0, 1, 1], np.float32)
    return iou(first + behind, second + behind)


def _area_under(recall: Doubles, precision: Doubles) -> float:
    """VOC's area under the precision that is reached at every recall or beyond."""
    reached = np.maximum.accumulate(np.append(precision, 0.0)[::-1])[::-1]
    return float((np.diff(recall, prepend=0.0) * reached[:-1]).sum())


# ------------------------------------------------------------------------------------- landmarks


def interocular(landmarks: Floats) -> Doubles:
    """The distance (N,) of the first two landmarks of faces (N, K, 2 or more), which are the eyes
    of both kinds of detector."""
    points = np.asarray(landmarks, np.float64)
    return np.hypot(*(points[:, 0, :2] - points[:, 1, :2]).T)


def box_side(boxes: Floats) -> Doubles:
    """The side (N,) of a square as large as each box (N, 4)."""
    sides = np.asarray(boxes, np.float64)[:, 2:] - np.asarray(boxes, np.float64)[:, :2]
    return np.sqrt(sides.prod(1))


def pair_faces(
    truth: Floats, found: Faces, *, overlap: float = OVERLAP
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Which true boxes (N, 4) were found, and by which faces: two index arrays (M,). The surest
    face takes first, the box that it overlaps most of those left, if by `overlap` (IoU)."""
    shared = iou(found.boxes, truth)
    boxes, faces = [], []
    for face in np.argsort(-found.scores, kind="stable"):
        if len(truth) and shared[face].max() >= overlap:
            box = shared[face].argmax()
            shared[:, box] = -1
            boxes.append(box)
            faces.append(face)
    return np.array(boxes, np.intp), np.array(faces, np.intp)


def landmark_error(found: Floats, truth: Floats, sizes: Doubles) -> Doubles:
    """Normalised mean error (N,) of faces: the mean distance of the landmarks found (N, K, 2) from
    the true ones (N, K, 3: x, y, 0 for not labelled), over `sizes` (N,), which `interocular` or
    `box_side` give. NaN for a face none of whose landmarks is labelled.

    Raises UsageError for other shapes, DataError for a labelled face whose size is not above 0.
    """
    points, wanted = np.asarray(found, np.float64), np.asarray(truth, np.float64)
    if points.shape != (*wanted.shape[:2], 2) or wanted.shape[2:] != (3,):
        raise UsageError(
            f"landmarks {points.shape} found, {wanted.shape} labelled: expected (N, K, 2) and "
            "(N, K, 3)"
        )
    if len(sizes) != len(points):
        raise UsageError(f"{len(sizes)} sizes of {len(points)} faces: expected one of each")
    labelled = wanted[..., 2] > 0
    known = labelled.any(1)
    wrong = np.flatnonzero(known & ~(np.asarray(sizes) > 0))
    if wrong.size:
        raise DataError(
            f"face {wrong[0]}: its size is {sizes[wrong[0]]}; normalise by box_side where eyes can "
            "coincide, and leave boxes without width or height out"
        )
    errors = np.full(len(points), np.nan)
    apart = np.linalg.norm(points - np.where(labelled[..., None], wanted[..., :2], points), axis=2)
    errors[known] = apart[known].sum(1) / labelled[known].sum(1) / np.asarray(sizes)[known]
    return errors
