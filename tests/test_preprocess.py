"""The preprocessing contract, against torchvision and timm, pinned by golden tensors.

`python tests/test_preprocess.py` writes the golden file anew: only where the contract changes.
"""

import hashlib
import importlib
import io
import json
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mobilenet.errors import DataError, UsageError
from mobilenet.preprocess import (
    HALF,
    IMAGENET_MEAN,
    IMAGENET_STD,
    ImageError,
    Preprocess,
    crop_and_resize,
    decode,
    keras,
    normalise,
    preprocess,
    slim,
    timm,
    torchvision,
)

pictures_module = importlib.import_module("mobilenet.preprocess.pictures")
GOLDEN = Path(__file__).parent / "golden_preprocess.json"


def picture(width: int, height: int, channels: int = 3, bits: int = 8) -> np.ndarray:
    """(height, width, channels) of slopes and waves, made of integers alone."""
    y, x = np.mgrid[:height, :width].astype(np.int64)
    top = 2**bits - 1
    planes = [
        (x * (5 + 3 * c) * top // 97 + y * (7 + c) * top // 83 + x * y * c * top // 911) % (top + 1)
        for c in range(channels)
    ]
    return np.stack(planes, axis=2).astype(np.uint8 if bits == 8 else np.uint16)


def encode(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def rgb(width: int = 40, height: int = 30) -> Image.Image:
    return Image.fromarray(picture(width, height))


def palette_with_alpha() -> bytes:
    image = Image.fromarray(picture(40, 30, 1)[..., 0] // 16, "L").convert("P")
    image.putpalette([value % 256 for value in range(0, 48 * 5, 5)])
    return encode(image, "PNG", transparency=bytes(range(255, -1, -17)))


# Lossless, so that only our own rules and Pillow's resize are pinned
GOLDEN_CASES: dict[str, Callable[[], bytes]] = {
    "rgb": lambda: encode(rgb(53, 41), "PNG"),
    "rgb_tall": lambda: encode(rgb(33, 71), "BMP"),
    "grey": lambda: encode(Image.fromarray(picture(64, 48, 1)[..., 0]), "PNG"),
    "sixteen_bit": lambda: encode(Image.fromarray(picture(37, 52, 1, 16)[..., 0]), "PNG"),
    "palette_alpha": palette_with_alpha,
    "alpha": lambda: encode(Image.fromarray(picture(40, 40, 4)), "PNG"),
    "cmyk": lambda: encode(Image.fromarray(picture(45, 31, 4), "CMYK"), "TIFF"),
    "exif_6": lambda: encode(rgb(60, 40), "PNG", exif=exif(6)),
}
GOLDEN_RULES = {
    "torchvision_32": torchvision(32),
    "timm_40": timm(40, crop_pct=0.95),
    "keras_24": keras(24),
    "slim_24": slim(24),
    "padded_48": torchvision(48, resize=36),
}


def golden_entry(case: str, rule: str) -> dict:
    pre = GOLDEN_RULES[rule]
    pixels = crop_and_resize(decode(GOLDEN_CASES[case]()), pre)
    tensor = normalise(pixels[None], pre)[0]
    return {
        "sha256": hashlib.sha256(tensor.astype("<f4").tobytes()).hexdigest(),
        "corner": pixels[0, :2].tolist(),
        "mean": [round(float(channel.mean(dtype=np.float64)), 6) for channel in tensor],
    }


@pytest.mark.parametrize("case", GOLDEN_CASES)
@pytest.mark.parametrize("rule", GOLDEN_RULES)
def test_golden_tensors(case: str, rule: str) -> None:
    expected = json.loads(GOLDEN.read_text())
    assert golden_entry(case, rule) == expected["tensors"][f"{case} {rule}"]


def test_golden_contract_is_what_it_was() -> None:
    expected = json.loads(GOLDEN.read_text())["contracts"]
    assert {name: pre.to_dict() for name, pre in GOLDEN_RULES.items()} == expected


# Another implementation's bits


def reference(image: Image.Image, pre: Preprocess) -> np.ndarray:
    from torchvision import transforms as T

    assert pre.resize is not None
    mode = T.InterpolationMode(pre.interpolation)
    stages = [T.Resize(pre.resize, mode), T.CenterCrop(pre.size), T.ToTensor()]
    return T.Compose([*stages, T.Normalize(pre.mean, pre.std)])(image).numpy()


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(1, 400),
    height=st.integers(1, 400),
    size=st.integers(1, 140),
    resize=st.integers(1, 140),
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
)
def test_equals_torchvision(width, height, size, resize, interpolation) -> None:
    if max(width, height) > 100 * min(width, height):
        return  # torchvision would make a strip of millions of pixels
    image = Image.fromarray(picture(width, height))
    pre = Preprocess(size=size, resize_mode="shorter", resize=resize, interpolation=interpolation)
    np.testing.assert_array_equal(preprocess(image, pre), reference(image, pre))


@pytest.mark.parametrize("side", [(500, 375), (375, 500), (256, 256), (224, 224), (641, 257)])
def test_equals_torchvision_at_its_own_sizes(side: tuple[int, int]) -> None:
    for pre in (torchvision(), torchvision(resize=232), torchvision(192)):
        image = Image.fromarray(picture(*side))
        np.testing.assert_array_equal(preprocess(image, pre), reference(image, pre))


@pytest.mark.parametrize("crop_pct", [0.875, 0.9, 0.95, 1.0])
@pytest.mark.parametrize("size", [160, 224, 256])
def test_equals_timm(size: int, crop_pct: float) -> None:
    from timm.data.transforms_factory import create_transform

    theirs = create_transform(
        (3, size, size), interpolation="bicubic", crop_pct=crop_pct, mean=HALF, std=HALF
    )
    pre = timm(size, crop_pct=crop_pct, mean=HALF, std=HALF)
    for side in ((333, 250), (250, 401)):
        image = Image.fromarray(picture(*side))
        np.testing.assert_array_equal(preprocess(image, pre), theirs(image).numpy())


def test_keras_is_a_stretch_to_minus_one_and_one() -> None:
    image = rgb(90, 60)
    stretched = np.asarray(image.resize((48, 48), Image.Resampling.BILINEAR), np.float32)
    expected = (stretched / 127.5 - 1).transpose(2, 0, 1)
    np.testing.assert_allclose(preprocess(image, keras(48)), expected, atol=2e-7)


def test_slim_crops_the_centre_as_tf_image_central_crop() -> None:
    # tf.image.central_crop of 100 x 80 by 0.875: starts int((80 - 70) / 2), int((100 - 87.5) / 2)
    image = rgb(100, 80)
    central = image.crop((6, 5, 94, 75)).resize((32, 32), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(crop_and_resize(image, slim(32)), np.asarray(central))


def test_normalise_has_torchvisions_order_of_operations() -> None:
    import torch
    from torchvision.transforms.functional import normalize

    values = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    tensor = torch.from_numpy(values).permute(0, 3, 1, 2).to(torch.float32).div(255)
    for pre in (torchvision(16), timm(16, mean=(0.1, 0.2, 0.3), std=(0.7, 0.8, 0.9)), keras(16)):
        theirs = normalize(tensor, list(pre.mean), list(pre.std)).numpy()
        np.testing.assert_array_equal(normalise(values, pre), theirs)


def test_a_very_long_picture_is_cropped_before_it_is_resized() -> None:
    strip = Image.fromarray(np.tile(picture(4, 1), (30_000, 1, 1)))
    pre = torchvision(224)
    assert pictures_module.MAX_PIXELS < 256 * (256 * 30_000 // 4)
    across = strip.resize((256, 1), Image.Resampling.BILINEAR, box=(0, 0, 4, 1))
    expected = np.asarray(across)[0, 16:240]
    found = crop_and_resize(strip, pre)
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1


# Decoding


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied(orientation: int, kind: str) -> None:
    # What each value says about the stored rows and columns: EXIF 2.3, table 4.6.4 A
    upright = picture(40, 24) // 8 * 8
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    options = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    options |= {"lossless": True} if kind == "WEBP" else {}
    image = Image.fromarray(np.ascontiguousarray(stored))
    found = np.asarray(decode(encode(image, kind, exif=exif(orientation), **options)))
    assert found.shape == upright.shape
    assert np.abs(found.astype(int) - upright).max() <= (24 if kind == "JPEG" else 0)
    assert np.abs(found.astype(int) - upright).mean() <= (4 if kind == "JPEG" else 0)


def test_damaged_exif_leaves_the_picture_as_it_is() -> None:
    good = encode(rgb(), "JPEG", exif=exif(6))
    bad = good.replace(b"Exif\0\0MM", b"Exif\0\0XX").replace(b"Exif\0\0II", b"Exif\0\0XX")
    assert bad != good
    assert decode(bad).size == (40, 30)


def test_sixteen_bits_keep_their_high_byte() -> None:
    values = picture(40, 30, 1, 16)[..., 0]
    expected = np.repeat((values >> 8).astype(np.uint8)[..., None], 3, axis=2)
    for kind in ("PNG", "TIFF", "PPM"):
        np.testing.assert_array_equal(
            np.asarray(decode(encode(Image.fromarray(values), kind))), expected
        )
    np.testing.assert_array_equal(np.asarray(decode(values)), expected)


def sixteen_bit_png(values: np.ndarray, colour_type: int) -> bytes:
    """A PNG of 16-bit samples, which Pillow cannot write: uint16 (H, W, channels)."""
    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def test_sixteen_bit_colour_and_alpha() -> None:
    values = picture(20, 10, 3, 16)
    np.testing.assert_array_equal(np.asarray(decode(sixteen_bit_png(values, 2))), values >> 8)
    clear = np.concatenate([values, np.zeros((10, 20, 1), np.uint16)], axis=2)
    assert (np.asarray(decode(sixteen_bit_png(clear, 6))) == 255).all()
    grey_clear = clear[..., 2:]
    assert (np.asarray(decode(sixteen_bit_png(grey_clear, 4))) == 255).all()


def test_cmyk_jpeg_of_both_polarities() -> None:
    # 0 is no ink to libjpeg's callers; Adobe's programs store it inverted and say so in APP14
    ink = np.zeros((16, 16, 4), np.uint8)
    ink[..., 0] = 255
    cyan = encode(Image.fromarray(ink, "CMYK"), "JPEG", quality=95)
    assert b"Adobe" in cyan
    assert np.abs(np.asarray(decode(cyan)).astype(int) - [0, 255, 255]).max() <= 3


def test_palette_grey_and_bilevel() -> None:
    image = rgb()
    palette = image.quantize(16)
    np.testing.assert_array_equal(
        np.asarray(decode(encode(palette, "PNG"))), palette.convert("RGB")
    )
    grey = image.convert("L")
    np.testing.assert_array_equal(
        np.asarray(decode(encode(grey, "JPEG", quality=100)))[..., 0].shape, (30, 40)
    )
    bilevel = image.convert("1")
    np.testing.assert_array_equal(
        np.asarray(decode(encode(bilevel, "PNG"))), bilevel.convert("RGB")
    )


def on_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None].astype(float) / 255
    return colour * share + 255 * (1 - share)


def test_alpha_is_composited_on_white() -> None:
    pixels = picture(40, 30, 4)
    expected = on_white(pixels[..., :3], pixels[..., 3])
    for kind, options in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True})):
        found = np.asarray(decode(encode(Image.fromarray(pixels), kind, **options)))
        assert np.abs(found - expected).max() <= 1
    grey = Image.merge("LA", [Image.fromarray(pixels[..., 0]), Image.fromarray(pixels[..., 3])])
    expected = on_white(pixels[..., :1].repeat(3, 2), pixels[..., 3])
    assert np.abs(np.asarray(decode(encode(grey, "PNG"))) - expected).max() <= 1


