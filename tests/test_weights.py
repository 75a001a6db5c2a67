"""Other libraries' networks, saved by themselves, must answer alike after loading."""

import json
import os
import pickle
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from mobilenet import checkpoint
from mobilenet.errors import WeightsError
from mobilenet.labels import imagenet_labels
from mobilenet.models import MODELS, ModelSpec, create
from mobilenet.preprocess import keras as keras_rule
from mobilenet.preprocess import slim as slim_rule
from mobilenet.preprocess import torchvision as torchvision_rule
from mobilenet.weights import (
    WeightsFile,
    inspect_weights,
    load_pretrained,
    read_weights,
    to_torchvision,
)
from mobilenet.weights.fit import RULES, recognise
from mobilenet.weights.names import layers, ours, tensors


@contextmanager
def other_library() -> Iterator[None]:
    """timm and transformers warn of their own affairs while they are imported and build."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@torch.no_grad()
def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Draw every parameter, and statistics near those of real inputs.

    So the signal stays where activations bend, and no difference hides in saturation. A few
    channels are weak: there the BN epsilon matters, as it does in trained depthwise layers.
    """
    draw = torch.Generator().manual_seed(seed)
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            part.weight.normal_(0, part.weight[0].numel() ** -0.5, generator=draw)
            part.weight[torch.rand(len(part.weight), generator=draw) < 0.1] *= 0.03
            if part.bias is not None:
                part.bias.normal_(0, 0.3, generator=draw)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.weight.uniform_(0.5, 1.5, generator=draw)
        norm.bias.normal_(0, 0.3, generator=draw)
        norm.momentum = 1.0
    module.train()(torch.randn(8, 3, 64, 64, generator=draw))
    for norm, momentum in zip(norms, momenta, strict=True):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.momentum = momentum
        norm.running_mean += (
            0.1 * norm.running_var.sqrt() * torch.randn(len(norm.bias), generator=draw)
        )
        norm.running_var *= 0.7 + 0.6 * torch.rand(len(norm.bias), generator=draw)
    return module.eval()


def pictures(size: int, count: int = 2) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(size))


def apart(a: Tensor, b: Tensor) -> float:
    """The largest difference of two logits, relative to their spread."""
    assert a.shape == b.shape
    return float((a - b).abs().max() / b.std())


@torch.no_grad()
def answer(module: nn.Module, x: Tensor) -> Tensor:
    out = module(x)
    return out if isinstance(out, Tensor) else out.logits


# ---------------------------------------------------------------------------- our own names


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("width", [0.35, 0.75, 1.0, 1.4])
def test_layers_are_those_of_the_module(name: str, width: float) -> None:
    for rule in RULES:
        spec = replace(MODELS[name], width=width, width_rule=rule, classes=7)
        with torch.device("meta"):
            state = create(spec).state_dict()
        names = ours(spec, ())
        expected = {
            here: shape
            for layer in layers(spec.network())
            for here, there, shape in tensors(layer, names[layer.name])
        }
        found = {k: tuple(v.shape) for k, v in state.items() if "num_batches" not in k}
        assert expected == found
        assert list(expected) == list(found)


# ------------------------------------------------------------------------------ torchvision

TORCHVISION: dict[str, tuple[Callable[..., nn.Module], str, float]] = {
    "v2": (torchvision.models.mobilenet_v2, "mobilenet_v2", 1.0),
    "v2_050": (torchvision.models.mobilenet_v2, "mobilenet_v2", 0.5),
    "v2_075": (torchvision.models.mobilenet_v2, "mobilenet_v2", 0.75),
    "v2_140": (torchvision.models.mobilenet_v2, "mobilenet_v2", 1.4),
    "v3_large": (torchvision.models.mobilenet_v3_large, "mobilenet_v3_large", 1.0),
    "v3_large_075": (torchvision.models.mobilenet_v3_large, "mobilenet_v3_large", 0.75),
    "v3_large_140": (torchvision.models.mobilenet_v3_large, "mobilenet_v3_large", 1.4),
    "v3_small": (torchvision.models.mobilenet_v3_small, "mobilenet_v3_small", 1.0),
    "v3_small_050": (torchvision.models.mobilenet_v3_small, "mobilenet_v3_small", 0.5),
}


