"""Importing MobileNets made elsewhere: their own libraries must agree with the run."""

import importlib.util
import json
import os
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torchvision
from torch import Tensor, nn

import mobilenet
from litert_writer import litert_file
from mobilenet.checkpoint import load_model, read_model_json
from mobilenet.errors import MissingDependency, UsageError, WeightsError
from mobilenet.export import read_golden
from mobilenet.import_model import Imported, import_model
from mobilenet.import_model.flatbuffer import FlatbufferError, root
from mobilenet.import_model.litert_file import read_litert
from mobilenet.labels import imagenet_labels
from mobilenet.models import MODELS
from mobilenet.networks import random_network
from mobilenet.preprocess import Preprocess
from mobilenet.preprocess import keras as keras_rule
from mobilenet.preprocess import torchvision as torchvision_rule
from mobilenet.program import program_of
from mobilenet.runtime import read_artifact
from test_weights import other_library, pictures, randomise

SIZE = 64
HAS_LITERT = importlib.util.find_spec("ai_edge_litert") is not None


pytestmark = pytest.mark.usefixtures("one_thread")


def small_v2(classes: int = 7) -> nn.Module:
    return randomise(torchvision.models.mobilenet_v2(width_mult=0.35, num_classes=classes))


def to_onnx(module: nn.Module, path: Path, **options: Any) -> Path:
    """Written by PyTorch's own exporters, not by this package's."""
    x = options.pop("x", torch.zeros(1, 3, SIZE, SIZE))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module.eval(), (x,), str(path), verbose=False, **options)
    return path


@pytest.fixture(scope="module")
def dynamo_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`small_v2` by PyTorch's exporter of today, which puts weights into a file of their own."""
    return to_onnx(small_v2(), tmp_path_factory.mktemp("dynamo") / "m.onnx", dynamo=True)


def answers(run: Path, x: Tensor) -> np.ndarray:
    with torch.inference_mode():
        return load_model(run).module()(x).numpy()


def same(run: Path, module: nn.Module, size: int = SIZE, drop: int = 0) -> None:
    """Beside the check that importing makes, on other images."""
    x = pictures(size)
    with torch.inference_mode():
        expected = module.eval()(x).numpy()[:, drop:]
    assert np.abs(answers(run, x) - expected).max() < 1e-4 * expected.std()


def checked(found: Imported, runtime: str) -> Imported:
    assert found.check is not None, found.unchecked
    assert found.check.runtime.startswith(runtime)
    assert found.check.max_error < 1e-4
    return found


# -------------------------------------------------------------------------------- weights files


def test_torchvision_weights_are_checked_against_torchvision(tmp_path: Path) -> None:
    theirs = small_v2()
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join("abcdefg") + "\n")
    found = import_model(tmp_path / "w.pth", out=tmp_path / "run", labels=labels, size=96)
    checked(found, "torchvision")
    assert (found.model, found.width, found.classes, found.size) == ("mobilenet_v2", 0.35, 7, 96)
    assert "padding 'torch', BN epsilon 1e-05" in found.assumed[0]
    same(tmp_path / "run", theirs)
    contract = read_model_json(tmp_path / "run")
    assert contract["labels"] == list("abcdefg")
    assert contract["preprocess"] == torchvision_rule(96).to_dict()
    stated = contract["provenance"]["imported"]
    assert stated["file"] == "w.pth"
    assert stated["assumed"] == list(found.assumed)
    assert stated["check"]["runtime"].startswith("torchvision")


def test_timm_weights_with_a_background_class(tmp_path: Path) -> None:
    with other_library():
        import timm

        name = "tf_mobilenetv3_small_minimal_100"
        theirs = randomise(timm.create_model(name, num_classes=1001))
    torch.save(theirs.state_dict(), tmp_path / f"{name}.pth")
    found = checked(import_model(tmp_path / f"{name}.pth", out=tmp_path / "run"), "timm")
    assert (found.model, found.classes) == ("mobilenet_v3_small_minimalistic", 1000)
    assert any("the first of 1001 classes, background, was dropped" in n for n in found.assumed)
    assert read_model_json(tmp_path / "run")["labels"] == list(imagenet_labels())
    same(tmp_path / "run", theirs, drop=1)


