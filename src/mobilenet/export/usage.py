"""Usage samples in the language of each target, written for one model from its contract."""

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

# format -> the sample's name in the folder, and its template in samples/
PROGRAMS: Mapping[str, tuple[str, str]] = {
    "engine": ("classify.c", "classify.c"),
    "onnx": ("predict.cpp", "openvino.cpp"),
    "openvino": ("predict.cpp", "openvino.cpp"),
    "litert": ("Classifier.kt", "litert.kt"),
    "coreml": ("Classifier.swift", "coreml.swift"),
}


def usage(contract: Mapping[str, Any], artifact: Mapping[str, Any]) -> dict[str, bytes]:
    """The programs of an exported folder, by name: none where the format has no other language
    than Python, and of files that take pixels. `artifact` is the section of that name that
    `contract` gets."""
    if artifact["format"] not in PROGRAMS or artifact["input"]["dtype"] == "uint8":
        return {}
    name, template = PROGRAMS[artifact["format"]]
    text = (files("mobilenet.export") / "samples" / template).read_text("utf-8")
    for key, value in _values(contract, artifact, dollars=name.endswith(".kt")).items():
        text = text.replace(f"@{key}@", value)
    return {name: text.encode()}


def _values(
    contract: Mapping[str, Any], artifact: Mapping[str, Any], *, dollars: bool
) -> dict[str, str]:
    """What the templates leave open, as literals of C++, Kotlin and Swift alike."""
    rules = contract["preprocess"]
    f32 = "f" if artifact["format"] != "coreml" else ""
    return {
        "FILE": _text(artifact["file"], dollars),
        "FILE_NAME": artifact["file"],
        "INPUT": _text(artifact["input"]["name"], dollars),
        "OUTPUT": _text(artifact["output"]["name"], dollars),
        "SIZE": str(rules["size"]),
        "SHORTER": str(rules["resize"] or 0),
        "FRACTION": repr(float(rules["crop_fraction"] or 1)),
        "BICUBIC": "true" if rules["interpolation"] == "bicubic" else "false",
        "CHANNELS_LAST": "true" if artifact["input"]["layout"] == "NHWC" else "false",
        "MEAN": ", ".join(f"{value!r}{f32}" for value in rules["mean"]),
        "STD": ", ".join(f"{value!r}{f32}" for value in rules["std"]),
        "LABELS": ",\n".join(f"    {_text(label, dollars)}" for label in contract["labels"]),
    }


def _text(value: str, dollars: bool) -> str:
    """A string literal; control characters, which no label has, become spaces."""
    plain = "".join(c if c >= " " and c != "\x7f" else " " for c in value)
    quoted = json.dumps(plain, ensure_ascii=False)
    return quoted.replace("$", "\\$") if dollars else quoted
