"""The usage samples, compiled: they answer the golden pictures as they must."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mobilenet.checkpoint import read_model_json
from mobilenet.export import read_golden
from mobilenet.export.usage import PROGRAMS, usage
from mobilenet.preprocess import Preprocess, preprocess
from mobilenet.runtime import Floats, load, read_artifact
from test_engine_c import installed, needs_compilers, run

__all__ = ["installed"]  # a fixture

# the resize rules of torchvision, timm, Keras and TF-slim, at the size of `small_export`
RULES = {
    "shorter bilinear": {},
    "shorter bicubic": {"interpolation": "bicubic", "resize": 55},
    "stretch": {"resize_mode": "stretch", "resize": None},
    "crop": {"resize_mode": "crop_fraction", "resize": None, "crop_fraction": 0.875},
}


def ppm(folder: Path, images: tuple[np.ndarray, ...]) -> list[Path]:
    paths = [folder / f"{index}.ppm" for index in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    return paths


def check(printed: str, logits: Floats, labels: list[str]) -> None:
    """Five lines a picture, score and label, of these logits."""
    lines = [re.fullmatch(r" *([\d.]+) %  (.*)", line) for line in printed.splitlines()]
    assert len(lines) == 5 * len(logits)
    scores = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    scores /= scores.sum(axis=1, keepdims=True)
    for place, line in enumerate(lines):
        assert line is not None
        expected = scores[place // 5, labels.index(line[2])]
        assert float(line[1]) == pytest.approx(100 * expected, abs=6e-3)
    best = [line and line[2] for line in lines[::5]]
    assert best == [labels[index] for index in logits.argmax(axis=1)]


@needs_compilers
@pytest.mark.slow
def test_c_answers_the_golden_pictures(installed: Path, small_engine: Path, tmp_path: Path) -> None:
    (library,) = installed.glob("lib*/**/libmobilenet.a")
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-O2", f"-I{installed / 'include'}"]
    libraries = [library, "-lstdc++", "-lm", "-lpthread"]
    program = tmp_path / "classify"
    run("cc", *flags, small_engine / "classify.c", *libraries, "-o", program)
    golden = read_golden(read_artifact(small_engine))
    paths = ppm(tmp_path, golden.images)
    printed = "".join(run(program, small_engine / "model.mbn", path) for path in paths)
    check(printed, golden.logits, read_model_json(small_engine)["labels"])


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("c++"), reason="needs a C++ compiler")
def test_cpp_answers_the_golden_pictures_under_every_resize_rule(
    small_export: Path, tmp_path: Path
) -> None:
    openvino = pytest.importorskip("openvino")
    package = Path(openvino.__file__).parent
    shared = sorted((package / "libs").glob("libopenvino.so.*"))
    if not (package / "include" / "openvino" / "openvino.hpp").exists() or not shared:
        pytest.skip("this openvino brings no headers")
    golden = read_golden(read_artifact(small_export))
    contract, model = read_model_json(small_export), load(small_export)
    paths = ppm(tmp_path, golden.images)
    text = (small_export / "predict.cpp").read_text()
    assert text == written(contract, {})
    # one program for all: compiling OpenVINO's headers takes most of the time
    parts, calls = [text.replace("int main(", "static int answer_0(")], []
    for index, rules in enumerate(list(RULES.values())[1:], start=1):
        body = written(contract, rules).partition("namespace {")[2]
        body = body.replace("int main(", f"static int answer_{index}(")
        parts.append(f"namespace rules_{index} {{\nnamespace {{{body}\n}}")
        calls.append(f" || rules_{index}::answer_{index}(count, words)")
    main = f"int main(int count, char** words) {{ return answer_0(count, words){''.join(calls)}; }}"
    (tmp_path / "predict.cpp").write_text("\n".join([*parts, main]))
    link = [f"-L{package / 'libs'}", f"-l:{shared[0].name}", f"-Wl,-rpath,{package / 'libs'}"]
    program = tmp_path / "predict"
    run(
        "c++", "-std=c++17", "-O1", "-Wall", "-Werror", "-ffp-contract=off",
        f"-isystem{package / 'include'}", tmp_path / "predict.cpp", *link, "-o", program,
    )  # fmt: skip
    printed = run(program, small_export, *paths).splitlines()
    each = 5 * len(paths)
    for index, rules in enumerate(RULES.values()):
        pre = Preprocess.from_dict(contract["preprocess"] | rules)
        images = np.stack([preprocess(image, pre) for image in golden.images])
        lines = "\n".join(printed[index * each : (index + 1) * each])
        check(lines, model(images), contract["labels"])


def written(contract: dict[str, Any], rules: dict[str, Any]) -> str:
    changed = {**contract, "preprocess": contract["preprocess"] | rules}
    (text,) = usage(changed, contract["artifact"]).values()
    return text.decode()


@pytest.mark.parametrize("format", PROGRAMS)
def test_every_program_holds_its_contract(format: str, small_export: Path) -> None:
    contract = read_model_json(small_export)
    labels = ['a "quoted" one', "back\\slash", "$dollar", "naïve 花", "line\nbreak", "f", "g"]
    contract = {**contract, "labels": labels}
    artifact = {**contract["artifact"], "format": format, "file": "model.xyz"}
    artifact["input"] = {**artifact["input"], "layout": "NHWC"}
    ((name, data),) = usage(contract, artifact).items()
    text = data.decode()
    assert name == PROGRAMS[format][0]
    assert re.findall(r"@[A-Z_]+@", text) == []
    if format == "engine":  # it asks the file
        return
    rules = contract["preprocess"]
    assert f"= {rules['size']}" in text
    assert f"= {rules['resize']}" in text
    assert (
        ", ".join(f"{value!r}{'' if format == 'coreml' else 'f'}" for value in rules["std"]) in text
    )
    for label in ('"a \\"quoted\\" one"', '"back\\\\slash"', '"naïve 花"', '"line break"'):
        assert label in text
    assert ('"\\$dollar"' if format == "litert" else '"$dollar"') in text
    assert ("CHANNELS_LAST = true" in text) == (format == "litert")


KOTLIN = """
fun main(words: Array<String>) {
    val bytes = java.io.File(words[0]).readBytes()
    val rgb = IntArray(bytes.size) { bytes[it].toInt() and 255 }
    val image = prepare(Picture(words[1].toInt(), words[2].toInt(), rgb))
    val out = java.nio.ByteBuffer.allocate(4 * image.size)
    out.order(java.nio.ByteOrder.LITTLE_ENDIAN).asFloatBuffer().put(image)
    java.io.File(words[3]).writeBytes(out.array())
}
"""


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("kotlinc"), reason="needs kotlinc")
def test_kotlin_resizes_as_the_contract_does(small_export: Path, tmp_path: Path) -> None:
    """Without Android: the part of it that is arithmetic."""
    contract = read_model_json(small_export)
    artifact = {**contract["artifact"], "format": "litert"}
    text = usage(contract, artifact)["Classifier.kt"].decode()
    dropped = ("import android", "import org", "package")
    lines = [line for line in text.splitlines() if not line.startswith(dropped)]
    body = "\n".join(lines).partition("class Classifier")[0]
    body = re.sub(r" \{\n    companion object.*?\n    \}\n\}\n", "\n", body, flags=re.DOTALL)
    golden = read_golden(read_artifact(small_export))
    (tmp_path / "main.kt").write_text(body + KOTLIN)
    run("kotlinc", tmp_path / "main.kt", "-include-runtime", "-d", tmp_path / "main.jar")
    for image, expected in zip(golden.images, golden.inputs, strict=True):
        (tmp_path / "rgb").write_bytes(image.tobytes())
        size = (str(image.shape[1]), str(image.shape[0]))
        run("java", "-jar", tmp_path / "main.jar", tmp_path / "rgb", *size, tmp_path / "out")
        found = np.fromfile(tmp_path / "out", "<f4").reshape(expected.shape)
        assert np.array_equal(found, expected)
