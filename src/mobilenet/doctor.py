"""What is wrong with a dataset, before anything is trained; what this machine can do; what of a
network an accelerator cannot."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .checkpoint.contract import read_model_json, read_spec
from .data import ScanReport, open_dataset, scan
from .data.fashion_mnist import find_installed
from .download import cache_folder
from .errors import MissingEngine, UsageError
from .models import parse_model_name
from .progress import say
from .runtime.engine import instruction_set, instruction_sets
from .runtime.machine import Machine, inspect_machine
from .scenes.opening import is_scenes
from .scenes.survey import Survey, lines_of, survey
from .scenes.survey import advise as advise_scenes
from .targets import TargetReport, check_target, describe

FEW = 20  # pictures of a class below which its accuracy is mostly luck
UNEVEN = 10.0  # largest class over smallest, above which rare classes want weights
_SHOWN = 20  # lines of a list in the text; the JSON has all

# What the extras of this package bring: (distribution, extra, purpose); "" is always installed
PACKAGES = (
    ("numpy", "", "arrays"),
    ("pillow", "", "decoding and resizing"),
    ("torch", "train", "training, and running unexported networks"),
    ("safetensors", "train", "checkpoints"),
    ("tensorboard", "train", "curves while training"),
    ("tqdm", "train", "progress bars"),
    ("simplejpeg", "train", "faster JPEG decoding in training"),
    ("onnxruntime", "run", "running ONNX files"),
    ("onnx", "onnx", "exporting to ONNX"),
    ("onnxscript", "onnx", "exporting to ONNX"),
    ("openvino", "openvino", "exporting to and running OpenVINO"),
    ("litert-torch", "litert", "exporting to LiteRT"),
    ("ai-edge-litert", "litert", "running LiteRT files"),
    ("executorch", "executorch", "exporting to and running ExecuTorch"),
    ("pnnx", "ncnn", "exporting to ncnn"),
    ("ncnn", "ncnn", "running ncnn files"),
    ("coremltools", "coreml", "exporting to Core ML"),
    ("h5py", "keras", "reading Keras weights"),
    ("pyarrow", "parquet", "Parquet manifests"),
    ("opencv-python-headless", "video", "predicting on videos and cameras"),
)


@dataclass(frozen=True, kw_only=True)
class Package:
    """An optional package: `version` is None where it is missing, `install` is what brings it."""

    name: str
    version: str | None
    purpose: str
    install: str | None


@dataclass(frozen=True, kw_only=True)
class Place:
    """A folder that files are kept in or looked for."""

    purpose: str
    path: str
    exists: bool


@dataclass(frozen=True, kw_only=True)
class EngineReport:
    """The native engine: the instruction set it uses and all that it could, best first; or why
    there is none. `limit`: MOBILENET_ENGINE_ISA of the environment."""

    isa: str | None
    isas: tuple[str, ...]
    limit: str | None
    problem: str | None


@dataclass(frozen=True, kw_only=True)
class MachineReport:
    """This machine. `usable_cores`: what affinity and the control group allow, perhaps a fraction;
    memory in bytes, None where the system does not tell; `memory_limit` is the control group's."""

    machine: Machine
    usable_cores: float
    memory: int | None
    memory_available: int | None
    memory_limit: int | None
    engine: EngineReport
    packages: tuple[Package, ...]
    places: tuple[Place, ...]


@dataclass(frozen=True, kw_only=True)
class DoctorReport:
    """One of `data`, `scenes`, `machine` and `target`. `ok` is False where pictures cannot be read,
    or labels are wrong: exit code 1. `advice`: what to do, most important first."""

    ok: bool
    advice: tuple[str, ...]
    data: ScanReport | None = None
    machine: MachineReport | None = None
    scenes: Survey | None = None
    target: TargetReport | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON object of every field that is there."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    def __str__(self) -> str:
        lines = _data_lines(self.data) if self.data is not None else []
        lines += _scene_lines(self.scenes) if self.scenes is not None else []
        lines += _machine_lines(self.machine) if self.machine is not None else []
        lines += describe(self.target) if self.target is not None else []
        if self.advice:
            lines += ["", "advice", *(f"  - {line}" for line in self.advice)]
        elif self.data is not None or self.scenes is not None:
            lines += ["", "nothing to mend"]
        return "\n".join(lines)