KERAS = """
import sys
import keras, numpy as np
make = keras.applications.MobileNetV3Small
model = make(alpha=0.75, weights=None, input_shape=(64, 64, 3), classes=5,
             include_preprocessing=False, classifier_activation=None)
rng = np.random.default_rng(0)
for variable in model.weights:
    shape, kind = variable.shape, variable.path.rsplit("/")[-1]
    if kind in ("gamma", "moving_variance"):
        variable.assign(rng.uniform(0.5, 1.5, shape))
    elif len(shape) == 1:
        variable.assign(rng.normal(0, 0.3, shape))
model.save(sys.argv[1] + ".keras")
model.save(sys.argv[1] + ".h5")
"""


@pytest.mark.slow
def test_keras_files_are_checked_against_keras(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(
        [sys.executable, "-c", KERAS, str(tmp_path / "w")],
        env=os.environ | {"KERAS_BACKEND": "torch", "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
    )
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for suffix in ("keras", "h5"):
        found = import_model(tmp_path / f"w.{suffix}", out=tmp_path / suffix, size=96)
        checked(found, "keras")
        assert (found.model, found.width, found.classes) == ("mobilenet_v3_small", 0.75, 5)
        assert read_model_json(tmp_path / suffix)["preprocess"] == keras_rule(96).to_dict()
        assert load_model(tmp_path / suffix).spec.padding == "same"


# ----------------------------------------------------------------------------------------- ONNX


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript", "training"])
def test_onnx_files_of_torchvision(exporter: str, dynamo_file: Path, tmp_path: Path) -> None:
    theirs, path = small_v2(), tmp_path / "m.onnx"
    if exporter == "dynamo":
        path = dynamo_file
        assert path.with_name("m.onnx.data").exists()
    elif exporter == "torchscript":
        to_onnx(theirs, path, dynamo=False)
    else:  # batch norms stay, and the answers are probabilities
        kept = torch.onnx.TrainingMode.PRESERVE
        both = nn.Sequential(theirs, nn.Softmax(1))
        to_onnx(both, path, dynamo=False, training=kept, do_constant_folding=False)
    found = checked(import_model(path, out=tmp_path / "run"), "onnxruntime")
    assert (found.model, found.width, found.classes, found.size) == ("mobilenet_v2", 0.35, 7, SIZE)
    assert ("BN epsilon 1e-05, from the graph" in found.facts) == (exporter == "training")
    assert any("folded" in note for note in found.assumed) == (exporter != "training")
    assert any("preprocessing like torchvision's" in note for note in found.assumed)
    same(tmp_path / "run", theirs)
    same(tmp_path / "run", theirs, size=97)
    norm = dict(load_model(tmp_path / "run").module().named_modules())["backbone.blocks.1.project"]
    assert norm.norm.eps == 1e-5  # pyright: ignore[reportAttributeAccessIssue]


class FromBytes(nn.Module):
    """As TensorFlow's converters write it: NHWC, values of 0 to 255, normalised in the graph."""

    def __init__(self, module: nn.Module, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.module = module
        self.register_buffer("mean", 255 * torch.tensor(mean))
        self.register_buffer("std", 255 * torch.tensor(std))

    def forward(self, x: Tensor) -> Tensor:
        return self.module(((x - self.mean) / self.std).permute(0, 3, 1, 2))


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v3_large"])
def test_onnx_with_its_preprocessing_inside(name: str, tmp_path: Path) -> None:
    spec = replace(MODELS[name], width=0.25, classes=5, padding="same")
    ours = random_network(spec, SIZE).eval()
    mean, std = [0.48, 0.46, 0.41], [0.23, 0.22, 0.225]
    path = to_onnx(
        FromBytes(ours, mean, std),
        tmp_path / "m.onnx",
        x=torch.zeros(1, SIZE, SIZE, 3),
        dynamo=False,
    )
    found = checked(import_model(path, out=tmp_path / "run"), "onnxruntime")
    assert (found.model, found.width) == (name, 0.25)
    contract = read_model_json(tmp_path / "run")
    assert contract["preprocess"]["mean"] == pytest.approx(mean, abs=1e-6)
    assert contract["preprocess"]["std"] == pytest.approx(std, abs=1e-6)
    assert contract["model"]["padding"] == "same"
    assert any("values of 0 to 255" in fact for fact in found.facts)
    same(tmp_path / "run", ours)


def test_the_preprocessing_that_is_asked_for(tmp_path: Path) -> None:
    path = to_onnx(small_v2(), tmp_path / "m.onnx", dynamo=False)
    found = import_model(path, out=tmp_path / "run", preprocess="slim")
    assert "preprocessing as slim does, as was asked for" in found.assumed
    assert read_model_json(tmp_path / "run")["preprocess"]["crop_fraction"] == 0.875


def test_our_own_export_comes_back_whole(
    small_export: Path, small_run: Path, tmp_path: Path
) -> None:
    found = checked(import_model(small_export / "model.onnx", out=tmp_path / "run"), "onnxruntime")
    before, after = read_model_json(small_run), read_model_json(tmp_path / "run")
    assert after["preprocess"] == before["preprocess"]
    assert after["labels"] == before["labels"]
    assert after["model"] == before["model"]
    assert all("preprocessing" not in note for note in found.assumed)
    golden = read_golden(read_artifact(small_export))
    run = answers(tmp_path / "run", torch.from_numpy(golden.inputs))
    assert np.abs(run - golden.logits).max() < 1e-4


# --------------------------------------------------------------------------------------- LiteRT


def litert(tmp_path: Path, name: str, **options: Any) -> tuple[nn.Module, Path]:
    spec = replace(MODELS[name], width=0.25, classes=6, padding="same")
    ours = random_network(spec, SIZE).eval()
    path = tmp_path / "m.tflite"
    path.write_bytes(litert_file(program_of(ours), SIZE, **options))
    return ours, path


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mobilenet_v1", {"softmax": True}),
        ("mobilenet_v2", {"half": True}),
        ("mobilenet_v3_small", {}),
        ("mobilenet_v3_large_minimalistic", {"softmax": True}),
    ],
)
def test_litert_files(name: str, options: dict[str, bool], tmp_path: Path) -> None:
    ours, path = litert(tmp_path, name, **options)
    found = import_model(path, out=tmp_path / "run")
    if HAS_LITERT:
        checked(found, "litert")
    else:
        assert found.unchecked is not None
        assert "NOT checked against the original" in str(found)
    assert (found.model, found.width, found.classes, found.size) == (name, 0.25, 6, SIZE)
    contract = read_model_json(tmp_path / "run")
    assert contract["model"]["padding"] == "same"
    assert contract["preprocess"] == keras_rule(SIZE).to_dict()
    x = pictures(SIZE)
    with torch.inference_mode():
        expected = ours(x).numpy()
    error = np.abs(answers(tmp_path / "run", x) - expected).max() / expected.std()
    assert error < (5e-2 if options.get("half") else 1e-4)


def test_mutated_litert_files_are_read_or_refused(tmp_path: Path) -> None:
    """Whatever a file's bytes say, nothing outside it is read, and no other error escapes."""
    _, path = litert(tmp_path, "mobilenet_v1")
    whole = path.read_bytes()
    tables = np.arange(len(whole) - 30_000, len(whole))  # written backwards
    rng = np.random.default_rng(0)
    refused = 0
    for trial in range(150):
        data = bytearray(whole)
        for _ in range(3):
            data[int(rng.choice(tables))] = int(rng.integers(256))
            data[int(rng.integers(4)) if trial % 10 == 0 else int(rng.integers(2000))] ^= 0x55
        data[4:8] = b"TFL3"
        path.write_bytes(data)
        try:
            read_litert(path)
        except WeightsError:
            refused += 1
    assert refused > 20
    for length in range(8, 200, 9):
        with pytest.raises(FlatbufferError):
            root(whole[:length]).tables(2)[0].tables(0)[0].text(3)


# --------------------------------------------------------------------------------- what is refused


class Relu(nn.Module):
    """V1's shapes with another activation."""

    def __init__(self) -> None:
        super().__init__()
        spec = replace(MODELS["mobilenet_v1"], width=0.25, classes=5)
        self.network = random_network(spec, SIZE)
        for part in self.network.modules():
            if hasattr(part, "act"):
                part.act = nn.LeakyReLU(0.3)

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)


