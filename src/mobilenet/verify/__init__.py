"""Is the exported file as good as the run it came from? `verify` measures both on the same
pictures and writes a certificate."""

import hashlib
import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from ..checkpoint import load_model
from ..data import Split
from ..durable import write_atomically
from ..errors import CheckpointError, MobilenetError, UsageError
from ..evaluate import SplitChoice, answer, match_classes, open_split
from ..evaluate.metrics import wilson
from ..evaluate.model import Forward, OpenModel, torch_forward
from ..evaluate.paired import compare_answers
from ..evaluate.scene_model import task_in
from ..export import disagreement, golden_inputs, read_golden
from ..export.on_device import OnDevice, open_on_device
from ..export.proof import tie_of
from ..progress import say
from ..report.certificates import certificates_page
from ..runtime import Floats, Model, inspect_machine, is_artifact, load
from .certificate import FILE, Certificate, Certificates, Comparison, GoldenCheck
from .conditions import (
    broken,
    float_run,
    golden_tolerance,
    input_tolerance,
    installed_versions,
)
from .scenes import SceneCertificate, refuse_device, verify_scenes

PAGE = "certificates.html"  # of a folder of exported folders
BATCH = 16
DEVICE_BATCH = 128  # pushed at once
READERS = 2


def verify(
    folder: Path,
    data: str,
    *,
    run: Path | None = None,
    max_drop: float = 1.0,
    split: SplitChoice | None = None,
    runtime: str | None = None,
    threads: int | None = None,
    limit: int | None = None,
    device: str | None = None,
    cores: str | None = None,
) -> Certificate | Certificates | SceneCertificate:
    """Compare an exported file with its run on labelled pictures; write certificate.json.

    A folder of exported folders is measured one by one, on the same pictures, and gets
    certificates.html, which has them side by side.

    Args:
        folder: Exported folder, or one that holds several.
        data: Dataset: a folder, a manifest or a known name.
        run: The float run; without it where it lay when it was exported.
        max_drop: Percentage points of accuracy that the file may lose.
        split: Part of the data; "all": every image of data that has no splits. Without it test if
            there is one, else val.
        runtime: What runs the file, where several do (onnxruntime, openvino); without it the first
            installed.
        threads: CPU threads; without it all cores, on a device one.
        limit: Measure only so many images, each class in proportion.
        device: Run the file there: ssh:[USER@]HOST[:PORT] or adb:SERIAL; for what was exported for
            the engine or the web.
        cores: Cores of the device that it may use, such as 4,5.
    """
    if cores is not None and device is None:
        raise UsageError("--cores are those of a --device")
    if not (math.isfinite(max_drop) and max_drop >= 0):
        raise UsageError(f"max_drop {max_drop}: expected percentage points, 0 or more")
    if task_in(folder) != "classify":
        refuse_device(device)
        return verify_scenes(
            Path(folder),
            data,
            run=run,
            max_drop=max_drop,
            split=split,
            runtime=runtime,
            threads=threads,
            limit=limit,
        )
    if several := _exported_within(Path(folder)):
        if runtime is not None or device is not None:
            raise UsageError("--runtime and --device are for one exported folder")
        return _all(several, data, run, max_drop, split=split, threads=threads, limit=limit)
    if device is None:
        model = load(folder, runtime=runtime, threads=threads)
        return _verified(model, None, data, run=run, max_drop=max_drop, split=split, limit=limit)
    if runtime is not None:
        raise UsageError("--runtime: on a device it is always the engine")
    with open_on_device(folder, device, threads=threads or 1, cores=cores) as (model, found):
        return _verified(model, found, data, run=run, max_drop=max_drop, split=split, limit=limit)


def _exported_within(folder: Path) -> list[Path]:
    """The exported folders in one that is neither exported nor a run."""
    if (folder / "model.json").exists() or not folder.is_dir():
        return []
    return sorted(inner for inner in folder.iterdir() if _may_be_exported(inner))


