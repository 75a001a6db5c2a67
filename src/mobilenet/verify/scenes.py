"""`verify` for networks for scenes: the task's own metric, on the exported file itself."""

import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint import load_network
from ..durable import write_atomically
from ..errors import DataError, UsageError
from ..evaluate.scene_model import SceneModel, of_session, torch_maps
from ..evaluate.scenes import (
    SceneDrop,
    answer_scenes,
    compare_tallies,
    interval_of,
    open_scene_split,
)
from ..export import golden_inputs
from ..export.scenes import largest_error, read_scene_golden
from ..progress import say
from ..runtime import ArtifactFile, Machine, Session, inspect_machine, load_scene
from ..scenes import Scene
from ..tasks import SceneScores, examples_of
from .certificate import FILE, GoldenCheck
from .conditions import broken, float_run, golden_tolerance, input_tolerance, installed_versions

_BATCH, _READERS = 8, 2


@dataclass(frozen=True, kw_only=True)
class SceneComparison:
    """The float run, and the exported file beside it, picture by picture. `agreement`: how much of
    what either finds both find; of boxes, pixels or keypoints, see the task. Errors are absolute,
    of the raw maps."""

    run: Path
    scores: SceneScores
    drop: SceneDrop
    agreement: float | None
    max_map_error: float
    mean_map_error: float


@dataclass(frozen=True, kw_only=True)
class SceneCertificate:
    """What was verified, on which pictures, with what, and whether the gate holds: the golden check
    and a drop of the task's primary figure of at most `max_drop` points. `low` and `high` are of
    that figure (95 %). Otherwise as `Certificate`."""

    ok: bool
    problems: tuple[str, ...]
    max_drop: float
    task: str
    scores: SceneScores
    low: float
    high: float
    comparison: SceneComparison | None
    golden: GoldenCheck
    data: str
    split: str
    data_sha256: str
    n: int
    folder: Path
    format: str
    artifact_sha256: str
    weights_sha256: str
    runtime: str
    precision: str
    convolutions: Mapping[str, int]
    threads: int
    versions: Mapping[str, str]
    machine: Machine
    seconds: float
    date: str

    def to_json(self) -> dict[str, Any]:
        """A JSON object; figures are fractions, drops percentage points, no number is null."""
        text = json.dumps(asdict(self), default=str)
        return json.loads(text, parse_constant=lambda _: None)

    def __str__(self) -> str:
        """A few lines for people."""
        primary = self.scores.primary
        lines = [
            f"exported  {primary} {100 * self.scores.value:6.2f} % "
            f"({100 * self.low:.2f} to {100 * self.high:.2f} with 95 % confidence)"
        ]
        if (found := self.comparison) is not None:
            drop = found.drop
            lines += [
                f"float     {primary} {100 * found.scores.value:6.2f} %",
                f"drop      {drop.points:.2f} points ({drop.low:.2f} to {drop.high:.2f})",
                "agreement "
                + ("–" if found.agreement is None else f"{100 * found.agreement:.2f} %")
                + " of what either finds",
                f"maps      differ by at most {found.max_map_error:.2g}, "
                f"{found.mean_map_error:.2g} on average",
            ]
        golden = self.golden
        counts = ", ".join(f"{count} in {name}" for name, count in self.convolutions.items())
        lines += [
            f"golden    {golden.images} images: maps within {golden.max_logit_error:.2g} "
            f"(accepted {golden.logit_tolerance:.2g}), inputs within {golden.max_input_error:.2g}",
            f"measured  {self.n} examples, split {self.split} of {self.data}, "
            f"{self.runtime} in {self.precision}"
            + (f" (convolutions: {counts})" if counts else ""),
            f"gate      {'holds' if self.ok else 'FAILS'}: drop at most {self.max_drop:g} points"
            + "".join(f"\n          {problem}" for problem in self.problems),
        ]
        return "\n".join(lines)


