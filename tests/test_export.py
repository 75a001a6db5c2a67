"""Exported files against the network in eager PyTorch, and what they carry with them."""

import hashlib
import importlib
import io
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx.numpy_helper import to_array
from PIL import Image

from mobilenet.checkpoint import read_model_json, write_model_json
from mobilenet.errors import CheckpointError, ExportError, UsageError
from mobilenet.export import Golden, disagreement, export, read_golden
from mobilenet.export.artifact import ExportedFile, Job
from mobilenet.export.golden import golden_images
from mobilenet.export.onnx import to_onnx
from mobilenet.layers import folded
from mobilenet.models import MODELS, ModelSpec, create
from mobilenet.preprocess import keras, preprocess, slim
from mobilenet.preprocess import torchvision as torchvision_rules
from mobilenet.runtime import load, read_artifact

# of golden_images(), which no change of NumPy, machine or ours may move
GOLDEN_SHA256 = "19a9503f066b55825c5d35b424c87f4157305b713a510092c4dbb682d05a2a1c"


def random_network(described: ModelSpec) -> "torch.nn.Module":
    """Random weights, and random statistics, scales and shifts of every norm."""
    torch.manual_seed(3)
    network = create(described)
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.running_mean.normal_(0, 0.2)
                layer.running_var.uniform_(0.3, 2)
                layer.weight.uniform_(0.7, 1.4)
                layer.bias.normal_(0, 0.2)
        network.head.classifier.weight.normal_(0, 0.1)
    return network.eval()


export_module = importlib.import_module("mobilenet.export")  # mobilenet.export is the verb


pytestmark = pytest.mark.usefixtures("one_thread")


NETWORKS = [
    (replace(MODELS["mobilenet_v1"], classes=11, width=0.25), 96),
    (replace(MODELS["mobilenet_v2"], classes=11, width=0.5, padding="same", output_stride=16), 97),
    (replace(MODELS["mobilenet_v3_large"], classes=11, width=0.35), 97),
    (replace(MODELS["mobilenet_v3_small"], classes=11, width=0.5, padding="same"), 96),
    (replace(MODELS["mobilenet_v3_small_minimalistic"], classes=11, width=0.5), 64),
]


@pytest.mark.parametrize(
    ("described", "size"), NETWORKS, ids=[f"{s.name}-{size}" for s, size in NETWORKS]
)
def test_the_onnx_file_answers_as_eager_pytorch_does(described: ModelSpec, size: int) -> None:
    network = random_network(described)
    made = to_onnx(network, size=size, metadata={"colour": "RGB"})
    session = onnxruntime.InferenceSession(made.data, providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        images = np.random.default_rng(batch).normal(size=(batch, 3, size, size)).astype(np.float32)
        with torch.inference_mode():
            expected = network(torch.from_numpy(images)).numpy()
        found = session.run(["logits"], {"image": images})[0]
        assert expected.std() > 1e-2  # a network that answers the same to everything shows nothing
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * abs(expected).max())

    model = onnx.load_from_string(made.data)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 20)]
    kinds = {node.op_type for node in model.graph.node}
    assert kinds.isdisjoint({"BatchNormalization", "Identity", "Dropout", "Pad"})
    assert {p.key: p.value for p in model.metadata_props} == {"colour": "RGB"}


def test_folding_changes_the_function_by_rounding_only() -> None:
    described = replace(MODELS["mobilenet_v1"], classes=11, width=0.25)
    network = random_network(described).double()
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.inference_mode():
        expected, found = network(images), folded(network)(images)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    kept = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(kept) == 27  # the original is as it was


def test_the_file_carries_its_contract(small_run: Path, small_export: Path) -> None:
    contract = read_model_json(small_run)
    data = (small_export / "model.onnx").read_bytes()
    model = onnx.load_from_string(data)
    carried = {p.key: p.value for p in model.metadata_props}
    assert json.loads(carried["model.json"]) == contract
    assert json.loads(carried["labels"]) == contract["labels"]
    assert json.loads(carried["preprocess"]) == contract["preprocess"]
    assert carried["source.sha256"] == contract["weights"]["sha256"]
    # nothing of the machine that it was made on
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    assert str(Path.cwd()).encode() not in data
    assert b".py" not in data

    described = read_model_json(small_export)
    artifact = described.pop("artifact")
    assert described == contract
    assert artifact["sha256"] == hashlib.sha256(data).hexdigest()
    assert artifact["bytes"] == len(data)
    assert (small_export / artifact["source"]).resolve() == small_run.resolve()
    ends = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    for stated, real in (
        (artifact["input"], ends.get_inputs()[0]),
        (artifact["output"], ends.get_outputs()[0]),
    ):
        assert (stated["name"], stated["shape"]) == (real.name, real.shape)