def _may_be_exported(folder: Path) -> bool:
    """Whether it is an exported folder, or one whose model.json cannot be read."""
    try:
        return is_artifact(folder)
    except CheckpointError:
        return True


def _all(
    folders: list[Path],
    data: str,
    run: Path | None,
    max_drop: float,
    *,
    split: SplitChoice | None,
    threads: int | None,
    limit: int | None,
) -> Certificates:
    """Certificates of all, in turn; what the float network answered is computed once."""
    found, failed, sizes, known = [], {}, {}, {}
    for folder in folders:
        try:
            if task_in(folder) != "classify":
                raise UsageError("a network for scenes: verify it by itself")
            model = load(folder, threads=threads)
            sizes[str(folder)] = model.file.description.get("bytes", len(model.file.data))
            one = _verified(
                model,
                None,
                data,
                run=run,
                max_drop=max_drop,
                split=split,
                limit=limit,
                known=known,
            )
            found.append(one)
            say(f"{folder}: {'holds' if one.ok else 'FAILS'}")
        except MobilenetError as error:
            failed[str(folder)] = str(error)
            say(f"{folder}: not measured: {error}")
    page = folders[0].parent / PAGE
    text = certificates_page([one.to_json() for one in found], failed, sizes)
    write_atomically(page, text.encode())
    ok = not failed and all(one.ok for one in found)
    return Certificates(ok=ok, certificates=tuple(found), failed=failed, page=page)


Known = dict[tuple[str, bytes], Floats]


def _remembered(forward: Forward, weights: str, known: Known) -> Forward:
    """The function, which answers what is in `known` for these weights from there."""

    def answered(images: Floats) -> Floats:
        key = (weights, hashlib.sha256(images.tobytes()).digest())
        if key not in known:
            known[key] = forward(images)
        return known[key]

    return answered


