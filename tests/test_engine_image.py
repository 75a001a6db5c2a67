"""Pictures prepared by the native engine: the same bits as by Pillow."""

from pathlib import Path

import numpy as np
import PIL
import pytest

from mobilenet.errors import UsageError
from mobilenet.flat import UNSUPPORTED_RESIZE, Card, EngineFile, write_engine
from mobilenet.preprocess import Preprocess, decode, keras, preprocess, timm, torchvision
from mobilenet.program import Builder, Filter
from mobilenet.runtime.engine import open_model, plan

native = pytest.importorskip("mobilenet._engine", reason="the native engine was not built")
skimage = pytest.importorskip("skimage")

FOLDER = Path(skimage.__file__).parent / "data"
PHOTOGRAPHS = (  # of all modes and shapes that the package itself brings
    "astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "grass.png",
    "hubble_deep_field.jpg", "ihc.png", "motorcycle_left.png", "retina.jpg", "rocket.jpg",
    "text.png",
)  # fmt: skip
RULES = (
    torchvision(224),
    torchvision(96),
    torchvision(64, resize=50),  # padded with black
    torchvision(256, resize=400),
    timm(160, crop_pct=0.95),
    timm(96, crop_pct=1.0),
    keras(224),
    keras(33),
    Preprocess(size=75, resize_mode="stretch", interpolation="bicubic"),
)
# where a picture shrinks far more in height than in width, Pillow 13 resizes the height first
needs_pillow_13 = pytest.mark.skipif(
    int(PIL.__version__.partition(".")[0]) < 13, reason="an earlier Pillow's order of passes"
)


def prepared(picture: np.ndarray, rules: Preprocess) -> np.ndarray:
    """By an engine for a file that states these rules; what its network is does not matter."""
    weight = np.zeros((16, 3, 1, 1), np.float32)
    builder = Builder()
    value = builder.pool(builder.conv(0, Filter(weight=weight, bias=weight[:, 0, 0, 0])))
    card = Card(
        mean=rules.mean,
        std=rules.std,
        resize=rules.resize or 0,
        filter=("bilinear", "bicubic").index(rules.interpolation),
    )
    file = EngineFile(
        network=builder.program({"logits": value}),
        precision="float32",
        height=rules.size,
        width=rules.size,
        card=card,
    )
    return native.prepare(plan(open_model(write_engine(file))), np.ascontiguousarray(picture))


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_photographs(name: str) -> None:
    picture = np.asarray(decode(FOLDER / name))
    for rules in RULES:
        np.testing.assert_array_equal(prepared(picture, rules), preprocess(picture, rules))


@needs_pillow_13
def test_random_sizes() -> None:
    rng = np.random.default_rng(0)
    for trial in range(300):
        height, width = rng.integers(1, 90, 2)
        picture = rng.integers(0, 256, (height, width, 3), np.uint8)
        size, filter = int(rng.integers(1, 70)), ("bilinear", "bicubic")[trial % 2]
        if trial % 3:
            resize = int(rng.integers(1, 90))
            rules = Preprocess(
                size=size, resize_mode="shorter", resize=resize, interpolation=filter
            )
        else:
            rules = Preprocess(size=size, resize_mode="stretch", interpolation=filter)
        np.testing.assert_array_equal(prepared(picture, rules), preprocess(picture, rules))


@needs_pillow_13
@pytest.mark.parametrize("shape", [(3, 60_000), (40_000, 3), (1, 20_000), (5000, 1)])
def test_pictures_too_long_to_be_resized_whole(shape: tuple[int, int]) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8)
    for rules in (torchvision(64, resize=300), timm(96), keras(48)):
        np.testing.assert_array_equal(prepared(picture, rules), preprocess(picture, rules))


def test_what_is_no_picture_is_refused(small_engine: Path) -> None:
    engine = plan(open_model(str(small_engine / "model.mbn")))
    with pytest.raises(TypeError):
        native.prepare(engine, np.zeros((4, 4), np.uint8))
    with pytest.raises(TypeError):
        native.prepare(engine, np.zeros((4, 4, 3), np.float32))
    for shape in ((4, 4, 4), (0, 4, 3), (4, 0, 3)):
        with pytest.raises(native.EngineError):
            native.prepare(engine, np.zeros(shape, np.uint8))


def test_a_crop_that_only_python_does_is_refused() -> None:
    rules = Preprocess(size=32, resize_mode="shorter", resize=UNSUPPORTED_RESIZE)
    with pytest.raises(native.EngineError, match="cropped before"):
        prepared(np.zeros((40, 40, 3), np.uint8), rules)


def test_planning_what_cannot_be(small_engine: Path) -> None:
    model = open_model(str(small_engine / "model.mbn"))
    for options, message in (
        ({"height": -1}, "negative"),
        ({"threads": -1}, "negative"),
        ({"isa": "abacus"}, "abacus"),
        ({"width": 1 << 20}, "1048576"),
    ):
        with pytest.raises(UsageError, match=message):
            plan(model, **options)