def build_torchvision(which: str) -> tuple[nn.Module, ModelSpec]:
    make, name, width = TORCHVISION[which]
    argument = "width_mult" if name == "mobilenet_v2" else "_width_mult"
    if name == "mobilenet_v2" or width == 1.0:
        theirs = make(**({} if width == 1.0 else {argument: width}))
    else:  # torchvision's constructors pass no width on
        from torchvision.models import mobilenetv3

        rows, last = mobilenetv3._mobilenet_v3_conf(name, width_mult=width)
        theirs = mobilenetv3.MobileNetV3(rows, last)
    return randomise(theirs), replace(MODELS[name], width=width)


@pytest.mark.parametrize("which", TORCHVISION)
def test_torchvision(which: str, tmp_path: Path) -> None:
    theirs, spec = build_torchvision(which)
    path = tmp_path / "some.weights"
    torch.save(theirs.state_dict(), path)
    loaded = load_pretrained(spec, path)
    ours = loaded.module()
    for size in (97, 160):
        x = pictures(size)
        assert apart(answer(ours, x), answer(theirs, x)) < 1e-5
    assert loaded.fresh == ()
    assert "not a published file" in loaded.notes[0]
    seen = inspect_weights(path)
    assert (seen.spec.name, seen.spec.width, seen.classes) == (spec.name, spec.width, 1000)
    assert seen.spec.network() == loaded.spec.network()
    assert (seen.publisher, seen.kind, seen.entry) == ("torchvision", "torch", None)

    back = to_torchvision(loaded.spec, ours.state_dict())
    assert list(back) == list(theirs.state_dict())
    randomise(theirs, seed=1).load_state_dict(back)
    assert torch.equal(answer(theirs, x), answer(build_torchvision(which)[0], x))


def test_a_wrong_convention_would_show(tmp_path: Path) -> None:
    """The comparisons here see padding and epsilon: neither may be swapped unnoticed."""
    theirs, spec = build_torchvision("v2")
    torch.save(theirs.state_dict(), tmp_path / "w")
    loaded = load_pretrained(spec, tmp_path / "w")
    x = pictures(160)
    for change in ({"padding": "same"}, {"bn_eps": 1e-3}):
        wrong = replace(loaded, spec=replace(loaded.spec, **change)).module()
        assert apart(answer(wrong, x), answer(theirs, x)) > 1e-2


def test_torchvision_has_no_v1() -> None:
    spec = MODELS["mobilenet_v1"]
    with pytest.raises(WeightsError, match="torchvision has no mobilenet_v1"):
        to_torchvision(spec, create(spec).state_dict())


def test_imagenet_v2_is_torchvisions() -> None:
    """The real weights, from an installed package."""
    loaded = load_pretrained(MODELS["mobilenet_v2"], "imagenet")
    theirs = torchvision.models.mobilenet_v2().eval()
    theirs.load_state_dict(torch.load(loaded.path, weights_only=True))
    for size in (97, 224):
        x = pictures(size)
        assert apart(answer(loaded.module(), x), answer(theirs, x)) < 1e-5
    assert loaded.entry is not None
    assert loaded.entry.name == "torchvision/mobilenet_v2.imagenet1k_v1"
    assert loaded.sha256.startswith("b0353104")
    assert loaded.labels == imagenet_labels()
    assert loaded.preprocess == torchvision_rule(224)
    seen = inspect_weights(loaded.path)
    assert (seen.entry, seen.spec) == (loaded.entry, loaded.spec)


def test_labels_are_torchvisions() -> None:
    meta = torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1.meta
    assert list(imagenet_labels()) == meta["categories"]
    assert imagenet_labels(1001)[:2] == ("background", "tench")
    with pytest.raises(ValueError, match="expected 1000 or 1001"):
        imagenet_labels(10)