def test_the_same_run_gives_the_same_files(
    small_run: Path, small_export: Path, tmp_path: Path
) -> None:
    again = export(small_run, to="onnx", out=tmp_path / "again")
    for name in ("model.onnx", "golden.npz", "predict.py", "picture.py"):
        assert (again.path / name).read_bytes() == (small_export / name).read_bytes()
    assert again.max_error < 1e-3
    assert again.to_json()["sha256"] == read_artifact(small_export).sha256


class Exporter:
    """Stands in for `to_onnx`: the file of an earlier export, one weight of which is changed."""

    def __init__(self, folder: Path, change: float) -> None:
        self.file = read_artifact(folder)
        self.change = change

    def __call__(self, job: Job) -> ExportedFile:
        model = onnx.load_from_string(self.file.data)
        bias = next(i for i in model.graph.initializer if i.name == "head.classifier.bias")
        values = onnx.numpy_helper.to_array(bias).copy()
        values[2] += self.change
        bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
        return ExportedFile(
            format="onnx",
            file="model.onnx",
            data=model.SerializeToString(),
            input=self.file.description["input"],
            output=self.file.description["output"],
            details={},
        )


@pytest.mark.parametrize("change", [0.01, float("nan")])
def test_a_file_that_answers_otherwise_is_not_exported(
    small_run: Path,
    small_export: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: float,
) -> None:
    monkeypatch.setattr(export_module, "EXPORTERS", {"onnx": Exporter(small_export, change)})
    with pytest.raises(ExportError, match="golden images: logits differ by up to"):
        export(small_run, to="onnx", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(export_module, "EXPORTERS", {"onnx": Exporter(small_export, 0.0)})
    export(small_run, to="onnx", out=tmp_path / "out")


def test_disagreement_tells_errors_changed_classes_and_ties_apart() -> None:
    expected = np.array([[1.0, 0.9997, 0.0], [0.5, 0.50001, 0.0]], np.float32)
    assert disagreement(expected, expected, tolerance=1e-3) is None
    swapped = np.array([[0.9998, 0.9999, 0.0], [0.5, 0.50001, 0.0]], np.float32)
    found = disagreement(swapped, expected, tolerance=1e-3)
    assert found is not None
    assert "another first class for 1 of 2" in found
    tied = np.array([[1.0, 0.9997, 0.0], [0.50001, 0.5, 0.0]], np.float32)
    assert disagreement(tied, expected, tolerance=1e-3) is None
    assert "up to 0.5" in str(disagreement(expected + np.float32(0.5), expected, tolerance=1e-3))
    assert "shape" in str(disagreement(expected[:1], expected, tolerance=1e-3))


def test_wrong_usage_is_refused(small_run: Path, small_export: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"format 'tflight': expected one of \['coreml', "):
        export(small_run, to="tflight", out=tmp_path)
    with pytest.raises(UsageError, match="would be lost"):
        export(small_run, to="onnx", out=small_run)
    with pytest.raises(CheckpointError, match=r"no model\.json"):
        export(tmp_path, to="onnx", out=tmp_path / "out")


@pytest.mark.parametrize(
    ("weights", "part", "steps"),
    [("float16", 1 / 2, 2**-11), ("bfloat16", 1 / 2, 2**-8), ("int8", 1 / 4, 1 / 254)],
)
def test_weights_are_stored_in_fewer_bits(
    small_run: Path, small_export: Path, tmp_path: Path, weights: str, part: float, steps: float
) -> None:
    made = export(small_run, to="onnx", out=tmp_path / "out", weights=weights)
    given, found = (
        onnx.load_model_from_string(path.read_bytes())
        for path in (small_export / "model.onnx", made.file)
    )
    constants = {tensor.name: to_array(tensor) for tensor in given.graph.initializer}
    stored = {node.output[0]: node for node in found.graph.node[: len(convolutions(given))]}
    kept = {tensor.name: tensor for tensor in found.graph.initializer}
    whole = 0
    for name in convolutions(given):
        inputs = [to_array(kept[each]).astype(np.float32) for each in stored[name].input]
        real = inputs[0] if len(inputs) == 1 else inputs[0] * inputs[1][:, None, None, None]
        largest = np.abs(constants[name]).max((1, 2, 3), keepdims=True)
        bound = largest if weights == "int8" else np.abs(constants[name])
        assert (np.abs(real - constants[name]) <= 1.001 * steps * bound + 1e-7).all()
        whole += constants[name].nbytes
    saved = len((small_export / "model.onnx").read_bytes()) - made.bytes
    assert (1 - part - 0.15) * whole < saved < (1 - part) * whole
    assert f"float32 with weights stored in {weights}" in str(made)
    assert made.max_error < 1e-3  # beside torch with weights rounded so
    assert 0.99 < made.float_cosine < 1
    assert read_model_json(made.path)["artifact"]["weights"] == weights
    assert load(made.path)(read_golden(read_artifact(made.path)).inputs).shape[1] > 1


def convolutions(model: onnx.ModelProto) -> list[str]:
    """The names of their weights."""
    return [node.input[1] for node in model.graph.node if node.op_type == "Conv"]


def test_stored_weights_are_for_float32_in_onnx(small_run: Path, tmp_path: Path) -> None:
    for options in ({"to": "engine", "weights": "int8"}, {"to": "onnx", "weights": "int3"}):
        with pytest.raises(UsageError, match="weights"):
            export(small_run, out=tmp_path / "out", **options)


def test_golden_images_are_the_same_everywhere(small_export: Path) -> None:
    images = golden_images()
    digest = hashlib.sha256(b"".join(image.tobytes() for image in images)).hexdigest()
    assert digest == GOLDEN_SHA256
    assert len({image.tobytes() for image in images}) == 10
    assert all(image.dtype == np.uint8 and image.std() > 20 for image in images)

    golden = read_golden(read_artifact(small_export))
    assert all((a == b).all() for a, b in zip(golden.images, images, strict=True))
    rules = torchvision_rules(48)
    for image, tensor in zip(images, golden.inputs, strict=True):
        np.testing.assert_array_equal(tensor, preprocess(Image.fromarray(image), rules))
    back = Golden.from_bytes(golden.to_bytes())
    np.testing.assert_array_equal(back.logits, golden.logits)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def odd_pictures(folder: Path) -> list[Path]:
    """Pictures of every mode that the contract treats in its own way."""
    base = Image.fromarray(golden_images()[1])
    rotated = Image.Exif()
    rotated[0x0112] = 6
    grey = np.asarray(base.convert("L"))
    half = Image.fromarray(np.dstack([np.asarray(base), grey]))
    palette = base.quantize(16)
    palette.info["transparency"] = 3
    files = {
        "rotated.jpg": encoded(base, "JPEG", exif=rotated, quality=90),
        "cmyk.jpg": encoded(base.convert("CMYK"), "JPEG"),
        "grey.jpg": encoded(base.convert("L"), "JPEG"),
        "sixteen.png": encoded(Image.fromarray(grey.astype(np.uint16) * 256 + 99), "PNG"),
        "alpha.png": encoded(half, "PNG"),
        "palette.png": encoded(palette, "PNG", transparency=3),
        "animated.gif": encoded(base, "GIF", save_all=True, append_images=[base.rotate(90)]),
        "wide.png": encoded(base.resize((300, 20)), "PNG"),
        "tiny ünicode.png": encoded(base.resize((9, 14)), "PNG"),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in files]


@pytest.mark.parametrize(
    "rules",
    [torchvision_rules(48), keras(48), slim(48), torchvision_rules(48, resize=40)],
    ids=["shorter", "stretch", "crop_fraction", "padded"],
)
def test_the_sample_answers_as_we_do_without_us(
    small_export: Path, tmp_path: Path, rules: object
) -> None:
    folder = tmp_path / "exported"
    shutil.copytree(small_export, folder)
    description = read_model_json(folder)
    description["preprocess"] = rules.to_dict()
    write_model_json(folder, description)
    paths = odd_pictures(tmp_path)
    code = (
        "import runpy, sys; sys.modules['mobilenet'] = sys.modules['torch'] = None; "
        "sys.argv = sys.argv[1:]; sys.path.insert(0, sys.argv.pop(0)); "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, folder, folder / "predict.py", *paths],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONUTF8": "1"},
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    ours = load(folder, runtime="onnxruntime").predict(paths)
    assert [answer["path"] for answer in answers] == [str(path) for path in paths]
    for answer, expected in zip(answers, ours, strict=True):
        assert [p["label"] for p in answer["predictions"]] == [p.label for p in expected]
        scores = [p["score"] for p in answer["predictions"]]
        assert scores == pytest.approx([p.score for p in expected], abs=1e-6)


def test_the_manual_page_runs(
    small_export: Path, pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parent.parent / "docs" / "export.md").read_text(encoding="utf-8")
    shutil.copytree(small_export, tmp_path / "DIR")
    Image.open(pictures[0]).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 3
    results: list[dict[str, Any]] = [{} for _ in blocks]
    for block, names in zip(blocks, results, strict=True):
        exec(compile(block, "docs/export.md", "exec"), names)
    assert results[1]["logits"].shape == (1, 7)
    error = np.abs(results[2]["logits"] - results[2]["golden"]["logits"]).max()
    assert error < 1e-4
