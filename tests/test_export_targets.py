"""Files for other runtimes: each exported, run by its own runtime, verified, used by its sample.

What CI does not install is skipped there.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mobilenet import benchmark, evaluate, predict
from mobilenet.checkpoint import read_model_json, write_model_json
from mobilenet.errors import CheckpointError, UsageError
from mobilenet.evaluate.model import open_model
from mobilenet.export import FURTHER_RANGES, export, read_golden
from mobilenet.runtime import list_sha256, load, pack, read_artifact, unpack
from mobilenet.verify import verify


@dataclass(frozen=True, kw_only=True)
class Target:
    """A format, the packages that make and run it, and what it can be."""

    format: str
    packages: tuple[str, ...]
    runtime: str
    options: Mapping[str, Any] = field(default_factory=dict)
    int8: bool = False

    def __str__(self) -> str:
        return "-".join([self.format, *map(str, self.options.values()), *["int8"] * self.int8])


LITERT = ("litert_torch", "ai_edge_litert")
COREML = ("coremltools",)
HALF = {"precision": "float16"}
PIXELS = {"input": "pixels"}
TARGETS = [
    Target(format="openvino", packages=("openvino",), runtime="openvino"),
    Target(
        format="openvino",
        packages=("openvino",),
        runtime="openvino",
        options={"weights": "float16"},
    ),
    Target(format="openvino", packages=("openvino",), runtime="openvino", int8=True),
    Target(format="litert", packages=LITERT, runtime="litert"),
    Target(format="litert", packages=LITERT, runtime="litert", options={"weights": "float16"}),
    Target(format="litert", packages=("ai_edge_litert",), runtime="litert", int8=True),
    Target(format="executorch", packages=("executorch",), runtime="executorch"),
    Target(format="executorch", packages=("executorch",), runtime="executorch", int8=True),
    Target(format="ncnn", packages=("ncnn", "pnnx"), runtime="ncnn"),
    Target(format="coreml", packages=COREML, runtime="coreml"),
    Target(format="coreml", packages=COREML, runtime="coreml", options=HALF),
    Target(format="coreml", packages=COREML, runtime="coreml", int8=True),
    Target(format="coreml", packages=COREML, runtime="coreml", options=PIXELS),
    Target(format="onnx", packages=("onnx",), runtime="onnxruntime", options=PIXELS),
    Target(format="onnx", packages=("onnx",), runtime="onnxruntime", options=PIXELS, int8=True),
    Target(format="openvino", packages=("openvino",), runtime="openvino", options=PIXELS),
    Target(format="litert", packages=LITERT, runtime="litert", options=PIXELS),
    Target(format="litert", packages=LITERT, runtime="litert", options=PIXELS, int8=True),
    Target(format="executorch", packages=("executorch",), runtime="executorch", options=PIXELS),
]
PLAIN = [target for target in TARGETS if not (target.options or target.int8)]


pytestmark = pytest.mark.usefixtures("one_thread")


Exported = Callable[[Target], Path]


@pytest.fixture(scope="module")
def exported(small_run: Path, small_int8: Path, dataset: Path) -> Exported:
    """Every target exported once, in a folder beside the run. Copy it before changing it."""
    made: dict[str, Path] = {}

    def folder(target: Target) -> Path:
        for package in target.packages:
            if find_spec(package) is None:
                pytest.skip(f"{package} is not installed")
        if str(target) not in made:
            out = small_run.parent / str(target)
            run = small_int8 if target.int8 else small_run
            options = dict(target.options)
            if target.int8 and target.format in FURTHER_RANGES:
                options["calibrate"] = str(dataset)
            made[str(target)] = export(run, to=target.format, out=out, **options).path
        return made[str(target)]

    return folder


@pytest.fixture(scope="module")
def dataset(
    small_run: Path, pictures: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Pictures under the class that the float network gives them."""
    folder = tmp_path_factory.mktemp("dataset")
    answers = predict(str(small_run), pictures, top=1, threads=1).answers
    for picture, answer in zip(pictures, answers, strict=True):
        for split in ("train", "test"):
            target = folder / split / answer.predictions[0].label / picture.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(picture, target)
    return folder


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_the_file_answers_in_its_own_runtime_whatever_the_batch(
    exported: Exported, target: Target
) -> None:
    model = load(exported(target), threads=1)
    golden = read_golden(model.file)
    tolerance = model.file.description["golden"]["tolerance"]
    for start, batch in ((0, 1), (1, 3), (4, 6), (2, 1)):
        part = slice(start, start + batch)
        found = model(golden.inputs[part])
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, golden.logits[part], rtol=0, atol=tolerance)
    assert model.session.runtime == target.runtime
    if model.file.precision == "float32":
        assert tolerance == 1e-3
        assert model.session.precision == "float32"