# ------------------------------------------------------------------------------------- timm


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("mobilenetv1_100", 97),
        ("mobilenetv1_125", 160),
        ("mobilenetv2_050", 160),
        ("mobilenetv2_100", 97),
        ("mobilenetv2_140", 160),
        ("mobilenetv3_large_075", 97),
        ("mobilenetv3_large_100", 160),
        ("mobilenetv3_small_050", 225),
        ("mobilenetv3_small_075", 160),
        ("tf_mobilenetv3_large_075", 97),
        ("tf_mobilenetv3_large_100", 160),
        ("tf_mobilenetv3_large_minimal_100", 225),
        ("tf_mobilenetv3_small_075", 160),
        ("tf_mobilenetv3_small_minimal_100", 160),
        ("efficientnet_lite0", 97),
        ("tf_efficientnet_lite0", 160),
    ],
)
def test_timm(name: str, size: int, tmp_path: Path) -> None:
    from mobilenet.models import parse_model_name

    with other_library():
        import timm

        theirs = randomise(timm.create_model(name, pretrained=False))
    path = tmp_path / f"{name}.safetensors"
    save_file(theirs.state_dict(), path)
    spec = parse_model_name(name).spec
    loaded = load_pretrained(spec, path, size=size)
    x = pictures(size)
    assert apart(answer(loaded.module(), x), answer(theirs, x)) < 1e-5
    assert loaded.preprocess.size == size
    seen = inspect_weights(path)
    assert (seen.spec.name, seen.spec.width) == (spec.name, spec.width)
    assert (seen.publisher, seen.kind) == ("timm", "safetensors")
    ported = name.startswith("tf_")
    assert seen.spec.padding == ("same" if ported else "torch")
    bilinear = ported and "lite" not in name
    assert loaded.preprocess.interpolation == ("bilinear" if bilinear else "bicubic")


def test_efficientnet_pytorch(tmp_path: Path) -> None:
    """The names of efficientnet-pytorch, for the layers of timm's network in their order."""
    from mobilenet.models import parse_model_name

    with other_library():
        import timm

        theirs = randomise(timm.create_model("tf_efficientnet_lite0", pretrained=False))
    spec = parse_model_name("efficientnet-lite0").spec
    renamed = {}
    names = [name for name in theirs.state_dict() if "num_batches" not in name]
    for name, layer in zip(ordered(), names, strict=True):
        renamed[name] = theirs.state_dict()[layer]
    assert list(renamed)[5:7] == ["_blocks.0._depthwise_conv.weight", "_blocks.0._bn1.weight"]
    torch.save(renamed, tmp_path / "w.pth")
    loaded = load_pretrained(spec, tmp_path / "w.pth")
    x = pictures(160)
    assert apart(answer(loaded.module(), x), answer(theirs, x)) < 1e-5
    assert (loaded.spec.padding, loaded.spec.bn_eps) == ("same", 1e-3)
    assert inspect_weights(tmp_path / "w.pth").publisher == "efficientnet_pytorch"
    with pytest.raises(WeightsError):
        load_pretrained(MODELS["mobilenet_v2"], tmp_path / "w.pth")


def ordered() -> list[str]:
    """efficientnet-pytorch's names of a network's tensors, written down by hand."""
    parts = ("weight", "bias", "running_mean", "running_var")

    def layer(conv: str, norm: str) -> list[str]:
        return [f"{conv}.weight", *(f"{norm}.{part}" for part in parts)]

    found = layer("_conv_stem", "_bn0")
    for index in range(16):
        here = f"_blocks.{index}"
        found += layer(f"{here}._expand_conv", f"{here}._bn0") if index else []
        found += layer(f"{here}._depthwise_conv", f"{here}._bn1")
        found += layer(f"{here}._project_conv", f"{here}._bn2")
    return [*found, *layer("_conv_head", "_bn1"), "_fc.weight", "_fc.bias"]


@pytest.mark.parametrize("name", ["mobilenetv1_100h", "mobilenetv2_110d", "mobilenetv3_rw"])
def test_timm_networks_that_are_others(name: str, tmp_path: Path) -> None:
    with other_library():
        import timm

        torch.save(timm.create_model(name).state_dict(), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="its shapes are of none of"):
        inspect_weights(tmp_path / "w.pth")


# ----------------------------------------------------------------------------- Hugging Face


