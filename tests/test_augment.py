"""Training transforms: torchvision's operations and distributions, and only the given rng."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mobilenet import augment as augmentation
from mobilenet.augment import (
    LEVELS,
    RAND,
    TRIVIAL,
    Augment,
    apply,
    build,
    cutmix,
    mixup,
    mixup_cutmix,
    random_box,
    random_crop,
    resize,
)
from mobilenet.data import Picture, sample_rng
from mobilenet.errors import MissingDependency, UsageError
from mobilenet.preprocess import Preprocess, torchvision

# Our names of the operations, and torchvision's
NAMES = {
    "identity": "Identity",
    "shear_x": "ShearX",
    "shear_y": "ShearY",
    "translate_x": "TranslateX",
    "translate_y": "TranslateY",
    "rotate": "Rotate",
    "brightness": "Brightness",
    "colour": "Color",
    "contrast": "Contrast",
    "sharpness": "Sharpness",
    "posterize": "Posterize",
    "solarize": "Solarize",
    "autocontrast": "AutoContrast",
    "equalize": "Equalize",
}


def photograph(width: int = 96, height: int = 96) -> Image.Image:
    coarse = np.random.default_rng(3).integers(0, 256, (7, 9, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


# Policies


@pytest.mark.parametrize("policy", ["TrivialAugmentWide", "RandAugment"])
@pytest.mark.parametrize("name", NAMES)
def test_operations_are_torchvisions_at_every_level(policy: str, name: str) -> None:
    from torchvision.transforms import InterpolationMode, autoaugment

    image = photograph()
    theirs = getattr(autoaugment, policy)()
    size = (image.height, image.width)
    sizes = {"TrivialAugmentWide": (31,), "RandAugment": (31, size)}[policy]
    magnitudes, signed = theirs._augmentation_space(*sizes)[NAMES[name]]
    space = TRIVIAL if policy == "TrivialAugmentWide" else RAND
    assert space[name].signed == signed
    for level in range(0, LEVELS + 1, 3):
        # theirs are float32: 15.999999 would be cut to 15 pixels
        magnitude = round(float(magnitudes[level] if magnitudes.ndim else 0), 4)
        for sign in (1, -1) if signed else (1,):
            expected = autoaugment._apply_op(
                image, NAMES[name], sign * magnitude, InterpolationMode.NEAREST, None
            )
            found = apply(image, name, space[name], level, negative=sign < 0)
            difference = np.abs(np.asarray(found).astype(int) - np.asarray(expected))
            # their matrices come out of sines and cosines: an edge pixel may round the other way
            assert (difference > 0).mean() < 0.03, level


def test_both_policies_have_torchvisions_operations() -> None:
    assert set(TRIVIAL) == set(RAND) == set(NAMES)


@pytest.mark.parametrize(("policy", "operations"), [("trivial", 1), ("rand", 2), ("rand", 5)])
def test_every_operation_is_drawn_as_often(policy, operations, monkeypatch) -> None:
    drawn: Counter[str] = Counter()
    levels: Counter[int] = Counter()
    negative = 0

    def record(image, name, strength, level, *, negative: bool):
        drawn[name] += 1
        levels[level] += 1
        signs[negative] += 1
        return image

    signs: Counter[bool] = Counter()
    monkeypatch.setattr(augmentation, "apply", record)
    transform = build(Augment(policy=policy, rand_n=operations, rand_m=7), torchvision(32))
    image = photograph(40, 40)
    for index in range(1400):
        transform(image, sample_rng(0, 0, index))
    total = 1400 * operations
    assert sum(drawn.values()) == total
    expected = total / 14
    assert all(abs(count - expected) < 5 * math.sqrt(expected) for count in drawn.values())
    assert len(drawn) == 14
    assert abs(signs[True] - total / 2) < 4 * math.sqrt(total / 4)
    assert set(levels) == ({7} if policy == "rand" else set(range(31)))
    assert negative == 0


# Crops


def test_crops_are_distributed_as_torchvisions() -> None:
    import torch
    from torchvision.transforms import RandomResizedCrop

    torch.manual_seed(0)
    scale, ratio, size, count = (0.08, 1.0), (3 / 4, 4 / 3), (500, 375), 4000
    canvas = Image.new("L", size)
    theirs = []
    for _ in range(count):
        top, left, height, width = RandomResizedCrop.get_params(canvas, list(scale), list(ratio))
        theirs.append((left, top, left + width, top + height))
    ours = [random_crop(size, scale, ratio, sample_rng(0, 0, index)) for index in range(count)]
    for measure in (
        lambda box: (box[2] - box[0]) * (box[3] - box[1]),
        lambda box: (box[2] - box[0]) / (box[3] - box[1]),
        lambda box: box[0],
        lambda box: box[1],
    ):
        ranked = [np.sort([measure(box) for box in boxes]) for boxes in (ours, theirs)]
        every = np.concatenate(ranked)
        ranks = [np.searchsorted(values, every, side="right") / count for values in ranked]
        distance = np.abs(ranks[0] - ranks[1]).max()
        assert distance < 1.95 * math.sqrt(2 / count)  # Kolmogorov-Smirnov at 0.1 %


@settings(max_examples=200, deadline=None)
@given(
    width=st.integers(1, 2000),
    height=st.integers(1, 2000),
    low=st.floats(0.01, 1),
    ratio=st.floats(0.2, 1),
    seed=st.integers(0, 2**32),
)
def test_crops_lie_inside(width, height, low, ratio, seed) -> None:
    rng = sample_rng(seed, 0, 0)
    left, top, right, bottom = random_crop((width, height), (low, 1), (ratio, 1 / ratio), rng)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


@pytest.mark.parametrize("size", [(1000, 10), (10, 1000), (64, 64), (3, 1)])
def test_where_no_draw_fits_it_is_torchvisions_centre(size: tuple[int, int], monkeypatch) -> None:
    from torchvision.transforms import RandomResizedCrop

    monkeypatch.setattr(augmentation, "_TRIES", 0)
    canvas = Image.new("L", size)
    # an area that cannot fit: torchvision falls back at once too
    top, left, height, width = RandomResizedCrop.get_params(canvas, [9, 9.1], [3 / 4, 4 / 3])
    box = random_crop(size, (0.08, 1), (3 / 4, 4 / 3), sample_rng(0, 0, 0))
    assert box == (left, top, left + width, top + height)


def test_the_whole_square_picture_can_be_asked_for() -> None:
    transform = build(Augment(crop_scale=(1, 1), crop_ratio=(1, 1), flip=0), torchvision(32))
    image = photograph(32, 32)
    np.testing.assert_array_equal(transform(image, sample_rng(0, 0, 0)), np.asarray(image))
    flipped = build(Augment(crop_scale=(1, 1), crop_ratio=(1, 1), flip=1), torchvision(32))
    expected = np.asarray(image)[:, ::-1]
    np.testing.assert_array_equal(flipped(image, sample_rng(0, 0, 0)), expected)


@settings(max_examples=30, deadline=None)
@given(width=st.integers(2, 300), height=st.integers(2, 300), size=st.integers(8, 128))
def test_resize_is_pillows_but_for_rounding(width: int, height: int, size: int) -> None:
    """Both round to whole levels twice, after the rows and after the columns, ties their own way:
    one level apart here and there, two where a tie of each pass falls together."""
    image = photograph(width, height)
    pixels = np.array(image)
    bilinear = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR)).astype(int)
    apart = np.abs(resize(pixels, size, "bilinear") - bilinear)
    assert apart.max() <= 2
    assert apart.mean() <= 0.25
    bicubic = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(resize(pixels, size, "bicubic") - bicubic).mean() <= 0.5


# Erasing and shifting

PLAIN = Augment(crop_scale=(1, 1), crop_ratio=(1, 1), flip=0)


def with_options(**options) -> Augment:
    return Augment(crop_scale=(1, 1), crop_ratio=(1, 1), flip=0, **options)


def test_erasing_sets_one_rectangle_to_the_mean() -> None:
    pre = torchvision(64)
    image = Image.new("RGB", (64, 64), (255, 0, 255))
    transform = build(with_options(erase=0.25), pre)
    mean = np.round(np.array(pre.mean) * 255)
    shares = []
    for index in range(600):
        erased = (transform(image, sample_rng(1, 0, index)) != (255, 0, 255)).all(axis=2)
        if not erased.any():
            continue
        rows, columns = np.flatnonzero(erased.any(axis=1)), np.flatnonzero(erased.any(axis=0))
        assert erased.sum() == len(rows) * len(columns)
        assert np.ptp(rows) == len(rows) - 1
        assert np.ptp(columns) == len(columns) - 1
        pixels = transform(image, sample_rng(1, 0, index))
        assert (pixels[erased] == mean).all()
        shares.append(erased.mean())
        assert 0.25 < len(rows) / len(columns) < 4
    assert abs(len(shares) - 150) < 4 * math.sqrt(600 * 0.25 * 0.75)
    assert min(shares) > 0.015
    assert max(shares) < 0.35
    assert abs(np.mean(shares) - 0.175) < 0.03


def test_shifting_moves_by_at_most_its_share() -> None:
    image = Image.new("RGB", (40, 40), (200, 200, 200))
    transform = build(with_options(shift=0.25), torchvision(40))
    moves = set()
    for index in range(800):
        lit = transform(image, sample_rng(2, 0, index))[..., 0] == 200
        rows, columns = lit.any(axis=1), lit.any(axis=0)
        assert lit.sum() == rows.sum() * columns.sum()
        moves.add((rows.sum() * (1 if rows[0] else -1), columns.sum() * (1 if columns[0] else -1)))
        assert min(rows.sum(), columns.sum()) >= 30
    across = {move[1] for move in moves}
    assert across == {*range(30, 41), *range(-39, -29)}


# The transform as a whole


def test_everything_follows_from_the_generator() -> None:
    augment = Augment(policy="trivial", shift=0.1, erase=0.5)
    transform = build(augment, torchvision(48))
    image = photograph(120, 80)
    np.random.seed(0)
    first = [transform(image, sample_rng(7, 1, index)) for index in range(40)]
    np.random.seed(1)
    again = [transform(Picture.from_image(image), sample_rng(7, 1, index)) for index in range(40)]
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.shape == (48, 48, 3)
        assert a.dtype == np.uint8
    assert len({pixels.tobytes() for pixels in first}) > 35


def test_without_torch_it_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(MissingDependency, match=r"mobilenet\[train\]"):
        build(Augment(), torchvision())


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("crop_scale", (0, 1)),
        ("crop_scale", (0.5, 0.4)),
        ("crop_scale", (0.5, 1.1)),
        ("crop_ratio", (2, 1)),
        ("flip", 1.5),
        ("erase", -0.1),
        ("shift", 1),
        ("policy", "auto"),
        ("rand_n", -1),
        ("rand_m", 31),
    ],
)
def test_wrong_options_are_refused_by_name(option: str, value: object) -> None:
    with pytest.raises(UsageError, match=option):
        Augment(**{option: value})


def test_the_mean_of_another_contract_is_erased_to() -> None:
    pre = Preprocess(size=32, resize_mode="stretch", mean=(0.1, 0.2, 0.3), std=(1, 1, 1))
    transform = build(with_options(erase=1), pre)
    pixels = transform(Image.new("RGB", (32, 32)), sample_rng(0, 0, 0))
    assert {tuple(pixel) for pixel in pixels.reshape(-1, 3).tolist()} == {(0, 0, 0), (26, 51, 76)}


# Mixing batches


def batch():
    import torch

    torch.manual_seed(0)
    targets = torch.eye(5)[torch.tensor([0, 3, 3, 1])]
    return torch.rand(4, 3, 20, 30), targets


def test_mixup_is_torchvisions() -> None:
    import torch
    from torchvision.transforms import v2

    images, targets = batch()
    theirs = v2.MixUp(num_classes=5)
    params = {"lam": 0.3, "labels": targets.argmax(1), "batch_size": 4}
    mixed, mixed_targets = mixup(images, targets, 0.3)
    torch.testing.assert_close(mixed, theirs.transform(images, params))
    expected = theirs._mixup_label(targets.argmax(1), lam=0.3)
    torch.testing.assert_close(mixed_targets, expected)


@pytest.mark.parametrize("box", [(3, 4, 17, 9), (0, 0, 30, 20), (5, 5, 5, 9)])
def test_cutmix_is_torchvisions(box: tuple[int, int, int, int]) -> None:
    import torch
    from torchvision.transforms import v2

    images, targets = batch()
    theirs = v2.CutMix(num_classes=5)
    share = (box[2] - box[0]) * (box[3] - box[1]) / 600
    params = {"box": box, "lam_adjusted": 1 - share, "labels": targets.argmax(1), "batch_size": 4}
    mixed, mixed_targets = cutmix(images, targets, box)
    torch.testing.assert_close(mixed, theirs.transform(images, params))
    expected = theirs._mixup_label(targets.argmax(1), lam=1 - share)
    torch.testing.assert_close(mixed_targets, expected)


def test_either_way_is_taken_and_nothing_is_written_into_the_arguments() -> None:
    import torch

    images, targets = batch()
    kept = images.clone(), targets.clone()
    cut = 0
    for index in range(400):
        mixed, mixed_targets = mixup_cutmix(
            images, targets, sample_rng(0, 0, index), mixup_alpha=0.2, cutmix_alpha=1.0
        )
        torch.testing.assert_close(mixed_targets.sum(1), torch.ones(4))
        untouched = (mixed == images) | (mixed == images.roll(1, 0))
        cut += bool(untouched.all())
    assert abs(cut - 200) < 60
    torch.testing.assert_close((images, targets), kept, rtol=0, atol=0)
    again = mixup_cutmix(images, targets, sample_rng(0, 0, 9), mixup_alpha=0.2, cutmix_alpha=1.0)
    first = mixup_cutmix(images, targets, sample_rng(0, 0, 9), mixup_alpha=0.2, cutmix_alpha=1.0)
    torch.testing.assert_close(again, first, rtol=0, atol=0)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_mixups_weight_is_beta_distributed(alpha: float) -> None:
    images, targets = batch()
    weights = []
    for index in range(1500):
        rng = sample_rng(0, 0, index)
        _, mixed = mixup_cutmix(images, targets, rng, mixup_alpha=alpha, cutmix_alpha=0)
        weights.append(float(mixed[0, 0]))
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(np.mean(weights) - 0.5) < 4 * math.sqrt(variance / 1500)
    assert abs(np.var(weights) / variance - 1) < 0.15


def test_alphas_of_zero_turn_the_ways_off() -> None:
    images, targets = batch()
    rng = sample_rng(0, 0, 0)
    same = mixup_cutmix(images, targets, rng, mixup_alpha=0, cutmix_alpha=0)
    assert same[0] is images
    assert same[1] is targets
    for index in range(20):
        mixed, _ = mixup_cutmix(
            images, targets, sample_rng(0, 0, index), mixup_alpha=0, cutmix_alpha=1.0
        )
        assert bool(((mixed == images) | (mixed == images.roll(1, 0))).all())


def test_boxes_have_their_share_of_the_area_on_average() -> None:
    areas = []
    for index in range(2000):
        left, top, right, bottom = random_box(100, 60, 0.25, sample_rng(0, 0, index))
        assert 0 <= left <= right <= 100
        assert 0 <= top <= bottom <= 60
        areas.append((right - left) * (bottom - top) / 6000)
    # a quarter of the area, less what falls off the borders: (1 - 1/8)^2 of it
    assert abs(np.mean(areas) - 0.25 * (1 - 1 / 8) ** 2) < 0.01
    assert max(areas) <= 0.25
