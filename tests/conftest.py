"""A small trained-looking run and its export, made once for all tests that need one."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

LABELS = ("daisy", "rose", "tulip", "poppy", "lily", "iris", "aster")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """torch on one thread: networks as small as the tests' are slowed down by more, the more so on
    a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory, pictures: list[Path]) -> Path:
    """A run folder: V3-Small at width 0.35, 48 pixels, 7 classes that `pictures` all have."""
    import torch

    from mobilenet.checkpoint import save_model
    from mobilenet.models import MODELS
    from mobilenet.networks import random_network
    from mobilenet.preprocess import preprocess, torchvision

    contract = torchvision(48)
    spec = replace(MODELS["mobilenet_v3_small"], width=0.35, classes=len(LABELS))
    network = random_network(spec, contract.size)
    with torch.no_grad():
        images = np.stack([preprocess(path, contract) for path in pictures])
        logits = network(torch.from_numpy(images))
        # a random network likes one class whatever it sees: centre and spread its answers
        head, centre = network.head.classifier, logits.mean(0)
        scale = 3 / (logits - centre).std()
        head.weight *= scale
        head.bias.copy_(scale * (head.bias - centre))
    run = tmp_path_factory.mktemp("small") / "run"
    save_model(
        run,
        spec,
        network.state_dict(),
        preprocess=contract.to_dict(),
        labels=LABELS,
        provenance={"seed": 0},
    )
    return run


@pytest.fixture(scope="session")
def small_int8(small_run: Path, pictures: list[Path]) -> Path:
    """`small_run` in int8, calibrated on `pictures`, in a folder beside it."""
    from mobilenet.checkpoint import load_model, save_model
    from mobilenet.integer.store import encode_quantised
    from mobilenet.preprocess import Preprocess, preprocess
    from mobilenet.program import program_of
    from mobilenet.quantize import quantise_program

    loaded = load_model(small_run)
    network, contract = loaded.module(), Preprocess.from_dict(loaded.preprocess)
    images = np.stack([preprocess(path, contract) for path in pictures])
    quantised = quantise_program(program_of(network), [images])
    run = small_run.parent / "int8"
    save_model(
        run,
        loaded.spec,
        network.state_dict(),
        preprocess=loaded.preprocess,
        labels=loaded.labels,
        provenance=loaded.provenance,
        quantised=encode_quantised(quantised),
    )
    return run


@pytest.fixture(scope="session")
def small_export(small_run: Path) -> Path:
    """`small_run` exported to ONNX, in a folder beside it. Copy it before changing it."""
    from mobilenet.export import export

    return export(small_run, to="onnx", out=small_run.parent / "exported").path


@pytest.fixture(scope="session")
def small_engine(small_run: Path) -> Path:
    """`small_run` exported for the native engine. Copy it before changing it."""
    from mobilenet.export import export

    return export(small_run, to="engine", out=small_run.parent / "engine").path


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Forty smooth pictures of several shapes, as PNG files."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(1)
    paths = []
    for index in range(40):
        coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8))
        path = folder / f"{index:02}.png"
        coarse.resize((40 + 3 * index, 90 - index), Image.Resampling.BICUBIC).save(path)
        paths.append(path)
    return paths