@pytest.mark.parametrize(
    ("version", "width", "size", "classes"),
    [
        (1, 0.75, 97, 1000),
        (1, 1.0, 160, 5),
        (2, 0.35, 97, 5),
        (2, 1.0, 160, 1000),
        (2, 1.4, 96, 1001),
    ],
)
def test_huggingface(version: int, width: float, size: int, classes: int, tmp_path: Path) -> None:
    with other_library():
        import transformers

        make = getattr(transformers, f"MobileNetV{version}ForImageClassification")
        config = getattr(transformers, f"MobileNetV{version}Config")
        settings: dict[str, Any] = {"depth_multiplier": width, "num_labels": 1001}
        settings |= {"finegrained_output": True} if version == 2 else {}
        theirs = randomise(make(config(**settings)))
        theirs.save_pretrained(tmp_path)
    spec = replace(MODELS[f"mobilenet_v{version}"], width=width, classes=classes)
    loaded = load_pretrained(spec, tmp_path / "model.safetensors")
    x = pictures(size)
    got, expected = answer(loaded.module(), x), answer(theirs, x)
    if classes == 5:
        assert got.shape == (2, 5)
        assert loaded.fresh == ("head.classifier.weight", "head.classifier.bias")
        assert "1001 classes, not 5: freshly initialised" in loaded.notes[1]
    else:
        assert apart(got, expected[:, 1001 - classes :]) < 1e-5
        assert loaded.fresh == ()
        assert len(loaded.notes) == (2 if classes == 1000 else 1)
    seen = inspect_weights(tmp_path / "model.safetensors")
    assert (seen.spec.name, seen.spec.width, seen.classes) == (spec.name, width, 1001)
    assert (seen.spec.padding, seen.spec.bn_eps) == ("same", 1e-3)


def test_a_hub_copy_is_known_by_its_folder(tmp_path: Path) -> None:
    with other_library():
        import transformers

        theirs = transformers.MobileNetV1ForImageClassification(
            transformers.MobileNetV1Config(depth_multiplier=0.75, num_labels=1001)
        )
        folder = tmp_path / "google" / "mobilenet_v1_0.75_192"
        theirs.save_pretrained(folder)
    spec = replace(MODELS["mobilenet_v1"], width=0.75)
    loaded = load_pretrained(spec, folder / "model.safetensors")
    assert loaded.entry is not None
    assert loaded.entry.name == "google/mobilenet_v1_0.75_192"
    assert loaded.labels == imagenet_labels()
    assert loaded.preprocess == slim_rule(192)


# ------------------------------------------------------------------------------------ Keras

KERAS = """
import sys, warnings
warnings.simplefilter("ignore")
from pathlib import Path
import keras, numpy as np
from keras.applications import MobileNet as v1, MobileNetV2 as v2
from keras.applications import MobileNetV3Large as large, MobileNetV3Small as small

folder = Path(sys.argv[1])
v3 = {"include_preprocessing": False}
models = {
    "v1_025_96": (v1, {"alpha": 0.25}),
    "v2_035_96": (v2, {"alpha": 0.35}),
    "small_075_97": (small, {"alpha": 0.75, **v3}),
    "largemini_100_64": (large, {"minimalistic": True, **v3}),
    "notop_075_64": (small, {"alpha": 0.75, "include_top": False, **v3}),
}
rng = np.random.default_rng(0)
for name, (make, options) in models.items():
    size = int(name.split("_")[2])
    top = {} if "notop" in name else {"classifier_activation": None}
    model = make(weights=None, input_shape=(size, size, 3), **options, **top)
    for variable in model.weights:
        shape, kind = variable.shape, variable.path.rsplit("/")[-1]
        if kind == "gamma":
            variable.assign(rng.uniform(0.5, 1.5, shape))
        elif len(shape) == 1:
            variable.assign(rng.normal(0, 0.3, shape))
        else:
            depthwise = len(shape) == 4 and shape[-1] == 1
            fan_in = np.prod(shape[:2] if depthwise else shape[:-1])
            variable.assign(rng.normal(0, fan_in**-0.5, shape))
    for layer in model.layers:
        layer.momentum = 0.0  # statistics of this one batch
    model(rng.normal(size=(4, size, size, 3)).astype(np.float32), training=True)
    x = rng.normal(size=(2, size, size, 3)).astype(np.float32)
    y = keras.ops.convert_to_numpy(model(x, training=False))
    np.savez(folder / f"{name}.npz", x=x, y=y)
    model.save(folder / f"{name}.h5")
    model.save(folder / f"{name}.keras")
    model.save_weights(folder / f"{name}.weights.h5")
"""


