"""Datasets on disk to batches: what there is, how it is split, read and checked."""

from .detect import open_dataset
from .picture import Picture
from .reader import Batch, Transform, batches, epoch_order, sample_rng, step_seed
from .scan import ScanReport, scan, without_bad
from .splits import ArraySplit, Dataset, FileSplit, IgnoredFile, Split

__all__ = [
    "ArraySplit",
    "Batch",
    "Dataset",
    "FileSplit",
    "IgnoredFile",
    "Picture",
    "ScanReport",
    "Split",
    "Transform",
    "batches",
    "epoch_order",
    "open_dataset",
    "sample_rng",
    "scan",
    "step_seed",
    "without_bad",
]