def verify_scenes(
    folder: Path,
    data: str,
    *,
    run: Path | None,
    max_drop: float,
    split: str | None,
    runtime: str | None,
    threads: int | None,
    limit: int | None,
) -> SceneCertificate:
    """`verify` for one exported folder of a network for scenes."""
    start = time.perf_counter()
    file, session = load_scene(folder, runtime=runtime, threads=threads)
    exported = of_session(file, session)
    source = float_run(file, run)
    found, name = open_scene_split(exported, data, split, limit=limit, skip_bad=False)
    scenes = found.splits[name]
    examples = examples_of(scenes, windowed=exported.task.windowed(exported.spec))
    if not examples:
        raise DataError(f"{data}: nothing of split {name} can be measured")
    say(f"{data}: measuring {name}, {len(examples)} examples")
    golden = _check_golden(file, session, exported)
    tally = exported.task.tally(exported.spec, exported.rules, exported.labels)
    floats = exported.task.tally(exported.spec, exported.rules, exported.labels)
    same = total = 0.0
    errors = _Errors()
    with _in_torch(source, exported, session.threads) as reference:
        for images, batch in answer_scenes(
            errors.kept(exported), examples, batch_size=_BATCH, workers=_READERS
        ):
            others = [None] * len(batch)
            if reference is not None:
                others = errors.beside(reference, images, [one.sample.size for one in batch])
            for one, other in zip(batch, others, strict=True):
                tally.add(one.example, one.sample, one.found)
                if reference is not None:
                    floats.add(one.example, one.sample, other)
                    shared, all_of = exported.task.agreement(one.found, other)
                    same, total = same + shared, total + all_of
    comparison = None
    if source is not None:
        comparison = SceneComparison(
            run=source,
            scores=floats.scores(),
            drop=compare_tallies(floats, tally),
            agreement=same / total if total else None,
            max_map_error=errors.largest,
            mean_map_error=errors.mean,
        )
    problems = (
        *_problems(golden, comparison, max_drop),
        *broken(file.contract, session, source),
    )
    scores = tally.scores()
    low, high = interval_of(tally, scores.n)
    certificate = SceneCertificate(
        ok=not problems,
        problems=problems,
        max_drop=max_drop,
        task=exported.task.name,
        scores=scores,
        low=low,
        high=high,
        comparison=comparison,
        golden=golden,
        data=data,
        split=name,
        data_sha256=_content_sha256(scenes),
        n=len(examples),
        folder=Path(folder),
        format=file.format,
        artifact_sha256=file.sha256,
        weights_sha256=file.weights_sha256,
        runtime=f"{session.runtime} {session.version}",
        precision=session.precision,
        convolutions=dict(session.convolutions),
        threads=session.threads,
        versions=installed_versions(),
        machine=inspect_machine(),
        seconds=round(time.perf_counter() - start, 3),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    text = json.dumps(certificate.to_json(), indent=2, allow_nan=False) + "\n"
    write_atomically(Path(folder) / FILE, text.encode())
    return certificate


class _Errors:
    """Keeps what the exported file answered to a batch, to hold the float network's beside it."""

    def __init__(self) -> None:
        self._last: Mapping[str, np.ndarray] = {}
        self._sum, self._count = 0.0, 0
        self.largest = 0.0

    @property
    def mean(self) -> float:
        return self._sum / self._count if self._count else math.nan

    def kept(self, model: SceneModel) -> SceneModel:
        """The model, whose last maps are kept."""

        def maps(images: np.ndarray) -> Mapping[str, np.ndarray]:
            self._last = {name: value.copy() for name, value in model.maps(images).items()}
            return self._last

        return replace(model, maps=maps)

    def beside(
        self, reference: SceneModel, images: np.ndarray, sizes: list[tuple[int, int]]
    ) -> list[Any]:
        """What the float network finds on the same images."""
        wanted = reference.maps(images)
        self.largest = float(np.maximum(self.largest, largest_error(self._last, wanted)))
        for name, value in wanted.items():
            self._sum += float(np.abs(self._last[name] - value).sum())
            self._count += value.size
        side = reference.preprocess.size
        return reference.task.decode(reference.spec, reference.rules, wanted, sizes, side)


@contextmanager
def _in_torch(
    source: Path | None, exported: SceneModel, threads: int
) -> Iterator[SceneModel | None]:
    """The float run in eager PyTorch with so many threads."""
    if source is None:
        yield None
        return
    import torch

    network = load_network(source).module()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield replace(exported, maps=torch_maps(network, torch.device("cpu")))
    finally:
        torch.set_num_threads(before)


def _check_golden(file: ArtifactFile, session: Session, exported: SceneModel) -> GoldenCheck:
    golden = read_scene_golden(file)
    tolerance = golden_tolerance(file)
    inputs = golden_inputs(exported.preprocess, golden.images)
    level = input_tolerance(exported.preprocess)
    input_error = float(np.abs(inputs - golden.inputs).max())
    parts = [session.maps(session.laid_out(image[None])) for image in golden.inputs]
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    error = largest_error(found, golden.maps)
    return GoldenCheck(
        ok=error <= tolerance and input_error <= level,
        images=len(golden.images),
        max_logit_error=error,
        logit_tolerance=tolerance,
        max_input_error=input_error,
        input_tolerance=level,
    )


def _problems(
    golden: GoldenCheck, comparison: SceneComparison | None, max_drop: float
) -> Iterator[str]:
    if not golden.max_input_error <= golden.input_tolerance:
        yield "this machine's preprocessing differs from the one that was exported"
    elif not golden.ok:
        yield "the file's answers to the golden images are not those that were exported"
    if comparison is None:
        yield (
            "the float run was not measured, so that no drop is known: give --run, on a machine "
            "with torch (pip install 'mobilenet[train]')"
        )
    elif math.isnan(comparison.drop.points):
        yield "the data has nothing to find, so that no drop is known"
    elif comparison.drop.points > max_drop:
        yield f"the file loses {comparison.drop.points:.2f} points, more than {max_drop:g}"


def _content_sha256(scenes: "tuple[Scene, ...] | Any") -> str:
    """Of every picture's bytes and what is labelled on it, in order."""
    digest = hashlib.sha256()
    for scene in scenes:
        digest.update(hashlib.sha256(scene.image.read_bytes()).digest())
        for array in (scene.boxes, scene.labels, scene.keypoints):
            digest.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
        if scene.mask is not None:
            digest.update(hashlib.sha256(scene.mask.read_bytes()).digest())
    return digest.hexdigest()


def refuse_device(device: str | None) -> None:
    """Raise UsageError for --device, which classifiers have."""
    if device is not None:
        raise UsageError("--device: of classifiers so far; networks for scenes are verified here")