@pytest.fixture(scope="module")
def keras_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that Keras itself saved. In another process: its backend is chosen at import."""
    folder = tmp_path_factory.mktemp("keras")
    done = subprocess.run(
        [sys.executable, "-c", KERAS, str(folder)],
        env=os.environ | {"KERAS_BACKEND": "torch", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize(
    ("name", "model", "width"),
    [
        ("v1_025_96", "mobilenet_v1", 0.25),
        ("v2_035_96", "mobilenet_v2", 0.35),
        ("small_075_97", "mobilenet_v3_small", 0.75),
        ("largemini_100_64", "mobilenet_v3_large_minimalistic", 1.0),
    ],
)
def test_keras(keras_files: Path, name: str, model: str, width: float) -> None:
    loaded = load_pretrained(replace(MODELS[model], width=width), keras_files / f"{name}.keras")
    expected = np.load(keras_files / f"{name}.npz")
    x = torch.from_numpy(expected["x"]).permute(0, 3, 1, 2)
    # Keras convolves in another layout, hence in another order of summation
    assert apart(answer(loaded.module(), x), torch.from_numpy(expected["y"])) < 1e-4
    seen = inspect_weights(keras_files / f"{name}.keras")
    assert (seen.spec.name, seen.spec.width, seen.classes) == (model, width, 1000)
    assert (seen.publisher, seen.kind) == ("keras", "keras")
    for other in ("h5", "weights.h5"):
        same = load_pretrained(loaded.spec, keras_files / f"{name}.{other}").state
        assert same.keys() == loaded.state.keys()
        assert all(torch.equal(same[key], loaded.state[key]) for key in same)


@pytest.mark.parametrize("suffix", ["h5", "keras", "weights.h5"])
def test_keras_without_top(keras_files: Path, suffix: str) -> None:
    spec = replace(MODELS["mobilenet_v3_small"], width=0.75, classes=10)
    loaded = load_pretrained(spec, keras_files / f"notop_075_64.{suffix}")
    assert loaded.fresh == (
        "head.hidden.weight",
        "head.hidden.bias",
        "head.classifier.weight",
        "head.classifier.bias",
    )
    assert "no classifier" in loaded.notes[1]
    expected = np.load(keras_files / "notop_075_64.npz")
    x = torch.from_numpy(expected["x"]).permute(0, 3, 1, 2)
    features = torch.from_numpy(expected["y"]).permute(0, 3, 1, 2)
    with torch.no_grad():
        assert apart(loaded.module().backbone(x), features) < 1e-4
    assert inspect_weights(keras_files / f"notop_075_64.{suffix}").classes is None


def to_keras(name: str, tensor: Tensor) -> np.ndarray:
    array = tensor.numpy()
    if name.endswith("depthwise.conv.weight"):
        return array.transpose(2, 3, 0, 1)
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array


def write_keras_h5(path: Path, state: Mapping[str, Tensor], names: list[tuple[str, str]]) -> None:
    """The layout of the published files: byte attributes, ":0" names, layers without weights.

    `names` pairs our modules with Keras' layers, in order.
    """
    norm = {"weight": "gamma", "bias": "beta"}
    norm |= {"running_mean": "moving_mean", "running_var": "moving_variance"}
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"input_1", *(layer.encode() for _, layer in names), b"act"]
        for silent in ("input_1", "act"):
            file.create_group(silent).attrs["weight_names"] = np.zeros((0,), "S1")
        for module, layer in names:
            group, written = file.create_group(layer), []
            for part in [key for key in state if key.startswith(f"{module}.")]:
                own = part.removeprefix(f"{module}.")
                if own == "num_batches_tracked":
                    continue
                if module.endswith(".norm"):
                    title = norm[own]
                elif own == "bias":
                    title = "bias"
                else:
                    deep = module.endswith("depthwise.conv")
                    title = "depthwise_kernel" if deep else "kernel"
                array = to_keras(part, state[part])
                if layer == "predictions" and title == "kernel":
                    array = array[0, 0]  # V2's classifier is a dense layer
                group.create_dataset(f"{layer}/{title}:0", data=array)
                written.append(f"{layer}/{title}:0".encode())
            group.attrs["weight_names"] = written


def v1_layers() -> list[tuple[str, str]]:
    names = [("backbone.blocks.0.conv.conv", "conv1"), ("backbone.blocks.0.conv.norm", "conv1_bn")]
    for n in range(1, 14):
        for part, layer in (("depthwise", f"conv_dw_{n}"), ("pointwise", f"conv_pw_{n}")):
            names.append((f"backbone.blocks.{n}.{part}.conv", layer))
            names.append((f"backbone.blocks.{n}.{part}.norm", f"{layer}_bn"))
    return [*names, ("head.classifier", "conv_preds")]


def v2_layers() -> list[tuple[str, str]]:
    names = [("backbone.blocks.0.conv.conv", "Conv1"), ("backbone.blocks.0.conv.norm", "bn_Conv1")]
    for n in range(1, 18):
        prefix = "expanded_conv" if n == 1 else f"block_{n - 1}"
        for part in ("depthwise", "project") if n == 1 else ("expand", "depthwise", "project"):
            names.append((f"backbone.blocks.{n}.{part}.conv", f"{prefix}_{part}"))
            names.append((f"backbone.blocks.{n}.{part}.norm", f"{prefix}_{part}_BN"))
    names += [
        ("backbone.blocks.18.conv.conv", "Conv_1"),
        ("backbone.blocks.18.conv.norm", "Conv_1_bn"),
    ]
    return [*names, ("head.classifier", "predictions")]


def v3_small_layers() -> list[tuple[str, str]]:
    def normed(module: str, layer: str) -> list[tuple[str, str]]:
        return [(f"{module}.conv", layer), (f"{module}.norm", f"{layer}/BatchNorm")]

    names = normed("backbone.blocks.0.conv", "Conv")
    for n in range(1, 12):
        here, prefix = f"backbone.blocks.{n}", "expanded_conv" + (f"_{n - 1}" if n > 1 else "")
        for part in ("expand", "depthwise") if n > 1 else ("depthwise",):
            names += normed(f"{here}.{part}", f"{prefix}/{part}")
        if n not in (2, 3):
            names.append((f"{here}.squeeze.reduce", f"{prefix}/squeeze_excite/Conv"))
            names.append((f"{here}.squeeze.expand", f"{prefix}/squeeze_excite/Conv_1"))
        names += normed(f"{here}.project", f"{prefix}/project")
    names += normed("backbone.blocks.12.conv", "Conv_1")
    return [*names, ("head.hidden", "Conv_2"), ("head.classifier", "Logits")]


@pytest.mark.parametrize(
    ("model", "names"),
    [
        ("mobilenet_v1", v1_layers),
        ("mobilenet_v2", v2_layers),
        ("mobilenet_v3_small", v3_small_layers),
    ],
)
def test_keras_h5_as_published(
    model: str, names: Callable[[], list[tuple[str, str]]], tmp_path: Path
) -> None:
    spec = replace(MODELS[model], width=0.5)
    module = randomise(create(spec))
    for norm in [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]:
        norm.num_batches_tracked = torch.tensor(0)
    state = module.state_dict()
    write_keras_h5(tmp_path / "w.h5", state, names())
    loaded = load_pretrained(spec, tmp_path / "w.h5")
    assert loaded.state.keys() == state.keys()
    assert all(torch.equal(loaded.state[name], state[name]) for name in state)
    assert (loaded.spec.padding, loaded.spec.bn_eps) == ("same", 1e-3)
    assert loaded.preprocess == keras_rule(224)


@pytest.mark.parametrize("how", ["external link", "external dataset", "huge"])
def test_keras_h5_cannot_reach_out(how: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(4 * 27 * 16))
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.attrs["layer_names"] = [b"conv1"]
        group = file.create_group("conv1")
        group.attrs["weight_names"] = [b"kernel:0"]
        if how == "external link":
            group["kernel:0"] = h5py.ExternalLink(str(tmp_path / "secret"), "/x")
        elif how == "external dataset":
            where = [(str(tmp_path / "secret"), 0, 4 * 27 * 16)]
            group.create_dataset("kernel:0", (3, 3, 3, 16), "f4", external=where)
        else:
            group.create_dataset("kernel:0", (3, 3, 2**20, 2**20), "f4", chunks=(1, 1, 64, 64))
    with pytest.raises(WeightsError, match=r"w\.h5: cannot be read as Keras weights"):
        read_weights(tmp_path / "w.h5")


# --------------------------------------------------------------------------------- our own


def test_a_run_of_this_package(tmp_path: Path) -> None:
    spec = ModelSpec(name="mobilenet_v1", width=0.25, classes=3, padding="same", bn_eps=1e-3)
    module = randomise(create(spec))
    contract = keras_rule(64)
    checkpoint.save_model(
        tmp_path,
        spec,
        module.state_dict(),
        preprocess=contract.to_dict(),
        labels=["a", "b", "c"],
        provenance={},
    )
    wanted = replace(MODELS["mobilenet_v1"], width=0.25, classes=3)
    loaded = load_pretrained(wanted, tmp_path / "model.safetensors")
    x = pictures(64)
    assert torch.equal(answer(loaded.module(), x), answer(module, x))
    assert (loaded.labels, loaded.preprocess) == (("a", "b", "c"), contract)
    assert inspect_weights(tmp_path / "model.safetensors").spec == loaded.spec == spec
    smaller = load_pretrained(wanted, tmp_path / "model.safetensors", size=48)
    assert smaller.preprocess == keras_rule(48)

    other = load_pretrained(replace(wanted, classes=2), tmp_path / "model.safetensors")
    assert (other.labels, len(other.fresh)) == (None, 2)

    save_file(randomise(create(spec), seed=1).state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match="not the weights that"):
        load_pretrained(wanted, tmp_path / "model.safetensors")
    (tmp_path / "model.json").unlink()
    alone = load_pretrained(wanted, tmp_path / "model.safetensors")
    assert alone.spec == wanted
    assert "no model.json beside" in alone.notes[0]


# ------------------------------------------------------------------------- the classifier


def test_a_replaced_classifier_is_fresh_and_the_rest_is_not(tmp_path: Path) -> None:
    theirs, spec = build_torchvision("v3_small")
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    whole = load_pretrained(spec, tmp_path / "w.pth")
    loaded = load_pretrained(replace(spec, classes=4), tmp_path / "w.pth")
    assert loaded.fresh == ("head.classifier.weight", "head.classifier.bias")
    assert loaded.labels is None
    assert loaded.state.keys() == whole.state.keys() - set(loaded.fresh)
    assert all(torch.equal(loaded.state[name], whole.state[name]) for name in loaded.state)
    torch.manual_seed(0)
    first = loaded.module().head.classifier.weight
    second = loaded.module().head.classifier.weight
    assert first.shape == (4, 1024, 1, 1)
    assert not torch.equal(first, second)


def test_output_stride_and_dropout_stay_the_callers(tmp_path: Path) -> None:
    theirs, spec = build_torchvision("v3_small")
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    wanted = replace(spec, output_stride=16, dropout=0.5)
    assert load_pretrained(wanted, tmp_path / "w.pth").spec == wanted


# --------------------------------------------------------------------------- what is refused


@pytest.fixture
def v2_file(tmp_path: Path) -> Path:
    theirs, _ = build_torchvision("v2_050")
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    return tmp_path / "w.pth"


def test_another_width_names_the_tensors_and_what_there_is(v2_file: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        load_pretrained(MODELS["mobilenet_v2"], v2_file)
    message = str(caught.value)
    assert "does not fit mobilenet_v2 at width 1" in message
    assert "the file holds mobilenet_v2 at width 0.5" in message
    assert "'features.0.0.weight' has shape (16, 3, 3, 3), expected (32, 3, 3, 3)" in message
    with pytest.raises(WeightsError, match=r"does not fit mobilenet_v3_small .* is missing"):
        load_pretrained(MODELS["mobilenet_v3_small"], v2_file)


@pytest.mark.parametrize("change", ["missing", "unexpected", "bias only"])
def test_every_tensor_must_match(change: str, v2_file: Path) -> None:
    state = torch.load(v2_file, weights_only=True)
    if change == "missing":
        del state["features.3.conv.1.1.running_var"]
    elif change == "unexpected":
        state["features.3.extra.weight"] = torch.zeros(2)
    else:
        del state["classifier.1.bias"]
    torch.save(state, v2_file)
    named = {
        "missing": r"'features\.3\.conv\.1\.1\.running_var' is missing",
        "unexpected": r"'features\.3\.extra\.weight' is unexpected",
        "bias only": r"'classifier\.1\.bias' is missing",
    }[change]
    with pytest.raises(WeightsError, match=named):
        load_pretrained(replace(MODELS["mobilenet_v2"], width=0.5), v2_file)


@pytest.mark.parametrize("wrapper", ["state_dict", "model", None])
@pytest.mark.parametrize("old_format", [False, True])
def test_how_training_scripts_save(v2_file: Path, wrapper: str | None, old_format: bool) -> None:
    spec = replace(MODELS["mobilenet_v2"], width=0.5)
    expected = load_pretrained(spec, v2_file).state
    state: Any = {f"module.{k}": v for k, v in torch.load(v2_file, weights_only=True).items()}
    state = {wrapper: state, "epoch": 3} if wrapper else state
    torch.save(state, v2_file, _use_new_zipfile_serialization=not old_format)
    loaded = load_pretrained(spec, v2_file).state
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)


class Trap:
    """Unpickling this would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("how", ["zip", "old", "pickle"])
