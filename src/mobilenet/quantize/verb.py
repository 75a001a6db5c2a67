"""The verb `quantize`: a float run in, an int8 run that was measured against it out."""

import math
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

from ..checkpoint import read_model_json
from ..errors import MissingDependency, UsageError
from .result import Quantisation

STEPS = ("wide", "equalise", "ranges", "maps", "bias", "round", "train")
_OF_NUMBERS = ("bias", "round", "train")  # these change the whole numbers, the others make them


def quantize(
    run: Path,
    data: str,
    /,
    *,
    out: Path,
    max_drop: float = 1.0,
    steps: str | None = None,
    pictures: int = 512,
    train_minutes: float = 5.0,
    portable: bool = False,
    weight_bits: int = 8,
    limit: int | None = 2000,
    skip_bad: bool = False,
    threads: int | None = None,
    seed: int = 0,
) -> Quantisation:
    """Make an int8 network of a float one, and repair it until it answers as well.

    Calibrates on training pictures, measures on validation pictures, and goes up a ladder of
    repairs, the cheapest first, until the gate holds beyond chance: wide (ten bits where the native
    engine has them for nothing; other runtimes compute there in float32), equalise (channels share
    a range), ranges (each tensor's calibrator by what it does to the answers), maps (ten bits
    between layers too: free on AVX2, slower where bytes have a dot product), bias (means
    corrected); and, where the drop measured is still too large, round (AdaRound, block by block)
    and train (distillation from the float network). What does not help is left out. The out folder
    is a run as any other: evaluate, export, verify it.

    Raises DataError for pictures that cannot be read or are too few, UsageError for options that
    make no sense, CheckpointError for a damaged run.

    Args:
        run: Run folder, or a model's name for its ImageNet weights.
        data: Dataset: a folder, a manifest or a known name. Where none of its classes are the
            model's, the float network's answers stand in for labels.
        out: Folder to write: the int8 network beside the float one, quantisation.json and .html.
        max_drop: Percentage points of accuracy that int8 may lose; exit code 1 where it loses more.
        steps: Repairs to do, in this order, with commas between, instead of as many as it takes;
            "none" is calibration alone.
        pictures: Training pictures to calibrate and repair with.
        train_minutes: Time for the step train.
        portable: Leave out the steps wide and maps: eight bits throughout, as every runtime has.
        weight_bits: 4 rounds the weights of all 1x1 and dense convolutions to four bits: an ONNX
            file of about half the size, which answers worse and is no faster; 8 otherwise.
        limit: Measure on so many validation pictures.
        skip_bad: Leave out the images that cannot be read.
        threads: CPU threads; without it all cores.
        seed: Of everything random.
    """
    chosen = _chosen(steps)
    _check_options(max_drop, pictures, train_minutes, weight_bits, threads)
    if portable and chosen is not None and (asked := {"wide", "maps"} & set(chosen)):
        raise UsageError(f"--portable leaves out {' and '.join(asked)}, which --steps asks for")
    _check_folder(Path(run), Path(out))
    for package in ("torch", "safetensors"):
        if find_spec(package) is None:
            raise MissingDependency(package, "train", "quantising")
    from .work import Options, quantise_run

    options = Options(
        max_drop=max_drop,
        steps=chosen,
        pictures=pictures,
        train_seconds=60 * train_minutes,
        portable=portable,
        weight_bits=weight_bits,
        limit=limit,
        skip_bad=skip_bad,
        threads=threads,
        seed=seed,
    )
    return quantise_run(run, data, Path(out), options)


def _chosen(steps: str | None) -> tuple[str, ...] | None:
    if steps is None:
        return None
    names = tuple(name.strip() for name in steps.split(",")) if steps != "none" else ()
    if unknown := [name for name in names if name not in STEPS]:
        raise UsageError(f"steps {', '.join(unknown)}: expected of {', '.join(STEPS)}, or none")
    for before, name in pairwise(names):
        if before in _OF_NUMBERS and name not in _OF_NUMBERS:
            raise UsageError(f"steps: {name} rounds anew, and would undo {before}: put it in front")
    return names


def _check_options(
    max_drop: float, pictures: int, train_minutes: float, weight_bits: int, threads: int | None
) -> None:
    if not (math.isfinite(max_drop) and max_drop >= 0):
        raise UsageError(f"max_drop {max_drop}: expected percentage points, 0 or more")
    if pictures < 1:
        raise UsageError(f"pictures {pictures}: expected at least 1")
    if not (math.isfinite(train_minutes) and train_minutes > 0):
        raise UsageError(f"train_minutes {train_minutes}: expected above 0")
    if weight_bits not in (4, 8):
        raise UsageError(f"weight_bits {weight_bits}: expected 8 or 4")
    if threads is not None and threads < 1:
        raise UsageError(f"threads {threads}: expected at least 1")


def _check_folder(run: Path, out: Path) -> None:
    """Raises UsageError where writing to `out` would lose something."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: a file; choose a folder")
    if not (out / "model.json").exists():
        return
    if run.exists() and run.resolve() == out.resolve():
        raise UsageError(f"{out}: the run itself; choose another folder")
    if "quantised" not in read_model_json(out):
        raise UsageError(f"{out}: holds another model, which would be lost; choose another folder")