def doctor(
    data: str | None = None,
    *,
    seed: int = 0,
    val_fraction: float = 0.1,
    workers: int = 2,
    target: str | None = None,
    model: str | None = None,
    width: float | None = None,
) -> DoctorReport:
    """Check a dataset without training on it, or, without one, this machine.

    With a target: what of a network falls off its fast path, by what public documents say, and
    what to choose instead.

    Raises DataError where there is no dataset that can be used at all, UsageError for a target or
    model that is unknown.

    Args:
        data: Dataset: a folder, a manifest or a known name, or labelled scenes; without it the
            machine is described.
        seed: Decides which pictures a val split holds where the data has none, as in training.
        val_fraction: Share of each class in that split.
        workers: Threads that read pictures.
        target: Accelerator: edgetpu, hexagon, litert-gpu, ane, coreml, nnapi or ethos-u.
        model: With a target: a model's name, a run folder or an exported folder.
        width: With a model's name: width multiplier.
    """
    if target is not None or model is not None or width is not None:
        return _check_target(data, target, model, width)
    if data is None:
        return DoctorReport(ok=True, advice=(), machine=_inspect())
    if is_scenes(data):
        found = survey(data, seed=seed, val_fraction=val_fraction, workers=workers)
        return DoctorReport(ok=found.ok, advice=tuple(advise_scenes(found)), scenes=found)
    dataset = open_dataset(data, seed=seed, val_fraction=val_fraction)
    say(f"{data}: {dataset.kind}, {len(dataset.classes)} classes")
    report = scan(dataset, workers=workers)
    return DoctorReport(ok=not report.unreadable, advice=tuple(advise(report)), data=report)


def _check_target(
    data: str | None, target: str | None, model: str | None, width: float | None
) -> DoctorReport:
    if data is not None:
        raise UsageError("--target is about a network, not about data: leave one of them out")
    if target is None or model is None:
        raise UsageError("--target and --model go together")
    if Path(model).exists():
        if width is not None:
            raise UsageError("--width: the folder's model has a width of its own")
        spec = read_spec(read_model_json(model))
    else:
        spec = parse_model_name(model).spec
        spec = spec if width is None else replace(spec, width=width)
    found = check_target(target, spec)
    instead = dict.fromkeys(finding.instead for finding in found.findings)
    return DoctorReport(ok=True, advice=tuple(instead), target=found)


def advise(report: ScanReport) -> Iterator[str]:
    """What to do about what a check found, most important first."""
    if report.unreadable:
        yield (
            f"unreadable pictures: {len(report.unreadable)}; mend or remove them, or train with "
            "--skip-bad"
        )
    conflicts = Counter(duplicate.conflict for duplicate in report.duplicates)
    if conflicts["labels"]:
        yield f"pictures filed under several classes: {conflicts['labels']}; keep each in one"
    if conflicts["splits"]:
        yield (
            f"pictures in several splits: {conflicts['splits']}; remove the copies, or the "
            "measured accuracy is too good"
        )
    if len(report.classes) < 2:
        yield "there is one class only: a classifier needs at least two"
    for split, missing in report.missing.items():
        yield f"split {split} has no picture of {_some(missing)}"
    if report.empty_classes:
        yield f"left out, as their folders hold no picture: {_some(report.empty_classes)}"
    counts = report.counts.get("train", {})
    few = tuple(f"{name} ({count})" for name, count in counts.items() if 0 < count < FEW)
    if few:
        yield f"fewer than {FEW} training pictures: {_some(few)}"
    if report.imbalance > UNEVEN:
        yield (
            f"the largest class has {report.imbalance:.0f} times the pictures of the smallest: "
            "train with --class-weights balanced"
        )
    if report.sizes is not None and report.sizes.small:
        yield f"pictures smaller than 32 pixels: {report.sizes.small}; they are enlarged"
    if report.sizes is not None and report.sizes.long:
        yield (
            f"pictures over 4 times as long as wide: {report.sizes.long}; the centre crop drops "
            "most of each"
        )


