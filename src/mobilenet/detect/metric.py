"""COCO's metrics of boxes, by pycocotools (extra `detect`), from arrays."""

from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import MissingDependency
from ..program import Floats
from .decode import Detections


class Truth(Protocol):
    """What is on one picture; `mobilenet.scenes.Scene` is one.

    boxes (N, 4) in pixels, labels (N,), areas (N,) in px², and crowd (N,): boxes that are neither
    right nor wrong to find (COCO's iscrowd, VOC's difficult).
    """

    @property
    def boxes(self) -> Floats: ...
    @property
    def labels(self) -> NDArray[np.int64]: ...
    @property
    def areas(self) -> Floats: ...
    @property
    def crowd(self) -> NDArray[np.bool_]: ...


@dataclass(frozen=True, kw_only=True)
class DetectionScores:
    """COCO's average precision over IoU 0.50:0.05:0.95, at 0.50 and at 0.75; of boxes below 32²,
    up to 96² and above px²; the average recall; the first two by class. NaN where there is no
    truth. `pictures` and `boxes` (without crowd) that it is of, at most `most` found a picture."""

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar: float
    per_class: tuple[float, ...]
    per_class50: tuple[float, ...]
    pictures: int
    boxes: int
    most: int


class DetectionCount:
    """What was found in each picture, matched with its truth by pycocotools (extra `detect`)."""

    def __init__(
        self,
        truths: Sequence[Truth],
        found: Sequence[Detections],
        *,
        classes: int,
        most: int = 100,
    ) -> None:
        """`classes`: how many there are; at most `most` boxes a picture count.

        A found box does not count at the IoU thresholds up to the share of its area that lies in a
        crowd box of its class. Raises MissingDependency without pycocotools.
        """
        try:
            from pycocotools.coco import COCO
            from pycocotools.cocoeval import COCOeval
        except ImportError:
            what = "COCO's mean average precision"
            raise MissingDependency("pycocotools", "detect", what) from None
        pairs = list(zip(truths, found, strict=True))
        images = [{"id": index} for index in range(1, len(pairs) + 1)]
        categories = [{"id": label} for label in range(1, classes + 1)]
        truth = _rows((index, *_truth_rows(each)) for index, (each, _) in enumerate(pairs, start=1))
        answer = _rows(
            (index, *_found_rows(each)) for index, (_, each) in enumerate(pairs, start=1)
        )
        with redirect_stdout(StringIO()):  # it reports its progress there
            sides = [COCO(), COCO()]
            for side, rows in zip(sides, (truth, answer), strict=True):
                dataset: Any = {"images": images, "categories": categories, "annotations": rows}
                side.dataset = dataset
                side.createIndex()
            self._evaluation: Any = COCOeval(*sides, iouType="bbox")
            self._evaluation.params.maxDets = [most]
            self._evaluation.evaluate()
        self._matched = list(self._evaluation.evalImgs)  # class by class, size by size, picture
        self._sizes = list(self._evaluation.params.areaRng)
        self._pictures, self._classes, self._most = len(pairs), classes, most
        self._boxes = sum(not row["iscrowd"] for row in truth)

    def scores(self) -> DetectionScores:
        """Of all pictures."""
        precision, recall = self._accumulated(np.arange(self._pictures))
        everything, small, medium, large = range(4)
        labels = range(self._classes)
        return DetectionScores(
            ap=_mean(precision[..., everything]),
            ap50=_mean(precision[0, ..., everything]),
            ap75=_mean(precision[5, ..., everything]),
            ap_small=_mean(precision[..., small]),
            ap_medium=_mean(precision[..., medium]),
            ap_large=_mean(precision[..., large]),
            ar=_mean(recall[..., everything]),
            per_class=tuple(_mean(precision[:, :, label, everything]) for label in labels),
            per_class50=tuple(_mean(precision[0, :, label, everything]) for label in labels),
            pictures=self._pictures,
            boxes=self._boxes,
            most=self._most,
        )

    def resampled(self, rows: NDArray[np.int64]) -> float:
        """The average precision of as many pictures, by place, some several times."""
        precision, _ = self._accumulated(rows, sizes=1)
        return _mean(precision[..., 0])

    def _accumulated(self, rows: NDArray[np.integer], *, sizes: int = 4) -> tuple[NDArray, NDArray]:
        """Precision (thresholds, recalls, classes, sizes), and recall without recalls; the first
        size is any."""
        count = self._pictures
        groups = [
            self._matched[start : start + count] for start in range(0, len(self._matched), count)
        ]
        with redirect_stdout(StringIO()):
            self._evaluation.evalImgs = [group[row] for group in groups for row in rows]
            self._evaluation.params.areaRng = self._sizes[:sizes]
            self._evaluation.accumulate()
        found = self._evaluation.eval
        return found["precision"][..., 0], found["recall"][..., 0]


def detection_scores(
    truths: Sequence[Truth], found: Sequence[Detections], *, classes: int, most: int = 100
) -> DetectionScores:
    """Measure what was found in each picture against its truth; see `DetectionCount`."""
    return DetectionCount(truths, found, classes=classes, most=most).scores()


def _mean(values: NDArray[np.float64]) -> float:
    """Of what there is: -1 stands for no truth."""
    there = values[values > -1]
    return float(there.mean()) if there.size else float("nan")


Row = tuple[Any, ...]  # box, label, area, iscrowd, score


def _truth_rows(truth: Truth) -> Row:
    return truth.boxes, truth.labels, truth.areas, truth.crowd, np.ones(len(truth.boxes))


def _found_rows(found: Detections) -> Row:
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    crowd = np.zeros(len(sides), bool)
    return found.boxes, found.labels, sides.prod(1), crowd, found.scores


def _rows(pictures: Iterator[Row]) -> list[dict[str, Any]]:
    """COCO's annotations; every number a Python one."""
    rows: list[dict[str, Any]] = []
    for image, boxes, labels, areas, crowd, scores in pictures:
        for (x0, y0, x1, y1), label, area, many, score in zip(
            np.asarray(boxes, np.float64).tolist(), labels, areas, crowd, scores, strict=True
        ):
            rows.append(
                {
                    "id": len(rows) + 1,
                    "image_id": image,
                    "category_id": int(label) + 1,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": float(area),
                    "iscrowd": int(many),
                    "score": float(score),
                }
            )
    return rows