def test_another_network_of_the_same_shapes_is_caught_by_its_answers(tmp_path: Path) -> None:
    path = to_onnx(Relu(), tmp_path / "m.onnx", dynamo=False)
    with pytest.raises(WeightsError, match=r"has the shapes of mobilenet_v1 at width 0\.25, but"):
        import_model(path, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_another_network_is_told_what_is_nearest(tmp_path: Path) -> None:
    path = to_onnx(torchvision.models.squeezenet1_1(), tmp_path / "m.onnx", dynamo=False)
    with pytest.raises(WeightsError, match=r"26 convolutions that are of none .*mobilenet_v2: 53"):
        import_model(path, out=tmp_path / "run")
    module = small_v2()
    module.features[0][0].stride = (1, 1)  # pyright: ignore
    path = to_onnx(module, tmp_path / "m.onnx", dynamo=False)
    with pytest.raises(WeightsError, match="has stride 1, expected 2"):
        import_model(path, out=tmp_path / "run")


def test_quantised_and_damaged_files(
    small_export: Path, tmp_path: Path, pictures: list[Path]
) -> None:
    whole = (small_export / "model.onnx").read_bytes()
    path = tmp_path / "m.onnx"
    for content, reason in (
        (whole[: len(whole) // 2], "ONNX"),
        (b"", "cannot be read as ONNX: there is no graph"),
        (pictures[0].read_bytes(), "ONNX"),
    ):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=reason):
            import_model(path, out=tmp_path / "run")
    model = onnx.load_from_string(whole)
    scale = onnx.numpy_helper.from_array(np.array(1, np.float32), "scale")
    model.graph.initializer.append(scale)
    quantise = onnx.helper.make_node("QuantizeLinear", ["image", "scale"], ["bytes"])
    model.graph.node.insert(0, quantise)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(WeightsError, match=r"quantised .QuantizeLinear.; import the float"):
        import_model(path, out=tmp_path / "run")


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "link", "gone"])
def test_weights_of_an_onnx_file_lie_beside_it(
    location: str, dynamo_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "m.onnx"
    (tmp_path / "link").symlink_to(dynamo_file.with_name("m.onnx.data"))
    model = onnx.load(dynamo_file, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())
    reason = "which is not beside it" if location == "gone" else "refused: its weights are said"
    with pytest.raises(WeightsError, match=reason):
        import_model(path, out=tmp_path / "run")


def test_wrong_usage(small_run: Path, tmp_path: Path) -> None:
    torch.save(small_v2().state_dict(), tmp_path / "w.pth")
    (tmp_path / "labels.txt").write_text("a\nb\n")
    with pytest.raises(UsageError, match="2 labels, the model has 7 classes"):
        import_model(tmp_path / "w.pth", out=tmp_path / "run", labels=tmp_path / "labels.txt")
    with pytest.raises(UsageError, match="holds a model, which would be lost"):
        import_model(tmp_path / "w.pth", out=small_run)
    with pytest.raises(WeightsError, match="a folder; name the model"):
        import_model(tmp_path, out=tmp_path / "run")
    with pytest.raises(WeightsError, match="no such file"):
        import_model(tmp_path / "nothing.onnx", out=tmp_path / "run")
    with pytest.raises(WeightsError, match="its folder is a run already"):
        import_model(small_run / "model.safetensors", out=tmp_path / "run")
    headless = {k: v for k, v in small_v2().state_dict().items() if "classifier" not in k}
    torch.save(headless, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"without a classifier.*mobilenet train --weights"):
        import_model(tmp_path / "w.pth", out=tmp_path / "run")


def test_from_the_command_line_to_an_exported_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], pictures: list[Path]
) -> None:
    path = to_onnx(small_v2(), tmp_path / "m.onnx", dynamo=False)
    (tmp_path / "labels.json").write_text(json.dumps([f"l{i}" for i in range(7)]))
    from mobilenet import cli

    words = ["import", path, "--out", tmp_path / "run", "--labels", tmp_path / "labels.json"]
    with pytest.raises(SystemExit) as left:
        cli.main([*map(str, words), "--json"])
    assert left.value.code == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["model"] == "mobilenet_v2"
    assert shown["check"]["max_error"] < 1e-4
    try:
        artifact = mobilenet.export(tmp_path / "run", to="engine", out=tmp_path / "engine")
    except MissingDependency:
        pytest.skip("no engine")
    model = mobilenet.load(artifact.path)
    assert model.preprocess == Preprocess.from_dict(read_model_json(tmp_path / "run")["preprocess"])
    assert model.predict(pictures[:1])[0][0].label.startswith("l")
