"""Segmentation, as the verbs need it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..networks import Rules, SceneSpec, Task
from ..scenes import SceneData
from ..scenes.augment import distort, jitter_scale, mirror
from ..scenes.draw import draw_mask
from ..scenes.sample import Sample
from ..scenes.segments import runs_of, to_text
from ..segment import (
    SEGMENTS,
    MaskRules,
    SegmenterSpec,
    boundaries,
    confusion,
    decode_masks,
    default_tolerance,
    segment_scores,
)
from .reading import Example
from .task import Ints, Maps, SceneScores, Size, share

if TYPE_CHECKING:
    from torch import Tensor, nn

BACKGROUND = "background"
_SCALES = (0.75, 2.0)

Mask = np.ndarray[Any, np.dtype[np.uint8]]


class _SegmentTally:
    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = tuple(labels)
        self._counts: list[Ints] = []
        self._edges: list[Ints] = []

    def add(self, example: Example, sample: Sample, found: Mask) -> None:
        assert sample.mask is not None
        classes = len(self._labels)
        near = default_tolerance(*found.shape)
        self._counts.append(confusion(sample.mask, found, classes))
        self._edges.append(boundaries(sample.mask, found, classes, tolerance=near))

    def scores(self) -> SceneScores:
        found = segment_scores(np.sum(self._counts, 0), np.sum(self._edges, 0))
        assert found.class_boundary_f is not None
        per_class = zip(self._labels, found.iou, found.class_boundary_f, strict=True)
        return SceneScores(
            primary="mIoU",
            figures={
                "mIoU": found.mean_iou,
                "pixel_accuracy": found.pixel_accuracy,
                "mean_accuracy": found.mean_accuracy,
                "boundary_F": share(found.boundary_f),
            },
            per_class={
                label: {"mIoU": share(overlap), "boundary_F": share(edge)}
                for label, overlap, edge in per_class
            },
            n=len(self._counts),
        )

    def resampled(self, rows: Ints) -> float:
        return segment_scores(np.asarray(self._counts)[rows].sum(0)).mean_iou


class _Segment:
    name: Task = "segment"
    mask = True

    def spec_for(self, named: SceneSpec, data: SceneData, size: int) -> SegmenterSpec:
        assert isinstance(named, SegmenterSpec)
        return replace(named, classes=1 + len(data.classes))

    def labels(self, data: SceneData) -> tuple[str, ...]:
        return (BACKGROUND, *data.classes)

    def rules(self, spec: SceneSpec, data: SceneData) -> MaskRules:
        return MaskRules()

    def windowed(self, spec: SceneSpec) -> bool:
        return False

    def vary(self, sample: Sample, rng: np.random.Generator, size: int, rules: Rules) -> Sample:
        sample = jitter_scale(sample, size, size, rng, scale=_SCALES)
        if rng.random() < 0.5:
            sample = mirror(sample)
        return replace(sample, picture=distort(sample.picture, rng))

    def target(self, spec: SceneSpec, sample: Sample) -> Mask:
        assert sample.mask is not None
        return sample.mask

    def loss(self, network: "nn.Module", images: "Tensor", targets: Sequence[Any]) -> "Tensor":
        import torch

        from ..segment.loss import segment_loss
        from ..segment.model import Segmenter

        assert isinstance(network, Segmenter)
        masks = torch.from_numpy(np.stack(targets)).to(images.device)
        return segment_loss(network.scores(images), masks)

    def decode(
        self, spec: SceneSpec, rules: Rules, maps: Maps, sizes: Sequence[Size], side: int
    ) -> list[Mask]:
        scores = maps[SEGMENTS]
        return [
            decode_masks(scores[index : index + 1], height, width)[0]
            for index, (width, height) in enumerate(sizes)
        ]

    def agreement(self, found: Mask, other: Mask) -> tuple[float, float]:
        """Pixels of the same class, of all."""
        return float((found == other).sum()), float(found.size)

    def tally(self, spec: SceneSpec, rules: Rules, labels: Sequence[str]) -> _SegmentTally:
        return _SegmentTally(labels)

    def to_json(self, found: Mask, labels: Sequence[str], rules: Rules) -> dict[str, Any]:
        """Each class's share of the picture, and its pixels as COCO's compressed runs."""
        segments = [
            {
                "label": labels[index],
                "share": float((found == index).mean()),
                "segment": {
                    "size": list(found.shape),
                    "counts": to_text(runs_of(found == index)),
                },
            }
            for index in np.unique(found).tolist()
            if index > 0
        ]
        return {"predictions": segments}

    def draw(
        self, picture: Image.Image, found: Mask, labels: Sequence[str], rules: Rules
    ) -> Image.Image:
        return draw_mask(picture, found)

    def describe(self, found: Mask, labels: Sequence[str]) -> str:
        counts = np.bincount(found.reshape(-1), minlength=len(labels)) / found.size
        order = [index for index in np.argsort(-counts) if index > 0 and counts[index] > 0]
        named = [f"{labels[index]} {100 * counts[index]:.1f} %" for index in order]
        return ", ".join(named) or "background only"


SEGMENT = _Segment()
