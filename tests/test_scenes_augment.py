"""Varied and fitted scenes: what is painted stays where its box, mask and points say it is."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mobilenet.errors import UsageError
from mobilenet.scenes.augment import (
    Piece,
    copy_paste,
    crop,
    cut_out,
    distort,
    iou_crop,
    jitter_scale,
    mirror,
    mosaic,
    resized,
)
from mobilenet.scenes.draw import PALETTE, draw_boxes, draw_keypoints, draw_mask
from mobilenet.scenes.fit import fit, fit_sample, fitting
from mobilenet.scenes.sample import FILL, Sample

COLOURS = np.array([[250, 10, 10], [10, 250, 10], [10, 10, 250], [250, 250, 10]], np.uint8)
Transform = Callable[[Sample, np.random.Generator], Sample]


def painted(rng: np.random.Generator, width: int = 90, height: int = 70) -> Sample:
    """Up to four rectangles that do not touch, one a quarter, each of its own colour and label,
    with points at its middle and near two of its corners."""
    picture = np.zeros((height, width, 3), np.uint8)
    mask = np.zeros((height, width), np.uint8)
    boxes, labels = [], []
    for quarter in np.flatnonzero(rng.random(4) < 0.8):
        left, top = (quarter % 2) * width // 2 + 2, (quarter // 2) * height // 2 + 2
        x0, y0 = left + int(rng.integers(0, 12)), top + int(rng.integers(0, 8))
        x1, y1 = x0 + int(rng.integers(14, 28)), y0 + int(rng.integers(12, 22))
        picture[y0:y1, x0:x1], mask[y0:y1, x0:x1] = COLOURS[quarter], quarter + 1
        boxes.append([x0, y0, x1, y1])
        labels.append(quarter)
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    x0, y0, x1, y1 = boxes.T
    points = np.stack(
        [
            np.stack([(x0 + x1) / 2, (y0 + y1) / 2], 1),
            np.stack([x0 + 4, y0 + 4], 1),
            np.stack([x1 - 4, y0 + 4], 1),
        ],
        1,
    )
    return Sample(
        picture=picture,
        boxes=boxes,
        labels=np.array(labels, np.int64),
        crowd=np.zeros(len(labels), bool),
        mask=mask,
        keypoints=np.concatenate([points, np.full((len(labels), 3, 1), 2)], 2).astype(np.float32),
    )


def colours_near(picture: np.ndarray, colour: np.ndarray) -> np.ndarray:
    return np.abs(picture.astype(int) - colour).max(-1) < 60


def check(sample: Sample, *, slack: float = 1.0, complete: bool = False) -> None:
    """Every box is full of its colour, and the mask and the points are in it.

    `complete`: no colour is outside the boxes either."""
    assert sample.boxes.dtype == np.float32
    assert len(sample.boxes) == len(sample.labels) == len(sample.crowd)
    assert sample.mask is not None
    assert sample.keypoints is not None
    assert sample.mask.shape == sample.picture.shape[:2]
    width, height = sample.size
    assert (sample.boxes[:, 2:] > sample.boxes[:, :2]).all()
    assert sample.boxes.min(initial=0) >= 0
    assert (sample.boxes <= [width, height, width, height]).all()
    for box, label, points in zip(sample.boxes, sample.labels, sample.keypoints, strict=True):
        x0, y0 = np.ceil(box[:2] + slack).astype(int)
        x1, y1 = np.floor(box[2:] - slack).astype(int)
        inner = np.s_[y0 : max(y1, y0), x0 : max(x1, x0)]
        assert colours_near(sample.picture[inner], COLOURS[label]).all()
        assert (sample.mask[inner] == label + 1).all()
        for x, y, visibility in points:
            if visibility:
                assert box[0] <= x <= box[2]
                assert box[1] <= y <= box[3]
                assert sample.mask[int(y), int(x)] == label + 1
            else:
                assert (x, y) == (0, 0)
    if complete:
        for label, colour in enumerate(COLOURS):
            rows, columns = np.nonzero(colours_near(sample.picture, colour))
            inside = np.zeros(len(rows), bool)
            for box in sample.boxes[sample.labels == label]:
                low, high = box[:2] - slack, box[2:] + slack
                spots = np.stack([columns, rows], 1)
                inside |= ((spots + 1 >= low) & (spots <= high)).all(1)
            assert inside.all()


TRANSFORMS: dict[str, tuple[Transform, bool]] = {
    "mirror": (lambda sample, rng: mirror(sample, (0, 2, 1)), True),
    "crop": (lambda sample, rng: crop(sample, (10, 5, 80, 60)), True),
    "beyond": (lambda sample, rng: crop(sample, (-10, -5, 100, 80)), True),
    "resized": (lambda sample, rng: resized(sample, 130, 55), True),
    "iou_crop": (iou_crop, False),
    "jitter": (lambda sample, rng: jitter_scale(sample, 96, 96, rng, least=0.0), True),
    "fit": (lambda sample, rng: fit_sample(sample, (64, 80), "letterbox")[0], True),
    "stretch": (lambda sample, rng: fit_sample(sample, (64, 80))[0], True),
    "mosaic": (
        lambda sample, rng: mosaic([sample, *(painted(rng) for _ in range(3))], 128, rng, least=0),
        True,
    ),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_what_is_painted_is_where_its_box_says(name: str) -> None:
    transform, complete = TRANSFORMS[name]
    kept = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        sample = painted(rng)
        check(sample, slack=0, complete=True)
        before = [
            array.copy() for array in (sample.picture, sample.boxes, sample.mask, sample.keypoints)
        ]
        out = transform(sample, rng)
        check(out, complete=complete)
        kept += len(out.boxes)
        after = (sample.picture, sample.boxes, sample.mask, sample.keypoints)
        for one, other in zip(before, after, strict=True):
            np.testing.assert_array_equal(one, other)  # nothing is written into
    assert kept > 60


def test_the_same_generator_makes_the_same_sample() -> None:
    for transform, _ in TRANSFORMS.values():
        first, second = (
            transform(painted(np.random.default_rng(5)), np.random.default_rng(7)) for _ in range(2)
        )
        np.testing.assert_array_equal(first.picture, second.picture)
        np.testing.assert_array_equal(first.boxes, second.boxes)


def test_mirroring_twice_is_nothing_and_swaps_points() -> None:
    sample = painted(np.random.default_rng(1))
    once = mirror(sample, (0, 2, 1))
    twice = mirror(once, (0, 2, 1))
    assert sample.keypoints is not None
    assert once.keypoints is not None
    assert twice.keypoints is not None
    np.testing.assert_array_equal(twice.picture, sample.picture)
    np.testing.assert_allclose(twice.boxes, sample.boxes)
    np.testing.assert_allclose(twice.keypoints, sample.keypoints)
    # the second point is left of the third before and after
    assert (once.keypoints[:, 1, 0] < once.keypoints[:, 2, 0]).all()


def test_iou_crop_keeps_objects_whose_centre_is_inside() -> None:
    changed = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        sample = painted(rng)
        out = iou_crop(sample, rng)
        if out is sample:
            continue
        changed += 1
        assert len(out.boxes) >= 1
        assert 0.5 <= out.size[0] / out.size[1] <= 2
        assert out.size[0] >= 0.29 * 90
    assert changed > 40


def test_empty_pictures_stay_empty() -> None:
    empty = painted(np.random.default_rng(0)).only(np.zeros(0, int))
    rng = np.random.default_rng(0)
    for transform, _ in TRANSFORMS.values():
        if transform is not TRANSFORMS["mosaic"][0]:
            assert transform(empty, rng).boxes.shape == (0, 4)
    assert mosaic([empty] * 4, 64, rng).boxes.shape == (0, 4)
    with pytest.raises(UsageError, match="mosaic of 3 samples"):
        mosaic([empty] * 3, 64, rng)


def test_distorted_colours() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    seen = [distort(picture, np.random.default_rng(seed)) for seed in range(40)]
    assert all(one.dtype == np.uint8 and one.shape == picture.shape for one in seen)
    assert all(one.flags.c_contiguous for one in seen)
    assert len({one.tobytes() for one in seen}) > 30
    grey = np.full((4, 4, 3), 120, np.uint8)
    for seed in range(40):  # neither saturation nor hue colours a grey
        out = distort(grey, np.random.default_rng(seed)).astype(int)
        assert np.ptp(out, axis=-1).max() <= 1


def test_a_piece_cut_out_and_pasted() -> None:
    rng = np.random.default_rng(4)
    source = painted(rng)
    assert source.mask is not None
    assert source.keypoints is not None
    label = int(source.labels[0])
    piece = cut_out(source.picture, source.mask == label + 1, label, source.keypoints[0])
    width, height = (source.boxes[0, 2:] - source.boxes[0, :2]).astype(int)
    assert piece.shape.shape == (height, width)
    for seed in range(40):
        sample = painted(np.random.default_rng(seed))
        out = copy_paste(sample, [piece], np.random.default_rng(seed))
        assert out.mask is not None
        assert out.keypoints is not None
        box, points = out.boxes[-1].astype(int), out.keypoints[-1]
        assert out.labels[-1] == label
        assert (out.mask[box[1] : box[3], box[0] : box[2]] == label + 1).all()
        inner = out.picture[box[1] + 1 : box[3] - 1, box[0] + 1 : box[2] - 1]
        assert colours_near(inner, COLOURS[label]).all()
        np.testing.assert_allclose(points[0, :2], (box[:2] + box[2:]) / 2, atol=0.51)
        for old, own in zip(out.boxes[:-1], out.keypoints[:-1], strict=True):
            x0, y0, x1, y1 = old.astype(int)
            behind = (out.picture[y0:y1, x0:x1] != sample.picture[y0:y1, x0:x1]).any(-1).mean()
            assert behind <= 0.7
            for x, y, visibility in own:
                pasted_over = box[0] <= x < box[2] and box[1] <= y < box[3]
                assert visibility == (1 if pasted_over else 2)
        gone = len(sample.boxes) + 1 - len(out.boxes)
        assert gone or not (out.mask == 255).any()
    large = Piece(picture=np.zeros((90, 200, 3), np.uint8), shape=np.ones((90, 200), bool), label=0)
    assert len(copy_paste(source, [large], rng).boxes) == len(source.boxes)
    with pytest.raises(UsageError, match="without a pixel"):
        cut_out(source.picture, np.zeros((70, 90), bool), 0)


def test_points_beside_a_piece_stay_in_the_picture() -> None:
    source = np.zeros((40, 40, 3), np.uint8)
    shape = np.zeros((40, 40), bool)
    shape[10:20, 10:20] = True
    points = np.array([[15, 15, 2], [15, 35, 1], [0, 0, 0]], np.float32)  # the second is hidden
    piece = cut_out(source, shape, 0, points)
    seen = set()
    for seed in range(40):
        sample = painted(np.random.default_rng(seed))
        width, height = sample.size
        out = copy_paste(sample, [piece], np.random.default_rng(seed))
        assert out.keypoints is not None
        centre, hidden, none = out.keypoints[-1]
        x0, y0 = out.boxes[-1, :2]
        np.testing.assert_array_equal(centre, [x0 + 5, y0 + 5, 2])
        inside = x0 + 5 < width and y0 + 25 < height
        np.testing.assert_array_equal(hidden, [x0 + 5, y0 + 25, 1] if inside else [0, 0, 0])
        assert not none.any()
        seen.add(inside)
    assert seen == {True, False}


# The network's input

sizes = st.tuples(st.integers(1, 900), st.integers(1, 900))


@settings(max_examples=200, deadline=None)
@given(sizes, sizes, st.sampled_from(["stretch", "letterbox"]), st.integers(0, 2**31))
def test_what_is_fitted_comes_back(
    source: tuple[int, int], target: tuple[int, int], how: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    fitted = fitting(source, target, how)  # pyright: ignore[reportArgumentType]
    low = rng.random((5, 2)) * 0.7
    boxes = np.concatenate([low, low + 0.3 * rng.random((5, 2))], 1) * np.tile(source, 2)
    there = fitted.boxes_to(boxes)
    assert (there >= 0).all()
    assert (there <= np.tile(target, 2) * (1 + 1e-6)).all()
    worth = np.array(source) / (np.array(fitted.filled[2:]) - fitted.filled[:2])
    tolerance = 1e-6 * max(source) + 1e-6 * max(target) * worth.max()
    np.testing.assert_allclose(fitted.boxes_back(there), boxes, atol=tolerance)
    points = np.concatenate([boxes[:, None, :2], np.full((5, 1, 1), 2)], 2)
    back = fitted.points_back(fitted.points_to(points))
    np.testing.assert_allclose(back, points, atol=tolerance)
    if how == "letterbox":
        x0, y0, x1, y1 = fitted.filled
        assert (x1 - x0, y1 - y0)[int(np.argmin(np.array(target) / source))] in target


def test_fitted_pictures_and_masks() -> None:
    sample = painted(np.random.default_rng(2), 90, 60)
    for how in ("stretch", "letterbox"):
        out, fitted = fit_sample(sample, (180, 180), how)
        assert out.picture.shape == (180, 180, 3)
        assert out.mask is not None
        if how == "letterbox":
            assert fitted.filled == (0, 30, 180, 150)
            assert (out.picture[:30] == FILL).all()
            assert (out.mask[150:] == 255).all()
        np.testing.assert_array_equal(fitted.mask_back(out.mask), sample.mask)
    picture, _ = fit(sample.picture, (45, 30))
    expected = Image.fromarray(sample.picture).resize((45, 30), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(picture, np.asarray(expected))
    with pytest.raises(UsageError, match="fit 'crop': expected one of"):
        fit(picture, (10, 10), "crop")  # pyright: ignore[reportArgumentType]


# Drawing


def test_boxes_are_drawn_on_their_edge() -> None:
    blank = Image.new("RGB", (200, 100))
    boxes = np.array([[20, 30, 80, 90.0]])
    out = draw_boxes(blank, boxes, np.array([0]), ["cat"], np.array([0.5]))
    pixels = np.asarray(out)
    assert not np.asarray(blank).any()  # a copy
    for x, y in ((20, 60), (79, 60), (50, 89)):
        assert tuple(pixels[y, x]) == tuple(PALETTE[1])
    assert not pixels[35:85, 25:75].any()
    assert pixels[15:29, 20:60].any()  # the name, above
    assert not pixels[:, 85:].any()
    with pytest.raises(UsageError, match="is not x0, y0, x1, y1"):
        draw_boxes(blank, boxes[:, [2, 1, 0, 3]], np.array([0]), ["cat"])
    same = draw_boxes(blank, np.zeros((0, 4)), np.zeros(0, int), ["cat"])
    assert same.tobytes() == blank.tobytes()


def test_boxes_narrower_than_a_pixel_are_drawn() -> None:
    blank = Image.new("RGB", (40, 60))
    for box in ([5, 40, 5.5, 49], [5, 40, 14, 40.25], [39.75, 59.75, 40, 60]):
        pixels = np.asarray(draw_boxes(blank, np.array([box]), np.array([0]), ["cat"]))
        assert tuple(pixels[int(box[1]), int(box[0])]) == tuple(PALETTE[1])


def test_masks_are_blended_and_the_background_stays() -> None:
    grey = Image.new("RGB", (4, 3), (100, 100, 100))
    mask = np.zeros((3, 4), np.uint8)
    mask[0, 0], mask[1, 1] = 1, 255
    pixels = np.asarray(draw_mask(grey, mask))
    assert tuple(pixels[0, 0]) == (114, 50, 50)  # half of (128, 0, 0), half of 100
    assert tuple(pixels[1, 1]) == (178, 178, 178)
    assert (pixels[mask == 0] == 100).all()
    with pytest.raises(UsageError, match="the picture is"):
        draw_mask(grey, mask.T)


def test_skeletons_join_what_is_labelled() -> None:
    blank = Image.new("RGB", (100, 100))
    points = np.array([[[10, 10, 2], [90, 10, 1], [50, 90, 0]]], np.float32)
    pixels = np.asarray(draw_keypoints(blank, points, [(0, 1), (1, 2)]))
    assert pixels[10, 50].any()
    assert pixels[10, 10].any()
    assert not pixels[40:].any()  # nothing leads to a point that is not labelled


def test_the_palette_is_pascals() -> None:
    # background, aeroplane, bicycle, bird, person, void
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 15: (192, 128, 128)}
    for index, colour in {**known, 255: (224, 224, 192)}.items():
        assert tuple(PALETTE[index]) == colour