def _data_lines(report: ScanReport) -> list[str]:
    total = Counter({name: sum(by_class.values()) for name, by_class in report.counts.items()})
    lines = [
        f"{report.source}: {report.kind}, {report.images} pictures, {len(report.classes)} classes",
        "splits    " + ", ".join(f"{name} {count}" for name, count in total.items()),
        *(f"          {note}" for note in report.notes),
        "formats   " + _listed(report.formats),
        "modes     " + _listed(report.modes),
    ]
    if report.sizes is not None:
        sizes = report.sizes
        lines.append(
            f"sizes     width {sizes.min_width} to {sizes.max_width} (median "
            f"{sizes.median_width:g}), height {sizes.min_height} to {sizes.max_height} (median "
            f"{sizes.median_height:g})"
        )
    if report.rotated:
        lines.append(f"rotated   {report.rotated}, turned upright by their EXIF")
    if report.animated:
        lines.append(f"animated  {report.animated}, of which the first frame is taken")
    if report.repeated:
        lines.append(f"repeated  {report.repeated}, within a class of a split")
    lines.append(f"balance   largest class / smallest in train: {report.imbalance:.1f}")
    unreadable = [f"{bad.path}: {bad.reason}" for bad in report.unreadable]
    lines += _section("unreadable", unreadable)
    groups = [
        f"{duplicate.conflict}: "
        + ", ".join(f"{copy.path} ({copy.split}, {copy.label})" for copy in duplicate.copies)
        for duplicate in report.duplicates
    ]
    lines += _section("the same picture in several", groups)
    lines += _section("ignored", [f"{file.path}: {file.reason}" for file in report.ignored])
    return lines


def _scene_lines(found: Survey) -> list[str]:
    unreadable = [f"{bad.path}: {bad.reason}" for bad in found.unreadable]
    copies = [", ".join(f"{path} ({split})" for path, split in copy.files) for copy in found.copies]
    return [
        *lines_of(found),
        *_section("defects", list(found.defects)),
        *_section("unreadable", unreadable),
        *_section("the same picture in several splits", copies),
    ]


def _machine_lines(report: MachineReport) -> list[str]:
    machine = report.machine
    lines = [
        f"cpu       {machine.cpu} ({machine.architecture}), {machine.cores} cores, "
        f"{report.usable_cores:g} usable",
        "has       " + (" ".join(machine.instruction_sets) or "no known instruction sets"),
        f"memory    {_bytes(report.memory)}, {_bytes(report.memory_available)} available"
        + (f", limited to {_bytes(report.memory_limit)}" if report.memory_limit else ""),
        f"system    {machine.system}, Python {machine.python}",
        f"engine    {_engine_line(report.engine)}",
        "",
        "packages",
    ]
    for package in report.packages:
        state = package.version or f"missing: {package.install}"
        lines.append(f"  {package.name:<15} {state:<44} {package.purpose}")
    lines += ["", "folders"]
    for place in report.places:
        lines.append(f"  {place.purpose:<15} {place.path}" + ("" if place.exists else " (not yet)"))
    return lines


def _engine_line(engine: EngineReport) -> str:
    if engine.problem is not None:
        return engine.problem
    limit = f" (MOBILENET_ENGINE_ISA={engine.limit})" if engine.limit else ""
    return f"native, with {engine.isa}{limit}, of {' '.join(engine.isas)}"