def test_pickled_code_is_refused_and_not_run(how: str, tmp_path: Path) -> None:
    sprung, path = tmp_path / "sprung", tmp_path / "w.pth"
    content = {"features.0.0.weight": Trap(sprung)}
    if how == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(WeightsError, match="refused"):
        read_weights(path)
    assert not sprung.exists()
    torch.load(path, weights_only=False) if how != "pickle" else pickle.loads(path.read_bytes())
    assert sprung.exists()  # the trap works where nobody looks


@pytest.mark.parametrize("kind", ["torch", "old torch", "safetensors", "h5", "keras"])
@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.99])
def test_truncated_files(kind: str, part: float, tmp_path: Path) -> None:
    spec = replace(MODELS["mobilenet_v1"], width=0.25)
    state = randomise(create(spec)).state_dict()
    whole = tmp_path / "whole"
    if kind == "safetensors":
        save_file(state, whole)
    elif kind.endswith("torch"):
        torch.save(state, whole, _use_new_zipfile_serialization=kind == "torch")
    else:
        write_keras_h5(whole, state, v1_layers())
        if kind == "keras":
            content = whole.read_bytes()
            with zipfile.ZipFile(whole, "w") as archive:
                archive.writestr("model.weights.h5", content)
    load_pretrained(spec, whole)
    content = whole.read_bytes()
    (tmp_path / "cut").write_bytes(content[: int(len(content) * part)])
    with pytest.raises(WeightsError, match="cut"):
        load_pretrained(spec, tmp_path / "cut")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"\x1f\x8b\x08" + bytes(100), "gzip"),
        (b"nothing like it", "not known"),
    ],
)
def test_other_files(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=reason):
        read_weights(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"layer1.0.weight": torch.zeros(1)}, "not the weights of a MobileNet"),
        ({"features.0.0.weight": torch.zeros(1, dtype=torch.int8)}, "quantized"),
        ({"features.0.0.weight": torch.tensor([float("nan")])}, "NaN"),
        ({"features.0.0.weight": 3}, "not a state_dict"),
        ([torch.zeros(1)], "not a state_dict"),
    ],
)
def test_other_states(state: Any, reason: str, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=reason):
        read_weights(tmp_path / "w.pth")