def _verified(
    model: Model,
    there: OnDevice | None,
    data: str,
    *,
    run: Path | None,
    max_drop: float,
    split: SplitChoice | None,
    limit: int | None,
    known: Known | None = None,
) -> Certificate:
    start = time.perf_counter()
    folder = model.file.folder
    source = float_run(model.file, run)
    exported = _named(model)
    dataset, name = open_split(exported, data, split, limit=limit)
    part = dataset.splits[name]
    say(f"{data}: measuring {name}, {len(part)} images")

    golden = _check_golden(model)
    with _torch_network(source, model.session.threads) as forward:
        if forward is not None and known is not None:
            forward = _remembered(forward, model.file.weights_sha256, known)
        batch = BATCH if there is None else DEVICE_BATCH
        places = match_classes(dataset, exported)
        answers = _answers(model, forward, part, places, batch)
    comparison = _compare(source, answers) if source is not None else None
    problems = (
        *_problems(golden, comparison, model, max_drop),
        *broken(model.contract, model.session, source),
    )
    if there is not None and there.problem is not None:
        problems = (*problems, there.problem)
    certificate = Certificate(
        ok=not problems,
        problems=problems,
        max_drop=max_drop,
        top1=wilson(int((answers.exported == answers.labels).sum()), len(part)),
        comparison=comparison,
        golden=golden,
        data=data,
        split=name,
        data_sha256=_content_sha256(part),
        n=len(part),
        folder=Path(folder),
        format=model.file.format,
        artifact_sha256=model.file.sha256,
        weights_sha256=model.file.weights_sha256,
        runtime=f"{model.session.runtime} {model.session.version}",
        precision=model.session.precision,
        convolutions=dict(model.session.convolutions),
        not_involved=model.session.note,
        threads=model.session.threads,
        device=there and there.report,
        versions=installed_versions(),
        machine=inspect_machine(),
        seconds=round(time.perf_counter() - start, 3),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    text = json.dumps(certificate.to_json(), indent=2, allow_nan=False) + "\n"
    write_atomically(Path(folder) / FILE, text.encode())
    return certificate


@dataclass(frozen=True, kw_only=True)
class _Answers:
    """First classes int64 (N,) and true labels; the errors are NaN without the float network."""

    labels: np.ndarray
    exported: np.ndarray
    reference: np.ndarray
    max_error: float
    mean_error: float


def _answers(
    model: Model, forward: Forward | None, part: Split, places: np.ndarray, batch_size: int
) -> _Answers:
    labels, exported, reference = [], [], []
    largest, total, count = 0.0, 0.0, 0

    def both(images: Floats) -> Floats:
        nonlocal largest, total, count
        logits = model(images)
        if forward is not None:
            wanted = forward(images)
            reference.append(wanted.argmax(axis=1))
            same = model.session.comparable
            error = np.abs(same(logits) - same(wanted))
            largest = float(np.maximum(largest, error.max()))  # NaN stays NaN
            total += float(error.sum())
            count += error.size
        return logits

    for logits, batch in answer(
        both, part, model.preprocess, batch_size=batch_size, workers=READERS
    ):
        labels.append(places[batch.labels])
        exported.append(logits.argmax(axis=1))
    return _Answers(
        labels=np.concatenate(labels),
        exported=np.concatenate(exported),
        reference=np.concatenate(reference) if reference else np.empty(0, np.int64),
        max_error=largest,
        mean_error=total / count if count else math.nan,
    )


def _compare(source: Path, answers: _Answers) -> Comparison:
    n = len(answers.labels)
    reference = answers.reference == answers.labels
    return Comparison(
        run=source,
        top1=wilson(int(reference.sum()), n),
        drop=compare_answers(reference, answers.exported == answers.labels),
        agreement=wilson(int((answers.exported == answers.reference).sum()), n),
        max_logit_error=answers.max_error,
        mean_logit_error=answers.mean_error,
    )


def _check_golden(model: Model) -> GoldenCheck:
    golden = read_golden(model.file)
    tolerance = golden_tolerance(model.file)
    logits = model(golden.inputs)
    inputs = golden_inputs(model.preprocess, golden.images)
    level = input_tolerance(model.preprocess)
    input_error = float(np.abs(inputs - golden.inputs).max())
    tie = tie_of(model.file.precision)
    wrong = disagreement(logits, golden.logits, tolerance=tolerance, tie=tie)
    return GoldenCheck(
        ok=wrong is None and input_error <= level,
        images=len(golden.images),
        max_logit_error=float(np.abs(logits - golden.logits).max()),
        logit_tolerance=tolerance,
        max_input_error=input_error,
        input_tolerance=level,
    )


def _problems(
    golden: GoldenCheck, comparison: Comparison | None, model: Model, max_drop: float
) -> tuple[str, ...]:
    problems = []
    if not golden.max_input_error <= golden.input_tolerance:
        problems.append("this machine's preprocessing differs from the one that was exported")
    elif not golden.ok:
        problems.append("the file's answers to the golden images are not the float network's")
    if comparison is None:
        problems.append(
            "the float run was not measured, so that no drop is known: give --run, on a machine "
            "with torch (pip install 'mobilenet[train]')"
        )
    elif comparison.drop.points > max_drop:
        problems.append(
            f"the file loses {comparison.drop.points:.2f} points, more than {max_drop:g}"
        )
    return tuple(problems)


def _named(model: Model) -> OpenModel:
    """The exported model under the name that messages give it."""
    return OpenModel(
        name=str(model.file.folder),
        forward=model,
        preprocess=model.preprocess,
        labels=model.labels,
        runtime=model.session.runtime,
        provenance=model.contract["provenance"],
    )


@contextmanager
def _torch_network(source: Path | None, threads: int) -> Iterator[Forward | None]:
    """The float run as a function of arrays in eager PyTorch with so many threads."""
    if source is None:
        yield None
        return
    network = load_model(source).module()
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield torch_forward(network, torch.device("cpu"))
    finally:
        torch.set_num_threads(before)


def _content_sha256(part: Split) -> str:
    digest = hashlib.sha256()
    for index in range(len(part)):
        digest.update(f"{part.labels[index]} ".encode())
        digest.update(hashlib.sha256(part.content(index)).digest())
    return digest.hexdigest()