def _section(title: str, lines: list[str]) -> list[str]:
    if not lines:
        return []
    more = [f"  and {len(lines) - _SHOWN} more (--json lists all)"] if len(lines) > _SHOWN else []
    return ["", f"{title} ({len(lines)})", *(f"  {line}" for line in lines[:_SHOWN]), *more]


def _listed(tally: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in tally.items()) or "none"


def _some(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:10])
    return shown if len(names) <= 10 else f"{shown} and {len(names) - 10} more"


def _bytes(count: int | None) -> str:
    return "unknown" if count is None else f"{count / 2**30:.1f} GiB"


def _inspect() -> MachineReport:
    machine = inspect_machine()
    groups = control_groups(Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"))
    memory = _meminfo()
    limit = memory_limit(groups)
    return MachineReport(
        machine=machine,
        usable_cores=min(float(len(machine.affinity)), core_limit(groups) or float("inf")),
        memory=memory.get("MemTotal"),
        memory_available=memory.get("MemAvailable"),
        memory_limit=limit,
        engine=_engine(),
        packages=tuple(_package(*entry) for entry in PACKAGES),
        places=tuple(_places()),
    )


def _engine() -> EngineReport:
    limit = os.environ.get("MOBILENET_ENGINE_ISA") or None
    try:
        return EngineReport(
            isa=instruction_set(), isas=instruction_sets(), limit=limit, problem=None
        )
    except MissingEngine as error:
        problem = f"missing, ONNX Runtime takes its place: {error.reason}"
        return EngineReport(isa=None, isas=(), limit=limit, problem=problem)
    except UsageError as error:
        problem = f"MOBILENET_ENGINE_ISA: {error}"
        return EngineReport(isa=None, isas=instruction_sets(), limit=limit, problem=problem)


def _package(name: str, extra: str, purpose: str) -> Package:
    try:
        found = version(name)
    except PackageNotFoundError:
        found = None
    install = f"pip install 'mobilenet[{extra}]'" if extra else f"pip install {name}"
    return Package(
        name=name, version=found, purpose=purpose, install=None if found is not None else install
    )


def _places() -> Iterator[Place]:
    for purpose, path in (
        ("weights cache", cache_folder("weights")),
        ("data cache", cache_folder("data")),
    ):
        yield Place(purpose=purpose, path=str(path), exists=path.is_dir())
    found = find_installed()
    if found is not None:
        yield Place(purpose="fashion-mnist", path=str(found), exists=True)
    for name in ("MOBILENET_WEIGHTS", "MOBILENET_DATA", "MOBILENET_CACHE"):
        if value := os.environ.get(name):
            yield Place(purpose=f"${name}", path=value, exists=Path(value).exists())


def _meminfo() -> dict[str, int]:
    """/proc/meminfo in bytes; empty where there is none."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return {}
    fields = (line.replace(":", " ").split() for line in lines)
    return {field[0]: int(field[1]) * 1024 for field in fields if len(field) == 3}


def control_groups(root: Path, membership: Path) -> list[Path]:
    """The folders of this process's control group (v2) and of those above it."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return []
    inner = next((line[3:] for line in lines if line.startswith("0::")), "/")
    group = root / inner.lstrip("/")
    return [folder for folder in (group, *group.parents) if folder.is_relative_to(root)]


def core_limit(groups: list[Path]) -> float | None:
    """The smallest CPU quota of any group, in cores."""
    quotas: list[float] = []
    for group in groups:
        quota, _, period = _limit(group / "cpu.max").partition(" ")
        if quota.isdigit() and period.isdigit():
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def memory_limit(groups: list[Path]) -> int | None:
    """The smallest memory limit of any group, in bytes."""
    limits = [_limit(group / "memory.max") for group in groups]
    return min((int(limit) for limit in limits if limit.isdigit()), default=None)


def _limit(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return "max"