def test_a_published_name_must_have_the_published_content(tmp_path: Path) -> None:
    theirs, spec = build_torchvision("v2")
    path = tmp_path / "mobilenet_v2-b0353104.pth"
    torch.save(theirs.state_dict(), path)
    with pytest.raises(WeightsError, match="not the published file of that name"):
        load_pretrained(spec, path)


def test_paths_that_are_not_files(tmp_path: Path) -> None:
    spec = MODELS["mobilenet_v2"]
    with pytest.raises(WeightsError, match="a folder"):
        load_pretrained(spec, tmp_path)
    with pytest.raises(WeightsError, match="no such file"):
        load_pretrained(spec, tmp_path / "none.pth")
    with pytest.raises(WeightsError, match="neither a file nor a known name"):
        load_pretrained(spec, "imagnet")


@pytest.mark.parametrize("name", MODELS)
def test_recognise_odd_widths(name: str) -> None:
    spec = replace(MODELS[name], width=0.83, classes=3)
    with torch.device("meta"):
        state = create(spec).state_dict()
    kept = {name: value for name, value in state.items() if "num_batches" not in name}
    seen = recognise(WeightsFile(path=Path("w"), kind="torch", publisher="mobilenet", tensors=kept))
    assert seen is not None
    assert seen.network() == spec.network()


def test_reading_needs_no_json(tmp_path: Path) -> None:
    """A stray model.json of another program beside a foreign file changes nothing."""
    theirs, spec = build_torchvision("v3_small")
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    (tmp_path / "model.json").write_text(json.dumps({"format": "other"}))
    assert load_pretrained(spec, tmp_path / "w.pth").spec == spec
