"""Batches: the same for any number of threads, bounded, exact in evaluation, and closed cleanly."""

import io
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mobilenet.augment import Augment, build
from mobilenet.data import ArraySplit, FileSplit, Picture, batches, epoch_order, sample_rng
from mobilenet.data.reader import BATCHES_AHEAD, in_order
from mobilenet.errors import UsageError
from mobilenet.preprocess import ImageError, decode, preprocess, torchvision


def photograph(width: int, height: int) -> Image.Image:
    """Smooth waves and some grain, as a camera would see."""
    y, x = np.mgrid[:height, :width] / 40
    planes = [np.sin(x * (1 + c / 3)) + np.cos(y * (1.5 - c / 4)) for c in range(3)]
    grain = np.random.default_rng(width * height).normal(0, 3, (height, width, 3))
    pixels = np.stack(planes, axis=2) * 55 + 128 + grain
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def jpeg(image: Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> FileSplit:
    """43 pictures, JPEG and PNG, of several sizes."""
    folder = tmp_path_factory.mktemp("files")
    paths = []
    for index in range(43):
        image = photograph(60 + 7 * (index % 9), 50 + 5 * (index % 7))
        path = folder / f"{index}.{'png' if index % 3 else 'jpg'}"
        image.save(path)
        paths.append(str(path))
    return FileSplit(paths, np.arange(43) % 4)


# Order and randomness


def test_order_and_random_numbers_are_functions_of_their_arguments() -> None:
    # pinned: a resumed run must go on as it would have, whatever has been upgraded since
    assert epoch_order(10, seed=1, epoch=2).tolist() == [4, 2, 0, 6, 1, 5, 9, 8, 7, 3]
    assert sample_rng(1, 2, 3).bit_generator.random_raw(2).tolist() == [
        13637179162896307606,
        3186157565435691869,
    ]
    orders = {tuple(epoch_order(50, seed=s, epoch=e)) for s in range(4) for e in range(4)}
    assert len(orders) == 16
    assert all(sorted(order) == list(range(50)) for order in orders)
    draws = {sample_rng(s, e, i).random() for s in range(5) for e in range(5) for i in range(5)}
    assert len(draws) == 125
    for wrong in (-1, 2**64):
        with pytest.raises(UsageError, match="seed"):
            epoch_order(3, seed=wrong, epoch=0)


# Batches


def read_all(split, **options) -> list[tuple[bytes, list[int], list[int]]]:
    pre = torchvision(32)
    return [
        (batch.images.tobytes(), batch.labels.tolist(), batch.indices.tolist())
        for batch in batches(split, pre, batch_size=10, **options)
    ]


@pytest.mark.parametrize("policy", ["none", "trivial", "rand"])
def test_any_number_of_threads_gives_the_same_batches(files: FileSplit, policy) -> None:
    augment = Augment(policy=policy, shift=0.1, erase=0.5)
    options = {
        "transform": build(augment, torchvision(32)),
        "order": epoch_order(43, seed=5, epoch=1),
        "seed": 5,
        "epoch": 1,
    }
    alone = read_all(files, workers=0, **options)
    assert [len(labels) for _, labels, _ in alone] == [10, 10, 10, 10, 3]
    assert read_all(files, workers=2, **options) == alone
    assert read_all(files, workers=8, **options) == alone
    assert read_all(files, workers=2, **{**options, "epoch": 2}) != alone
    assert read_all(files, workers=2, **{**options, "seed": 6}) != alone


def test_a_picture_is_augmented_alike_wherever_it_stands(files: FileSplit) -> None:
    pre = torchvision(32)
    transform = build(Augment(), pre)
    forwards, backwards = np.arange(43), np.arange(43)[::-1]
    seen: list[dict[int, bytes]] = []
    for order, size in ((forwards, 43), (backwards, 7)):
        seen.append({})
        for batch in batches(files, pre, batch_size=size, order=order, transform=transform):
            seen[-1] |= {
                int(index): image.tobytes()
                for index, image in zip(batch.indices, batch.images, strict=True)
            }
    assert seen[0] == seen[1]


def test_without_a_transform_it_is_the_contract(files: FileSplit) -> None:
    from mobilenet.preprocess import normalise

    pre = torchvision(48)
    order = np.array([5, 3, 40, 3])
    (batch,) = batches(files, pre, batch_size=8, order=order, workers=2)
    expected = np.stack([preprocess(files.paths[index], pre) for index in order])
    np.testing.assert_array_equal(normalise(batch.images, pre), expected)
    assert batch.labels.tolist() == files.labels[order].tolist()
    assert batch.labels.dtype == batch.indices.dtype == np.int64


def test_the_last_batch_may_be_dropped(files: FileSplit) -> None:
    sizes = [len(labels) for _, labels, _ in read_all(files, drop_last=True)]
    assert sizes == [10, 10, 10, 10]
    assert list(batches(files.subset([]), torchvision(32), batch_size=4, workers=2)) == []
    for options in ({"batch_size": 0}, {"batch_size": 4, "workers": -1}):
        with pytest.raises(UsageError, match="expected at least"):
            batches(files, torchvision(32), **options)


class Watched(ArraySplit):
    """Counts the pictures begun; `taken` is set by whoever takes the batches."""

    def __init__(self, count: int) -> None:
        super().__init__("watched", np.zeros((count, 8, 8), np.uint8), np.zeros(count))
        self.lock = threading.Lock()
        self.begun = 0

    def read(self, index: int) -> Image.Image:
        with self.lock:
            self.begun += 1
        return super().read(index)


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(0, 150),
    size=st.integers(1, 40),
    workers=st.integers(1, 8),
    pauses=st.lists(st.booleans(), min_size=1, max_size=6),
)
def test_batches_in_flight_are_bounded(count, size, workers, pauses) -> None:
    split = Watched(count)
    taken = 0
    stream = batches(split, torchvision(8), batch_size=size, workers=workers)
    for number, batch in enumerate(stream):
        taken += len(batch.labels)
        if pauses[number % len(pauses)]:
            time.sleep(0.002)  # let the threads run as far ahead as they may
        with split.lock:
            assert split.begun - taken <= BATCHES_AHEAD * max(size, 8)
    assert taken == split.begun == count


