"""Weights files: what `mobilenet.weights` reads, and the library that trained them to run them."""

import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import CheckpointError, WeightsError
from ..models import ModelSpec
from ..program import Floats
from ..weights import WeightsFile, inspect_weights, load_pretrained, read_weights
from .source import Original, Source

if TYPE_CHECKING:
    import torch

Maker = Callable[[WeightsFile, ModelSpec], "torch.nn.Module | None"]


def read_weights_file(path: Path) -> Source:
    """Read weights of torchvision, timm, Keras or Hugging Face. Raises WeightsError for what is
    damaged, refused, none of these networks or without a classifier."""
    seen = inspect_weights(path)
    if seen.publisher == "mobilenet":
        raise WeightsError(f"{path}: weights of this package; its folder is a run already")
    if seen.classes is None:
        raise WeightsError(
            f"{path}: {seen.spec.name} without a classifier: it answers nothing yet; start from it "
            "with mobilenet train --weights"
        )
    loaded = load_pretrained(seen.spec, path)
    original = _original(path, read_weights(path), seen.spec, loaded.preprocess.size)
    return Source(
        kind=seen.kind,
        publisher=seen.publisher,
        spec=loaded.spec,
        state=loaded.module().state_dict(),
        preprocess=loaded.preprocess,
        labels=loaded.labels,
        facts=loaded.notes if loaded.entry else (),
        assumed=() if loaded.entry else loaded.notes,
        original=original if isinstance(original, Original) else None,
        unchecked=original if isinstance(original, str) else None,
        published=loaded.entry and loaded.entry.name,
    )


def _original(path: Path, file: WeightsFile, spec: ModelSpec, size: int) -> Original | str:
    """The publisher's own network with the file's weights, or why there is none."""
    publisher = file.publisher
    if publisher not in _MODULES:
        return f"{publisher}'s networks are not run here"
    if find_spec(publisher) is None:
        return f"{publisher} is not installed"
    if publisher == "keras":
        answer = partial(_keras_answers, path, spec)
    else:
        with warnings.catch_warnings():  # of the library's own affairs
            warnings.simplefilter("ignore")
            module = _MAKERS[publisher](file, spec)
        if module is None:
            return f"{publisher} has no {spec.name} of width {spec.width:g}"
        _fill(path, module, file.tensors)
        answer = partial(_module_answers, module)
    return Original(name=f"{publisher} {version(publisher)}", size=size, answer=answer)


def _torchvision(file: WeightsFile, spec: ModelSpec) -> "torch.nn.Module | None":
    from torchvision import models

    if spec.name == "mobilenet_v2":
        return models.mobilenet_v2(width_mult=spec.width, num_classes=spec.classes)
    makers = {
        "mobilenet_v3_large": models.mobilenet_v3_large,
        "mobilenet_v3_small": models.mobilenet_v3_small,
    }
    if spec.width != 1 or spec.name not in makers:
        return None  # its constructors pass no width on
    return makers[spec.name](num_classes=spec.classes)


def _timm(file: WeightsFile, spec: ModelSpec) -> "torch.nn.Module | None":
    import timm

    name = spec.name.removesuffix("_minimalistic").replace("mobilenet_v", "mobilenetv")
    minimal = "_minimal" if spec.name.endswith("_minimalistic") else ""
    ported = "tf_" if spec.padding == "same" else ""
    full = f"{ported}{name}{minimal}_{round(100 * spec.width):03}"
    if not timm.is_model(full):
        return None
    return timm.create_model(full, pretrained=False, num_classes=spec.classes)


_MAKERS: Mapping[str, Maker] = {"torchvision": _torchvision, "timm": _timm}
_MODULES = (*_MAKERS, "keras")


def _fill(path: Path, module: "torch.nn.Module", tensors: "Mapping[str, Any]") -> None:
    missing, unexpected = module.load_state_dict(dict(tensors), strict=False)
    lacking = [name for name in missing if not name.endswith("num_batches_tracked")]
    if lacking or unexpected:
        raise WeightsError(f"{path}: the library's own network lacks {[*lacking, *unexpected][:3]}")
    module.eval()


def _module_answers(module: "torch.nn.Module", images: Floats) -> Floats:
    import torch

    with torch.inference_mode():
        return module(torch.from_numpy(images)).numpy()


def _keras_answers(path: Path, spec: ModelSpec, images: Floats) -> Floats:
    """In another process, as Keras' backend is chosen when it is imported."""
    environment = dict(os.environ)
    if find_spec("tensorflow") is None:
        environment["KERAS_BACKEND"] = "torch"
    script = Path(__file__).with_name("keras_answers.py")
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder) / "images.npy", Path(folder) / "logits.npy"
        np.save(given, images)
        done = subprocess.run(
            [
                sys.executable,
                *(str(script), str(path), spec.name, str(spec.width), str(spec.classes)),
                *(str(given), str(found)),
            ],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            reason = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
            raise CheckpointError(f"{path}: Keras cannot run it: {reason[0]}")
        return np.load(found)