def test_transparent_palette_and_colour_key() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([200, 100, 50, 0, 80, 160])
    image.putpixel((1, 0), 1)
    found = np.asarray(decode(encode(image, "PNG", transparency=bytes([255, 0]))))
    assert found.tolist() == [[[200, 100, 50], [255, 255, 255]]]
    found = np.asarray(decode(encode(image, "GIF", transparency=0)))
    assert found.tolist() == [[[255, 255, 255], [0, 80, 160]]]
    key = Image.new("RGB", (2, 1), (9, 8, 7))
    key.putpixel((1, 0), (1, 2, 3))
    found = np.asarray(decode(encode(key, "PNG", transparency=(1, 2, 3))))
    assert found.tolist() == [[[9, 8, 7], [255, 255, 255]]]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_of_an_animation(kind: str) -> None:
    frames = [Image.new("RGB", (24, 16), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    with Image.open(io.BytesIO(data)) as image:
        assert getattr(image, "n_frames", 1) == 3
    assert (np.asarray(decode(data)) == (255, 0, 0)).all()


def test_arrays_and_pillow_images() -> None:
    pixels = picture(20, 10)
    np.testing.assert_array_equal(np.asarray(decode(pixels)), pixels)
    np.testing.assert_array_equal(np.asarray(decode(pixels[..., 0])), pixels[..., :1].repeat(3, 2))
    np.testing.assert_array_equal(
        np.asarray(decode(pixels[:, :, :1])), pixels[..., :1].repeat(3, 2)
    )
    turned = Image.open(io.BytesIO(encode(rgb(), "PNG", exif=exif(6))))
    assert decode(turned).size == (30, 40)
    for wrong in (pixels.astype(np.float32), pixels[..., :2], pixels[None], pixels[:0]):
        with pytest.raises(ImageError, match="array"):
            decode(wrong)


# Refusals


def refusal(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        decode(data, name="some/file")
    assert isinstance(caught.value, DataError)
    assert str(caught.value) == f"some/file: {caught.value.reason}"
    return caught.value.reason


def test_files_of_other_kinds_are_each_named() -> None:
    assert refusal(b"") == "the file is empty (0 bytes)"
    assert "not an image but a text" in refusal(b"just some words\n")
    assert "HTML" in refusal(b"<!DOCTYPE html><html>404</html>")
    assert "PDF" in refusal(b"%PDF-1.7\n\xff")
    assert "Git LFS" in refusal(b"version https://git-lfs.github.com/spec/v1\noid sha256:0")
    assert "HEIC" in refusal(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    assert "expected JPEG, PNG" in refusal(bytes(range(200, 256)) * 4)
    assert "32 bits" in refusal(encode(Image.new("F", (4, 4)), "TIFF"))
    assert "32 bits" in refusal(encode(Image.new("I", (4, 4)), "TIFF"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM"])
def test_truncated_files_are_refused(kind: str) -> None:
    data = encode(rgb(200, 150), kind)
    assert refusal(data[: len(data) // 2])
    assert refusal(data[:12])


def test_progressive_jpeg_with_scans_missing_is_refused() -> None:
    data = encode(rgb(200, 150), "JPEG", progressive=True)
    assert "truncated" in refusal(data[: len(data) * 3 // 4])


def bomb(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = b"IHDR" + header
    ihdr = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + ihdr + struct.pack(">I", 4) + b"IDAT" + bytes(8)


@pytest.mark.parametrize("side", [9_460, 12_000, 60_000, 2**31 - 1])
def test_more_pixels_than_the_limit_are_refused_by_the_header(side: int) -> None:
    reason = refusal(bomb(side, side))
    assert str(pictures_module.MAX_PIXELS) in reason
    assert "limit" in reason


def test_the_limit_itself_is_allowed() -> None:
    image = pictures_module.open_image(bomb(9_459, 9_459))
    assert image.size == (9_459, 9_459)


def test_paths_that_are_no_pictures(tmp_path: Path) -> None:
    def reason(path: Path | str) -> str:
        with pytest.raises(ImageError, match=re.escape(repr(str(path))[1:-1])) as caught:
            decode(path)
        return caught.value.reason

    (tmp_path / "empty.jpg").touch()
    (tmp_path / "link.jpg").symlink_to(tmp_path / "gone.jpg")
    assert reason(tmp_path / "missing.jpg") == "no such file"
    assert reason(tmp_path / "link.jpg") == "broken link"
    assert reason(tmp_path) == "a folder, not a file"
    assert reason(tmp_path / "empty.jpg") == "the file is empty (0 bytes)"
    assert reason("/dev/zero") == "not a regular file"
    assert "not a file name" in reason(str(tmp_path / "nul\0.jpg"))


def test_a_file_above_the_limit_is_not_read(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(pictures_module, "MAX_FILE_BYTES", 100)
    path = tmp_path / "large.png"
    path.write_bytes(encode(rgb(), "PNG"))
    with pytest.raises(ImageError, match="more than the limit of 100"):
        decode(path)


def test_names_that_are_not_ascii(tmp_path: Path) -> None:
    for name in ("föö 图片.PNG", "e\u0301.png", "no extension", "quote'\".png"):
        (tmp_path / name).write_bytes(encode(rgb(), "PNG"))
        assert decode(tmp_path / name).size == (40, 30)


# The base files of the fuzzer: every format, and the modes that take other paths
FUZZED = {
    "jpeg": lambda: encode(rgb(), "JPEG", exif=exif(6)),
    "progressive": lambda: encode(rgb(), "JPEG", progressive=True),
    "cmyk": lambda: encode(rgb().convert("CMYK"), "JPEG"),
    "png": lambda: encode(rgb(), "PNG", exif=exif(3)),
    "palette": palette_with_alpha,
    "sixteen": lambda: encode(Image.fromarray(picture(40, 30, 1, 16)[..., 0]), "PNG"),
    "gif": lambda: encode(rgb(), "GIF"),
    "bmp": lambda: encode(rgb(), "BMP"),
    "webp": lambda: encode(rgb(), "WEBP", exif=exif(8)),
    "tiff": lambda: encode(rgb(), "TIFF", compression="tiff_lzw"),
    "tiff16": lambda: encode(Image.fromarray(picture(40, 30, 1, 16)[..., 0]), "TIFF"),
    "ppm": lambda: encode(rgb(), "PPM"),
}


def mend_checksums(data: bytes) -> bytes:
    """A PNG with every chunk's checksum made right, so that mutations get past them."""
    mended, at = data[:8], 8
    while at + 12 <= len(data):
        length = min(int.from_bytes(data[at : at + 4], "big"), len(data) - at - 12)
        body = data[at + 4 : at + 8 + length]
        mended += struct.pack(">I", length) + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + length
    return mended


@pytest.mark.parametrize("base", FUZZED)
def test_mutated_files_are_decoded_or_refused(base: str, monkeypatch) -> None:
    monkeypatch.setattr(
        pictures_module, "MAX_PIXELS", 2**20
    )  # mutated sizes stay quick to allocate
    rng = np.random.default_rng(list(base.encode()))
    original = FUZZED[base]()
    decoded = refused = 0
    for _ in range(300):
        data = bytearray(original)
        for _ in range(int(rng.integers(1, 5))):
            # most of what a parser trusts is at the front
            at = int(rng.integers(min(len(data), 200) if rng.random() < 0.7 else len(data)))
            way = rng.integers(4)
            if way == 0:
                data[at] = int(rng.integers(256))
            elif way == 1:
                data[at] ^= 1 << int(rng.integers(8))
            elif way == 2:
                del data[at : at + int(rng.integers(1, 9))]
            else:
                data[at:at] = rng.bytes(int(rng.integers(1, 9)))
        if original.startswith(b"\x89PNG") and rng.random() < 0.8:
            data = mend_checksums(bytes(data))
        try:
            image = decode(bytes(data))
            assert image.mode == "RGB"
            assert image.width * image.height <= 2**20
            decoded += 1
        except ImageError:
            refused += 1
    assert min(decoded, refused) > 0


def test_warnings_of_pillow_stay_inside(monkeypatch) -> None:
    """Four threads at once, on pictures that Pillow warns of; the filters are as before."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow warns above, fails above twice
    large = encode(rgb(), "PNG")
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(io.BytesIO(large)).load()
    problems: list[Exception] = []

    def work() -> None:
        try:
            for _ in range(50):
                decode(large)
        except Exception as error:
            problems.append(error)

    before = list(warnings.filters)
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert list(warnings.filters) == before


# The description


def test_description_survives_json() -> None:
    for pre in (torchvision(), torchvision(224, resize=232), timm(192), keras(), slim(160)):
        assert Preprocess.from_dict(json.loads(json.dumps(pre.to_dict()))) == pre


def test_known_conventions() -> None:
    assert torchvision().resize == 256
    assert torchvision(192).resize == 219
    assert timm(224, crop_pct=0.95).resize == 235
    assert (torchvision().mean, torchvision().std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert (keras().mean, slim().std) == (HALF, HALF)


def test_unknown_missing_and_foreign_fields_are_refused_by_name() -> None:
    good = torchvision().to_dict()
    for change, message in (
        ({"gamma": 2.2}, "gamma"),
        ({"version": 2}, "version 2"),
        ({"channels": "BGR"}, "BGR"),
        ({"antialias": False}, "antialias"),
        ({"decode": {**good["decode"], "alpha": "black"}}, "black"),
        ({"mean": 0.5}, "mean"),
        ({"mean": [0.5, 0.5]}, "mean"),
        ({"std": [0.5, 0.5, 0]}, "std"),
        ({"std": [0.5, 0.5, float("nan")]}, "std"),
        ({"size": 0}, "size"),
        ({"size": 224.0}, "size"),
        ({"resize": None}, "resize"),
        ({"resize_mode": "longer"}, "longer"),
        ({"crop_fraction": 0.5}, "crop_fraction"),
        ({"interpolation": "nearest"}, "nearest"),
    ):
        with pytest.raises(UsageError, match=message):
            Preprocess.from_dict({**good, **change})
    for missing in good:
        with pytest.raises(UsageError, match=missing):
            Preprocess.from_dict({key: value for key, value in good.items() if key != missing})


if __name__ == "__main__":
    entries = [
        f'"{case} {rule}": {json.dumps(golden_entry(case, rule))}'
        for case in GOLDEN_CASES
        for rule in GOLDEN_RULES
    ]
    contracts = [f'"{name}": {json.dumps(pre.to_dict())}' for name, pre in GOLDEN_RULES.items()]
    sections = (("contracts", contracts), ("tensors", entries))
    text = ",\n".join(f'"{name}": {{\n' + ",\n".join(lines) + "\n}" for name, lines in sections)
    GOLDEN.write_text("{\n" + text + "\n}\n")