@settings(max_examples=40, deadline=None)
@given(count=st.integers(0, 60), workers=st.integers(0, 6), ahead=st.integers(1, 20))
def test_in_order_holds_no_more_than_it_may(count, workers, ahead) -> None:
    taken = handed = 0
    most = 0

    def items():
        nonlocal taken, most
        for item in range(count):
            taken += 1
            most = max(most, taken - handed)
            yield item

    results = []
    for result in in_order(lambda item: item * item, items(), workers=workers, ahead=ahead):
        handed += 1
        results.append(result)
    assert results == [item * item for item in range(count)]
    assert most <= (ahead if workers else 1)


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_a_damaged_file_is_named(files: FileSplit, tmp_path: Path, workers: int) -> None:
    data = jpeg(photograph(200, 150))
    bad = tmp_path / "bad one.jpg"
    bad.write_bytes(data[: len(data) // 2])
    split = FileSplit([*files.paths[:20], str(bad), *files.paths[20:]], np.zeros(44))
    for transform in (None, build(Augment(), torchvision(32))):
        stream = batches(
            split, torchvision(32), batch_size=10, workers=workers, transform=transform
        )
        assert len(next(stream).labels) == len(next(stream).labels) == 10
        with pytest.raises(ImageError, match=r"bad one\.jpg: truncated or damaged JPEG"):
            next(stream)
    assert_no_threads()


def test_an_error_of_the_transform_says_which_file(files: FileSplit) -> None:
    def transform(picture: Picture, rng: np.random.Generator) -> np.ndarray:
        raise ZeroDivisionError("ours")

    stream = batches(files, torchvision(32), batch_size=4, workers=2, transform=transform)
    with pytest.raises(ZeroDivisionError) as caught:
        next(stream)
    assert caught.value.__notes__ == [f"while reading {files.paths[0]}"]
    assert_no_threads()


def assert_no_threads() -> None:
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith("mobilenet-read")]


def test_closing_early_stops_the_threads(files: FileSplit) -> None:
    for workers in (1, 3):
        stream = batches(files, torchvision(32), batch_size=5, workers=workers)
        next(stream)
        stream.close()
        assert_no_threads()
    for _ in batches(files, torchvision(32), batch_size=5, workers=3):
        break
    del _
    assert_no_threads()


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_interrupting_ends_at_once() -> None:
    script = (
        "import numpy as np, signal\n"
        "from mobilenet.data import ArraySplit, batches\n"
        "from mobilenet.preprocess import torchvision\n"
        # what a shell starts in the background ignores Ctrl-C from its birth
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "split = ArraySplit('x', np.zeros((100_000, 28, 28), np.uint8), np.zeros(100_000))\n"
        "for batch in batches(split, torchvision(224), batch_size=64, workers=4):\n"
        "    print(len(batch.labels), flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "64\n"
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode not in (0, None)
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert errors.count("Traceback") == 1


# Pictures decoded no finer than needed


def turned_jpeg(image: Image.Image, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return jpeg(image, exif=exif)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("turbo", [True, False])
def test_a_scaled_decode_shows_the_same(orientation: int, turbo: bool, monkeypatch) -> None:
    if not turbo:
        monkeypatch.setitem(sys.modules, "simplejpeg", None)
    data = turned_jpeg(photograph(640, 480), orientation)
    whole = decode(data)
    picture = Picture(data)
    assert picture.size == whole.size
    for box in ((0, 0, *whole.size), (16, 24, 416, 432), (200, 96, 304, 192)):
        for size in (24, 60, 100, 300):
            pixels = picture.crop(box, size)
            assert pixels.flags.c_contiguous
            width, height = box[2] - box[0], box[3] - box[1]
            if min(width, height) < 2 * size:  # nothing to save: every pixel is there
                np.testing.assert_array_equal(pixels, np.asarray(whole.crop(box)))
                continue
            shrink = next(scale for scale in (8, 4, 2) if scale * size <= min(width, height))
            assert pixels.shape == (height // shrink, width // shrink, 3)
            bilinear = Image.Resampling.BILINEAR
            exact = np.asarray(whole.crop(box).resize((size, size), bilinear)).astype(int)
            found = np.asarray(Image.fromarray(pixels).resize((size, size), bilinear))
            assert np.abs(found - exact).mean() < 2


@settings(max_examples=60, deadline=None)
@given(
    orientation=st.integers(1, 8),
    side=st.tuples(st.integers(200, 260), st.integers(200, 260)),
    corner=st.tuples(st.integers(0, 90), st.integers(0, 90)),
    length=st.integers(50, 110),
    size=st.integers(6, 60),
)
def test_a_scaled_crop_is_where_it_should_be(orientation, side, corner, length, size) -> None:
    # red grows with x and green with y in the upright picture, so that colours tell the place
    x, y = np.meshgrid(np.arange(side[0]), np.arange(side[1]))
    upright = Image.fromarray(np.stack([x, y, x * 0], axis=2).clip(0, 255).astype(np.uint8))
    stored = [upright.transpose(t) for t in Image.Transpose] + [upright]
    data = next(
        data
        for data in (turned_jpeg(image, orientation) for image in stored)
        if decode(data).size == upright.size
        if np.abs(np.asarray(decode(data)).astype(int) - np.asarray(upright)).mean() < 4
    )
    box = (*corner, corner[0] + length, corner[1] + length)
    pixels = Picture(data).crop(box, size).astype(float)
    assert min(pixels.shape[:2]) >= min(size, length)
    scale = max(scale for scale in (8, 4, 2, 1) if scale <= max(length // size, 1))
    for channel in (0, 1):
        centre = corner[channel] + (length - 1) / 2
        assert abs(pixels[..., channel].mean() - centre) <= scale / 2 + 1.5


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_modes_of_jpeg(mode: str) -> None:
    data = jpeg(photograph(120, 90).convert(mode), progressive=True)
    pixels = Picture(data).crop((10, 20, 110, 80), 60)
    np.testing.assert_array_equal(pixels, np.asarray(decode(data))[20:80, 10:110])


def test_other_formats_and_decoded_images() -> None:
    image = photograph(90, 60)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    for picture in (Picture(buffer.getvalue()), Picture.from_image(image)):
        assert picture.size == (90, 60)
        np.testing.assert_array_equal(
            picture.crop((5, 6, 77, 58), 8), np.asarray(image)[6:58, 5:77]
        )


def test_damaged_jpegs_are_decoded_or_refused() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    originals = [
        jpeg(photograph(64, 48), exif=exif),
        jpeg(photograph(64, 48), progressive=True),
        jpeg(photograph(64, 48).convert("L")),
    ]
    rng = np.random.default_rng(0)
    decoded = refused = 0
    for attempt in range(1500):
        data = bytearray(originals[attempt % 3])
        for _ in range(int(rng.integers(1, 4))):
            at = int(rng.integers(len(data) if rng.random() < 0.4 else 300))
            if rng.random() < 0.7:
                data[at] ^= 1 << int(rng.integers(4))
            else:
                del data[at : at + 3]
        try:
            picture = Picture(bytes(data), "mutated")
            if picture.size[0] * picture.size[1] > 2**24:
                continue
            pixels = picture.crop((0, 0, *picture.size), 8)
            assert pixels.dtype == np.uint8
            assert pixels.shape[2] == 3
            decoded += 1
        except ImageError:
            refused += 1
    assert min(decoded, refused) > 100