@pytest.mark.parametrize("target", PLAIN, ids=str)
def test_the_float_file_answers_as_the_run_does(
    exported: Exported, small_run: Path, target: Target
) -> None:
    images = np.random.default_rng(0).normal(size=(4, 3, 48, 48)).astype(np.float32)
    expected = open_model(small_run, threads=1, device="cpu").forward(images)
    assert expected.std() > 1
    found = load(exported(target), threads=1)(images)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_every_verb_takes_the_folder(
    exported: Exported, small_run: Path, dataset: Path, pictures: list[Path], target: Target
) -> None:
    folder = exported(target)
    certificate = verify(folder, str(dataset), max_drop=50, threads=1)
    assert certificate.ok, certificate.problems
    assert certificate.format == target.format
    assert certificate.artifact_sha256 == read_artifact(folder).sha256
    measured = evaluate(str(folder), str(dataset), threads=1)
    assert measured.metrics.top1.value == certificate.top1.value
    if not (target.int8 or target.options):
        assert certificate.top1.value == 1
    (answer,) = predict(str(folder), pictures[:1], top=2, threads=1).answers
    assert len(answer.predictions) == 2
    timed = benchmark(str(folder), runtime=(target.runtime,), rounds=1, runs=1)
    assert [(t.runtime, t.configuration) for t in timed.results] == [
        (target.runtime, "as exported")
    ]


def test_pixels_are_what_pictures_were_before_they_were_normalised(exported: Exported) -> None:
    """Every target's file, fed pixels, answers as the one that is fed tensors."""
    target = next(t for t in TARGETS if t.format == "onnx" and t.options == PIXELS and not t.int8)
    model = load(exported(target), threads=1)
    golden = read_golden(model.file)
    pixels = model.session.laid_out(golden.inputs)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (len(golden.inputs), 48, 48, 3)
    mean, std = np.array(model.preprocess.mean), np.array(model.preprocess.std)
    again = ((pixels / 255 - mean) / std).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(again, golden.inputs, atol=1e-6)
    assert read_model_json(model.file.folder)["artifact"]["input"] == {
        "name": "image",
        "shape": ["batch", 48, 48, 3],
        "dtype": "uint8",
        "layout": "NHWC",
    }


@pytest.mark.parametrize("format", ["engine", "ncnn", "web"])
def test_pixels_are_refused_where_no_file_takes_them(
    format: str, small_run: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="--input pixels: goes with --to onnx"):
        export(small_run, to=format, out=tmp_path / "out", input="pixels")


