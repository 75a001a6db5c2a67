"""`model.json`: what a device needs to answer as the trained network does (no torch here)."""

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError, UsageError
from .strict import Section, parse_json, read_file

if TYPE_CHECKING:
    from ..models import ModelSpec
    from ..networks import Spec

MODEL_FILE = "model.json"
WEIGHTS_FILE = "model.safetensors"
FORMAT = "mobilenet"
VERSION = 1
PRECISIONS = ("float32", "bfloat16", "float16", "int8")
TASKS = ("classify", "detect", "segment", "keypoints", "faces")
SOFTMAX = {"activation": "softmax"}  # a classifier's decoding

_LIMIT = 4 << 20  # bytes; labels for 20,000 classes take less than one MB
# fmt: off
_FIELDS = frozenset((
    "format", "version", "task", "model", "preprocess", "labels", "decoding", "weights",
    "provenance", "quantised", "artifact",
))
# fmt: on
_NUMBER = (int, float)
_SPEC_FIELDS: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "width": _NUMBER,
    "classes": (int,),
    "output_stride": (int,),
    "padding": (str,),
    "width_rule": (str,),
    "bn_eps": _NUMBER,
    "bn_momentum": _NUMBER,
    "dropout": (*_NUMBER, type(None)),
}


def describe_model(
    spec: "Spec",
    *,
    preprocess: Mapping[str, Any],
    labels: Sequence[str],
    decoding: Mapping[str, Any],
    provenance: Mapping[str, Any],
    weights_sha256: str,
    quantised: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The content of `model.json` for weights with the given hash; an exporter adds "artifact".

    `quantised` names the file of an int8 network beside them, and its sha256.
    """
    from ..networks import task_of

    return {
        "format": FORMAT,
        "version": VERSION,
        "task": task_of(spec),
        "model": {**spec.to_dict(), "rows": _rows(spec)},
        "preprocess": dict(preprocess),
        "labels": list(labels),
        "decoding": dict(decoding),
        "weights": {"file": WEIGHTS_FILE, "sha256": weights_sha256},
        "provenance": dict(provenance),
        **({} if quantised is None else {"quantised": dict(quantised)}),
    }


def quantised_file(sha256: str) -> str:
    """The name of an int8 network's file: with its hash, so that no other takes its place."""
    return f"quantised.{sha256[:16]}.safetensors"


def read_model_json(folder: str | Path) -> dict[str, Any]:
    """Read and check `model.json` in a run folder or an exported one; without its checksum.

    Raises CheckpointError, naming the file and the field, for anything that this version would
    not have written.
    """
    file = Path(folder) / MODEL_FILE
    if not file.is_symlink() and not file.exists():
        raise CheckpointError(
            f"{folder}: no {MODEL_FILE} there; expected a folder that train or export wrote"
        )
    whole = parse_json(read_file(file, limit=_LIMIT), file)
    section = replace(whole, data={k: v for k, v in whole.data.items() if k != "checksum"})
    _check_version(whole)
    if "checksum" in whole.data and whole.take_sha256("checksum") != _checksum(section.data):
        raise whole.error(
            "checksum",
            "not that of the other fields: damaged, or edited by hand; remove this field if the "
            "edit is meant",
        )
    _check(section)
    # an exported folder as it was written is not held to this version's rows: its file holds all
    # that runs, and starting to answer needs no table of any network
    if "checksum" not in whole.data or "artifact" not in whole.data:
        _check_rows(section)
    return section.data


def encode_model_json(description: Mapping[str, Any], file: Path) -> bytes:
    """The bytes of `file`. Raises CheckpointError where reading them back would."""
    try:
        section = parse_json(json.dumps(description, allow_nan=False).encode(), file)
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: not written, {error}") from None
    _check(section)
    _check_rows(section)
    content = {**section.data, "checksum": _checksum(section.data)}
    data = (json.dumps(content, indent=2) + "\n").encode()
    if len(data) > _LIMIT:
        raise CheckpointError(f"{file}: not written, {len(data)} bytes, at most {_LIMIT} allowed")
    return data


def write_model_json(folder: str | Path, description: Mapping[str, Any]) -> None:
    """Write `model.json` at once. Raises CheckpointError where it would not be read back."""
    from ..durable import write_atomically  # not needed, and not imported, for reading

    file = Path(folder) / MODEL_FILE
    write_atomically(file, encode_model_json(description, file))


def read_spec(description: Mapping[str, Any]) -> "ModelSpec":
    """The classifier in a description that `read_model_json` has returned. Raises UsageError for a
    network of another task."""
    from ..models import ModelSpec

    if description["task"] != "classify":
        raise UsageError(f"a network for {description['task']}: expected a classifier")
    return ModelSpec.from_dict({name: description["model"][name] for name in _SPEC_FIELDS})


def read_network_spec(description: Mapping[str, Any]) -> "Spec":
    """The network, of any task, in a description that `read_model_json` has returned."""
    from ..networks import read_network

    own = {name: value for name, value in description["model"].items() if name != "rows"}
    return read_network(description["task"], own)


def _rows(spec: "Spec") -> list[dict[str, Any]]:
    from ..networks import rows_of

    return [asdict(row) for row in rows_of(spec)]


def _checksum(content: Mapping[str, Any]) -> str:
    """Guards what no other check sees, such as the mean of the preprocessing."""
    plain = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(plain.encode()).hexdigest()


def _check_version(whole: Section) -> None:
    if whole.take("format", str) != FORMAT:
        raise whole.error("format", f"expected {FORMAT!r}: another program's file")
    version = whole.take("version", int)
    if version > VERSION:
        raise whole.error(
            "version",
            f"{version}, written by a newer mobilenet; this one reads {VERSION}: "
            "pip install --upgrade mobilenet",
        )
    if version < 1:
        raise whole.error("version", f"{version}: expected {VERSION}")


def _check(whole: Section) -> None:
    _check_version(whole)
    unknown = sorted(whole.data.keys() - _FIELDS)
    if unknown:
        raise whole.error(unknown[0], "unknown to this version")
    task = whole.take("task", str)
    if task not in TASKS:
        raise whole.error("task", f"{task!r}: expected one of {sorted(TASKS)}")
    whole.take("preprocess", dict)
    labels = whole.take("labels", list)
    if any(type(label) is not str for label in labels):
        raise whole.error("labels", "expected texts only")
    classes = _spec_fields(whole)["classes"] if task == "classify" else _scene_classes(whole)
    if classes is not None and len(labels) != classes:
        raise whole.error("labels", f"{len(labels)} labels for {classes} classes")
    _check_decoding(whole, task)
    weights = whole.section("weights")
    if weights.take("file", str) != WEIGHTS_FILE:
        raise weights.error("file", f"expected {WEIGHTS_FILE!r}")
    weights.take_sha256("sha256")
    whole.take("provenance", dict)
    if "quantised" in whole.data:
        quantised = whole.section("quantised")
        sha256 = quantised.take_sha256("sha256")
        if quantised.take("file", str) != quantised_file(sha256):
            raise quantised.error("file", f"expected {quantised_file(sha256)!r}")
    if "artifact" in whole.data:
        _check_artifact(whole.section("artifact"))


def _check_decoding(whole: Section, task: str) -> None:
    decoding = whole.take("decoding", dict)
    if task == "classify":  # of which reading an exported folder needs no more than this
        if decoding != SOFTMAX:
            raise whole.error("decoding", f"expected {SOFTMAX}")
        return
    from ..networks import read_rules

    try:
        read_rules(task, decoding)
    except UsageError as error:
        raise whole.error("decoding", str(error)) from None


def _scene_classes(whole: Section) -> int | None:
    """How many labels a network for scenes has; None: any number."""
    from ..networks import labels_of

    return labels_of(_scene_spec(whole))


def _scene_spec(whole: Section) -> "Spec":
    whole.section("model")
    try:
        return read_network_spec(whole.data)
    except UsageError as error:
        raise whole.error("model", str(error)) from None


def _spec_fields(whole: Section) -> dict[str, Any]:
    model = whole.section("model")
    values = {name: model.take(name, *kinds) for name, kinds in _SPEC_FIELDS.items()}
    unknown = sorted(model.data.keys() - values.keys() - {"rows"})
    if unknown:
        raise model.error(unknown[0], "unknown to this version")
    highest = {"width": sys.float_info.max, "bn_eps": 1, "bn_momentum": 1, "dropout": 1}
    for name, limit in highest.items():
        if values[name] is not None and not 0 <= values[name] <= limit:
            raise model.error(name, f"expected a number from 0 to {limit}")
    return values


def _check_rows(whole: Section) -> None:
    from ..models import ModelSpec

    model = whole.section("model")
    if whole.data["task"] != "classify":
        spec = _scene_spec(whole)
    else:
        try:
            spec = ModelSpec.from_dict(_spec_fields(whole))
        except (UsageError, OverflowError) as error:
            raise whole.error("model", str(error)) from None
    if model.take("rows", list) != _rows(spec):
        raise model.error(
            "rows",
            "not the rows that this version builds from the fields beside them: the file was "
            "edited, or is of another version, whose weights would answer wrongly here",
        )


def _check_artifact(artifact: Section) -> None:
    _check_file(artifact)
    if artifact.data.get("precision", "float32") not in PRECISIONS:
        raise artifact.error("precision", f"expected one of {list(PRECISIONS)}")
    if artifact.data["format"] == "engine":
        artifact.take_sha256("header_sha256")
    if "fallback" in artifact.data:
        _check_file(artifact.section("fallback"))
    for several in ("files", "beside"):
        if several in artifact.data:
            _check_files(artifact, several)
    _check_tensor(artifact.section("input"), "name", "dtype", "layout")
    _check_tensor(artifact.section("output"), "name")
    if "outputs" in artifact.data:  # of a network for scenes, whose first is "output"
        _check_outputs(artifact)


def _check_tensor(tensor: Section, *texts: str) -> None:
    for field in texts:
        tensor.take(field, str)
    # a free dimension is a name or null
    if any(type(size) not in (int, str, type(None)) for size in tensor.take("shape", list)):
        raise tensor.error("shape", "expected integers, or names of free dimensions")


def _check_outputs(artifact: Section) -> None:
    outputs = artifact.take("outputs", list)
    if not outputs or outputs[0] != artifact.data["output"]:
        raise artifact.error("outputs", 'expected all outputs, first the one stated as "output"')
    for output in outputs:
        if not isinstance(output, dict):
            raise artifact.error("outputs", "expected an object for each")
        _check_tensor(replace(artifact, data=output), "name", "dtype")
    if len({output["name"] for output in outputs}) < len(outputs):
        raise artifact.error("outputs", "two of the same name")


def _check_file(section: Section) -> None:
    section.take("format", str)
    name = section.take("file", str)
    if not _is_name(name):
        raise section.error("file", f"{name!r}: expected the name of a file in this folder")
    section.take_sha256("sha256")


def _check_files(section: Section, field: str) -> None:
    """The hashes of several files by their paths below the folder."""
    files = section.section(field)
    if not files.data:
        raise section.error(field, "expected at least one")
    for path in files.data:
        if not all(_is_name(part) for part in path.split("/")):
            raise files.error(path, "expected the path of a file below this folder")
        files.take_sha256(path)


def _is_name(name: str) -> bool:
    return name not in ("", ".", "..") and not any(mark in name for mark in "/\\:\0")