def test_a_core_ml_package_is_a_classifier_with_the_contract(
    exported: Exported, small_run: Path
) -> None:
    pixels = [t for t in TARGETS if t.format == "coreml" and t.options == PIXELS]
    folder = exported(pixels[0])
    from coremltools.proto import Model_pb2

    spec = Model_pb2.Model()
    spec.ParseFromString(
        (folder / "model.mlpackage/Data/com.apple.CoreML/model.mlmodel").read_bytes()
    )
    described = spec.description
    assert json.loads(described.metadata.userDefined["model.json"]) == read_model_json(small_run)
    (image,) = described.input
    assert (image.name, image.type.imageType.width, image.type.imageType.height) == (
        "image",
        48,
        48,
    )
    assert described.predictedFeatureName == "classLabel"
    assert described.predictedProbabilitiesName == "classLabel_probs"
    again = export(small_run, to="coreml", out=folder.parent / "coreml-again", input="pixels").path
    for name, sha256 in read_model_json(folder)["artifact"]["files"].items():
        assert hashlib.sha256((again / name).read_bytes()).hexdigest() == sha256, name
    with pytest.raises(UsageError, match="no batch of 2"):
        benchmark(str(folder), runtime=("coreml",), batch=2, rounds=1, runs=1)


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_the_sample_runs_without_us(
    exported: Exported, pictures: list[Path], target: Target
) -> None:
    folder = exported(target)
    if target.format == "coreml" and sys.platform != "darwin":
        pytest.skip("Core ML runs on macOS only")
    code = (
        "import runpy, sys; sys.modules['mobilenet'] = None; sys.argv = sys.argv[1:]; "
        "sys.path.insert(0, sys.argv.pop(0)); runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, folder, folder / "predict.py", *pictures[:3]],
        capture_output=True,
        text=True,
        check=True,
    )
    ours = load(folder, threads=1).predict(pictures[:3])
    for line, expected in zip(done.stdout.splitlines(), ours, strict=True):
        found = json.loads(line)["predictions"]
        assert [p["label"] for p in found[:2]] == [p.label for p in expected[:2]]
        assert [p["score"] for p in found] == pytest.approx([p.score for p in expected], abs=1e-3)


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_what_the_folder_holds_is_held_to_its_hashes(
    exported: Exported, tmp_path: Path, target: Target
) -> None:
    folder = Path(shutil.copytree(exported(target), tmp_path / "copy"))
    described = read_model_json(folder)["artifact"]
    files = described.get("files", {described["file"]: described["sha256"]})
    for name, sha256 in files.items():
        data = (folder / name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == sha256
        (folder / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(CheckpointError, match="damaged or replaced"):
            load(folder)
        (folder / name).unlink()
        with pytest.raises(CheckpointError, match="cannot be read"):
            load(folder)
        (folder / name).write_bytes(data)
    assert described["bytes"] == sum((folder / name).stat().st_size for name in files)
    assert not any(str(Path.cwd()).encode() in (folder / name).read_bytes() for name in files)


def test_several_files_are_listed_as_sha256sum_does(tmp_path: Path) -> None:
    files = {"a.xml": b"one", "b/c.bin": b"two" * 1000}
    assert unpack(pack(files)) == files
    assert pack(files) == pack(dict(files))
    (tmp_path / "b").mkdir()
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    printed = subprocess.run(
        ["sha256sum", *files], cwd=tmp_path, capture_output=True, check=True
    ).stdout
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    assert list_sha256(hashes) == hashlib.sha256(printed).hexdigest()


@pytest.mark.parametrize("name", ["../model.bin", "/etc/passwd", "a//b", "a/../b", ""])
def test_files_outside_the_folder_are_refused(
    exported: Exported, tmp_path: Path, name: str
) -> None:
    folder = Path(shutil.copytree(exported(TARGETS[0]), tmp_path / "copy"))
    described = read_model_json(folder)
    files = described["artifact"]["files"]
    described["artifact"]["files"] = {"model.xml": files["model.xml"], name: files["model.bin"]}
    (folder / "model.json").write_text(json.dumps(described))
    with pytest.raises(CheckpointError, match="below this folder"):
        load(folder)


# --------------------------------------------------------------------------- OpenVINO


def test_an_openvino_file_carries_its_contract(exported: Exported, small_run: Path) -> None:
    folder = exported(TARGETS[0])
    import openvino

    model = openvino.Core().read_model(folder / "model.xml")
    contract = read_model_json(small_run)

    def carried(name: str) -> str:
        return model.get_rt_info(["mobilenet", name]).astype(str)

    assert json.loads(carried("model.json")) == contract
    assert json.loads(carried("labels")) == contract["labels"]
    assert carried("source.sha256") == contract["weights"]["sha256"]
    assert carried("inference_precision") == "f32"
    assert not model.has_rt_info(["framework"])
    assert [port.get_any_name() for port in (*model.inputs, *model.outputs)] == ["image", "logits"]


def test_weights_of_an_openvino_file_take_half_the_bytes(exported: Exported) -> None:
    plain, half, whole = (exported(target) / "model.bin" for target in TARGETS[:3])
    assert half.stat().st_size < 0.55 * plain.stat().st_size
    assert whole.stat().st_size < 0.4 * plain.stat().st_size


def test_openvino_says_how_many_convolutions_run_in_integers(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = exported(TARGETS[2])
    sessions = sys.modules["mobilenet.runtime.sessions"]
    convolutions = sum(load(exported(TARGETS[0])).session.convolutions.values())
    monkeypatch.setattr(sessions, "_adds_exactly", lambda: False)
    careful = load(folder, threads=1).session
    assert set(careful.convolutions) == {"float32"}
    assert "saturate" in str(careful.note)
    monkeypatch.setattr(sessions, "_adds_exactly", lambda: True)
    fast = load(folder, threads=1).session
    assert fast.convolutions["int8"] >= convolutions - 2  # it splits some off for itself
    assert fast.note is None


# --------------------------------------------------------------------------- LiteRT

# what the tests read of metadata_schema.fbs, version 1.0.0, with every field in its place
CARD = """
enum FileType : byte { UNKNOWN = 0, DESCRIPTIONS, TENSOR_AXIS_LABELS, TENSOR_VALUE_LABELS }
table File { name:string; description:string; type:FileType; }
table Feature {}
enum Colour : byte { UNKNOWN = 0, RGB = 1, GRAYSCALE = 2 }
table Size { width:uint; height:uint; }
table Image { color_space:Colour; default_size:Size; }
union Properties { Feature, Image }
table Range { min:int; max:int; }
table Content { properties:Properties; range:Range; }
table Normalization { mean:[float]; std:[float]; }
union Options { Normalization }
table Unit { options:Options; }
table Stats { max:[float]; min:[float]; }
table Tensor { name:string; description:string; dimension_names:[string]; content:Content;
  process_units:[Unit]; stats:Stats; associated_files:[File]; }
table Graph { name:string; description:string; inputs:[Tensor]; outputs:[Tensor]; }
table Model { name:string; description:string; version:string; graphs:[Graph]; author:string;
  license:string; associated_files:[File]; min_parser_version:string; }
root_type Model;
file_identifier "M001";
"""


@pytest.mark.parametrize("target", [t for t in TARGETS if t.format == "litert"], ids=str)
def test_a_tflite_file_carries_its_contract_and_labels(
    exported: Exported, small_run: Path, tmp_path: Path, target: Target
) -> None:
    folder = exported(target)
    from mobilenet.export.litert_model import metadata_of

    contract = read_model_json(folder)
    data = (folder / "model.tflite").read_bytes()
    assert zipfile.ZipFile(folder / "model.tflite").read("labels.txt").decode().split() == [
        *contract["labels"]
    ]
    carried = metadata_of(data)
    own = json.loads(carried["model.json"])
    assert own["labels"] == contract["labels"]
    assert own["weights"]["sha256"] == read_model_json(small_run)["weights"]["sha256"]
    assert b"Classifier" not in data  # nothing of the modules it was made of

    flatc = shutil.which("flatc") or shutil.which("flatc", path=Path(sys.executable).parent)
    if flatc is None:
        pytest.skip("flatc is not installed, which reads the card")
    (tmp_path / "card.fbs").write_text(CARD)
    (tmp_path / "card.bin").write_bytes(carried["TFLITE_METADATA"])
    subprocess.run(
        [flatc, "--json", "--strict-json", "card.fbs", "--", "card.bin"], cwd=tmp_path, check=True
    )
    card = json.loads((tmp_path / "card.json").read_text())
    (graph,) = card["graphs"]
    (image,), (logits,) = graph["inputs"], graph["outputs"]
    assert image["content"]["properties"] == {
        "color_space": "RGB",
        "default_size": {"width": 48, "height": 48},
    }
    (unit,) = image["process_units"]
    rules = contract["preprocess"]
    assert unit["options"]["mean"] == pytest.approx([255 * v for v in rules["mean"]])
    assert unit["options"]["std"] == pytest.approx([255 * v for v in rules["std"]])
    assert logits["associated_files"] == [{"name": "labels.txt", "type": "TENSOR_VALUE_LABELS"}]
    assert (card["name"], card["min_parser_version"]) == ("mobilenet_v3_small", "1.0.0")


def test_the_tflite_file_keeps_the_whole_numbers_of_the_run(
    exported: Exported, small_int8: Path
) -> None:
    folder = exported(next(t for t in TARGETS if t.format == "litert" and t.int8))
    from ai_edge_litert.interpreter import Interpreter

    from mobilenet.integer.store import load_quantised

    network = load_quantised(small_int8)
    interpreter = Interpreter(str(folder / "model.tflite"))
    interpreter.allocate_tensors()
    kept = {
        interpreter.get_tensor(tensor["index"]).tobytes()
        for tensor in interpreter.get_tensor_details()
        if tensor["name"].endswith("weight")
    }
    expected = [
        filter.weight.transpose((1, 2, 3, 0) if name == "depthwise" else (0, 2, 3, 1)).tobytes()
        for filters in network.filters
        for name, filter in filters.items()
        if name != "excite"  # whose scales are a sixth
    ]
    assert len(expected) > 30
    assert kept.issuperset(expected)
    assert set(load(folder, threads=1).session.convolutions) == {"int8"}


def test_litert_in_int8_needs_pictures(small_int8: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--calibrate DATA"):
        export(small_int8, to="litert", out=tmp_path)
    with pytest.raises(UsageError, match="ranges of its own"):
        export(small_int8, to="onnx", out=tmp_path, calibrate="nothing")


# --------------------------------------------------------------------------- ExecuTorch


def test_a_pte_file_carries_its_contract(exported: Exported) -> None:
    folder = exported(next(t for t in PLAIN if t.format == "executorch"))
    from executorch.runtime import Runtime

    program = Runtime.get().load_program(folder / "model.pte")
    (text,) = program.load_method("contract").execute([])
    contract = read_model_json(folder)
    del contract["artifact"]
    assert json.loads(text) == contract


def test_everything_but_copies_is_run_by_xnnpack(exported: Exported) -> None:
    for target in TARGETS:
        if target.format == "executorch":
            described = read_model_json(exported(target))["artifact"]
            assert 0 <= described["outside_xnnpack"] <= 20  # one or two for each squeeze-excite


# --------------------------------------------------------------------------- ncnn


def test_the_contract_lies_beside_ncnns_files(exported: Exported) -> None:
    folder = exported(next(t for t in PLAIN if t.format == "ncnn"))
    contract = read_model_json(folder)
    files = contract.pop("artifact")["files"]
    assert sorted(files) == ["contract.json", "model.bin", "model.param"]
    assert json.loads((folder / "contract.json").read_text()) == contract


# ------------------------------------------------- what a certificate is worth: mutations of it


def resave(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change `model.json` as one that was wrongly written would be."""
    described = read_model_json(folder)
    change(described)
    write_model_json(folder, described)


def reverse_first_filter(folder: Path) -> None:
    """The file reads BGR for RGB."""
    change_file(folder, lambda name, w: w[:, ::-1] if w.shape[1:] == (3, 3, 3) else w)


def change_file(folder: Path, change: Callable[[str, np.ndarray], np.ndarray]) -> None:
    """Change the constants of model.onnx, and state the hash that it has now."""
    onnx = pytest.importorskip("onnx")
    path = folder / "model.onnx"
    model = onnx.load_from_string(path.read_bytes())
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        changed = np.ascontiguousarray(change(tensor.name, array))
        tensor.CopyFrom(onnx.numpy_helper.from_array(changed, tensor.name))
    restate(folder, model.SerializeToString())


def change_pads(folder: Path) -> None:
    """TensorFlow's padding for PyTorch's, in the strided convolutions."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string((folder / "model.onnx").read_bytes())
    for node in model.graph.node:
        given = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type == "Conv" and list(given["strides"].ints) == [2, 2]:
            before, _, after, _ = given["pads"].ints
            given["pads"].ints[:] = [before - 1, before - 1, after, after]
            given["pads"].ints[:] = [0, 0, before + after - 1, before + after - 1]
    restate(folder, model.SerializeToString())


def restate(folder: Path, data: bytes) -> None:
    (folder / "model.onnx").write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    resave(folder, lambda described: described["artifact"].update(sha256=sha256))


def wrong_eps(folder: Path, small_run: Path) -> None:
    """The norms folded with Keras' eps for PyTorch's."""
    from mobilenet.checkpoint import load_model
    from mobilenet.export.onnx import to_onnx

    network = load_model(small_run).module()
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.eps *= 10
    restate(folder, to_onnx(network, size=48, metadata={}).data)


MUTATIONS: dict[str, Callable[[Path, Path], object]] = {
    "mean": lambda folder, run: resave(
        folder, lambda d: d["preprocess"].update(mean=[0.5, 0.456, 0.406])
    ),
    "std": lambda folder, run: resave(
        folder, lambda d: d["preprocess"].update(std=[0.229, 0.224, 0.5])
    ),
    "filter": lambda folder, run: resave(
        folder, lambda d: d["preprocess"].update(interpolation="bicubic")
    ),
    "crop": lambda folder, run: resave(folder, lambda d: d["preprocess"].update(resize=48)),
    "padding": lambda folder, run: change_pads(folder),
    "eps": wrong_eps,
    "channel order": lambda folder, run: reverse_first_filter(folder),
    "label order": lambda folder, run: resave(folder, lambda d: d["labels"].reverse()),
    "two labels": lambda folder, run: resave(
        folder, lambda d: d["labels"].insert(0, d["labels"].pop(1))
    ),
    "a bias": lambda folder, run: change_file(
        folder,
        lambda name, w: (
            w + np.float32(0.01) * np.arange(7, dtype="f4")
            if name.endswith("classifier.bias")
            else w
        ),
    ),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_the_certificate_catches(
    mutation: str, small_run: Path, small_export: Path, dataset: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(small_export, tmp_path / "out"))
    assert verify(folder, str(dataset), run=small_run, threads=1, limit=16).ok
    MUTATIONS[mutation](folder, small_run)
    found = verify(folder, str(dataset), run=small_run, threads=1, max_drop=100, limit=16)
    assert not found.ok
    alone = verify(folder, str(dataset), threads=1, max_drop=100, limit=16)
    assert [p for p in alone.problems if "no drop is known" not in p]
