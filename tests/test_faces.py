"""Face detectors against hand-made maps, slow twins of decoding, loss and metric, the engine."""

import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, repeat
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import box_iou
from torchvision.ops import nms as other_nms

from mobilenet.detect.assign import match
from mobilenet.errors import DataError, UsageError
from mobilenet.faces import (
    FACES,
    FIVE_FLIPPED,
    FIVE_LANDMARKS,
    HEIGHTS,
    RULES,
    SIX_FLIPPED,
    SIX_LANDMARKS,
    FaceRules,
    Faces,
    FaceSpec,
    blend,
    box_side,
    create_faces,
    decode_faces,
    decode_landmarks,
    encode_landmarks,
    face_anchors,
    face_program,
    height_subset,
    interocular,
    landmark_error,
    pair_faces,
    suppress,
    wider_scores,
)
from mobilenet.faces.blaze import ROWS
from mobilenet.faces.cost import count_faces
from mobilenet.faces.loss import (
    BOX_WEIGHT,
    TrueFaces,
    covered,
    face_loss,
)
from mobilenet.faces.loss import encode_landmarks as encode_tensors
from mobilenet.faces.model import BlazeBackbone, BlazeBlock, FaceDetector
from mobilenet.faces.train import train_faces
from mobilenet.flat import Card, EngineFile, write_engine
from mobilenet.heads import HeadTraining
from mobilenet.integer import run_integer
from mobilenet.layers import LayerOptions, folded
from mobilenet.models import MODELS
from mobilenet.program import evaluate_float
from mobilenet.quantize import quantise_program
from mobilenet.scenes.wider import FLIPPED, KEYPOINTS

BLAZE, RETINA = FACES["blazeface"], FACES["retinaface_mobilenet_v1_0.25"]


pytestmark = pytest.mark.usefixtures("one_thread")


def random_faces(count: int, seed: int = 0, *, size: float = 128, landmarks: int = 5) -> Faces:
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, size * 0.7, (count, 2))
    boxes = np.concatenate([low, low + rng.uniform(12, size / 3, (count, 2))], 1)
    shares = rng.uniform(0.1, 0.9, (count, landmarks, 2))
    points = boxes[:, None, :2] + shares * (boxes[:, 2:] - boxes[:, :2])[:, None]
    return Faces(
        boxes=boxes.astype(np.float32),
        scores=rng.uniform(0.05, 1, count).astype(np.float32),
        landmarks=points.astype(np.float32),
    )


# ------------------------------------------------------------------------------------------- spec


@pytest.mark.parametrize("name", list(FACES))
def test_a_spec_survives_its_dictionary(name: str) -> None:
    spec = FACES[name]
    read = FaceSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert (read, hash(read), read.to_dict()) == (spec, hash(spec), spec.to_dict())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "ssd"}, "expected one of"),
        ({"backbone": None}, "expected a backbone"),
        ({"head": "blazeface"}, "expected backbone None"),
        ({"size": 100}, "multiple of 16"),
        ({"landmarks": 0}, "at least 1"),
        ({"filters": 48}, "multiple of 64"),
        ({"anchors": ((16.0,), (32.0,))}, "anchors of 2 maps: expected some for each of strides"),
        ({"anchors": ((16.0,), (), (32.0,))}, "anchors of 3 maps"),
        ({"anchors": ((16.0,), (0.0,), (32.0,))}, "sides above 0"),
        ({"backbone": replace(MODELS["mobilenet_v2"], output_stride=16)}, "a detector's is 32"),
    ],
)
def test_what_cannot_be_built_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        replace(RETINA, **options)


def test_a_strange_description_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown fields \\['colour'\\], missing \\[\\]"):
        FaceSpec.from_dict({**BLAZE.to_dict(), "colour": 1})
    lacking = {name: value for name, value in BLAZE.to_dict().items() if name != "size"}
    with pytest.raises(UsageError, match="missing \\['size'\\]"):
        FaceSpec.from_dict(lacking)


def test_rules_survive_their_dictionary_and_others_are_refused() -> None:
    for head, rules in RULES.items():
        assert FaceRules.from_dict(rules.to_dict()) == rules, head
    for options, message in (
        ({"merge": "soft"}, "merge 'soft': expected one of"),
        ({"threshold": -0.1}, "threshold -0.1: expected a number from 0 to 1"),
        ({"overlap": math.nan}, "overlap nan"),
        ({"most": 0}, "most 0: expected a whole number from 1"),
        ({"colour": 1}, "unknown fields \\['colour'\\]"),
    ):
        with pytest.raises(UsageError, match=message):
            FaceRules.from_dict({**RULES["blazeface"].to_dict(), **options})


def test_landmarks_are_as_wider_face_is_read_and_mirrored_ones_change_sides() -> None:
    assert FIVE_LANDMARKS == KEYPOINTS
    assert FIVE_FLIPPED == FLIPPED
    for names, flipped in ((FIVE_LANDMARKS, FIVE_FLIPPED), (SIX_LANDMARKS, SIX_FLIPPED)):
        for name, place in zip(names, flipped, strict=True):
            swapped = name.replace("left", "LEFT").replace("right", "left").replace("LEFT", "right")
            assert names[place] == swapped


def test_nothing_imports_torch_before_a_network_is_built() -> None:
    code = "import sys, mobilenet.faces, mobilenet.faces.cost; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---------------------------------------------------------------------------------------- anchors


def test_blazefaces_anchors_are_896() -> None:
    anchors = face_anchors(BLAZE, [(16, 16), (8, 8)])
    assert anchors.shape == (896, 4)
    scales = [0.1484375, 0.349, 0.5495, 0.75, 1.0]  # of MediaPipe's options
    between = [math.sqrt(a * b) for a, b in pairwise(scales)]
    sides = anchors[:, 2:] - anchors[:, :2]
    np.testing.assert_allclose(sides[:, 0], sides[:, 1], atol=1e-4)
    np.testing.assert_allclose(sides[:2, 0], [128 * scales[0], 128 * between[0]], rtol=1e-3)
    six = [128 * each[index] for index in (1, 2, 3) for each in (scales, between)]
    np.testing.assert_allclose(sides[512:518, 0], six, rtol=1e-3)
    middles = (anchors[:, 2:] + anchors[:, :2]) / 2
    np.testing.assert_allclose(
        middles[[0, 1, 2, 32, 511]], [[4, 4]] * 2 + [[12, 4], [4, 12], [124, 124]], rtol=1e-6
    )
    np.testing.assert_allclose(middles[[512, 518, 895]], [[8, 8], [24, 8], [120, 120]], rtol=1e-6)


def test_retinafaces_anchors_are_its_authors() -> None:
    height, width = 96, 160
    maps = [(math.ceil(height / stride), math.ceil(width / stride)) for stride in (8, 16, 32)]
    expected = []  # the loops of its PriorBox, in pixels
    for (rows, columns), stride, sizes in zip(
        maps, (8, 16, 32), ([16, 32], [64, 128], [256, 512]), strict=True
    ):
        for row in range(rows):
            for column in range(columns):
                for size in sizes:
                    x, y = (column + 0.5) * stride, (row + 0.5) * stride
                    expected.append([x - size / 2, y - size / 2, x + size / 2, y + size / 2])
    np.testing.assert_array_equal(face_anchors(RETINA, maps), expected)
    with pytest.raises(UsageError, match="2 maps: the strides are"):
        face_anchors(RETINA, maps[:2])


def test_landmarks_survive_their_code() -> None:
    faces = random_faces(50)
    anchors = random_faces(50, 1).boxes
    offsets = encode_landmarks(faces.landmarks, anchors)
    np.testing.assert_allclose(decode_landmarks(offsets, anchors), faces.landmarks, atol=1e-4)
    # RetinaFace's: (point - centre) / (variance * side), by hand
    by_hand = encode_landmarks(
        np.array([[[30, 25]]], np.float32), np.array([[10, 10, 30, 50]], np.float32)
    )
    np.testing.assert_allclose(by_hand, [[[10 / 20 / 0.1, -5 / 40 / 0.1]]], rtol=1e-6)
    tensors = encode_tensors(torch.from_numpy(faces.landmarks), torch.from_numpy(anchors))
    np.testing.assert_allclose(tensors, offsets, rtol=1e-5, atol=1e-5)


# ----------------------------------------------------------------------------------------- decode


def empty_maps(spec: FaceSpec, height: int, width: int, count: int = 1) -> dict[str, np.ndarray]:
    """Of surely no face."""
    maps = {}
    for name, numbers in (("classes", 1), ("boxes", 4), ("landmarks", 2 * spec.landmarks)):
        for index, (boxes, stride) in enumerate(zip(spec.boxes, spec.strides, strict=True)):
            shape = (count, boxes * numbers, height // stride, width // stride)
            maps[f"{name}.{index}"] = np.full(shape, -20 if name == "classes" else 0, np.float32)
    return maps


def write_face(
    maps: dict[str, np.ndarray],
    spec: FaceSpec,
    place: tuple[int, int, int, int],
    box: Sequence[float],
    points: np.ndarray,
    score: float,
) -> None:
    """Into the first picture, at (level, row, column, box of the pixel), by the formulas."""
    level, row, column, which = place
    stride, side = spec.strides[level], spec.anchors[level][which]
    x, y = (column + 0.5) * stride, (row + 0.5) * stride
    width, height = box[2] - box[0], box[3] - box[1]
    offsets = [
        ((box[0] + box[2]) / 2 - x) / (0.1 * side),
        ((box[1] + box[3]) / 2 - y) / (0.1 * side),
        math.log(width / side) / 0.2,
        math.log(height / side) / 0.2,
    ]
    maps[f"classes.{level}"][0, which, row, column] = math.log(score / (1 - score))
    maps[f"boxes.{level}"][0, which * 4 : which * 4 + 4, row, column] = offsets
    marks = (points - [x, y]) / (0.1 * side)
    pairs = slice(which * 2 * spec.landmarks, (which + 1) * 2 * spec.landmarks)
    maps[f"landmarks.{level}"][0, pairs, row, column] = marks.reshape(-1)


@pytest.mark.parametrize("spec", [BLAZE, RETINA], ids=["blazeface", "retinaface"])
def test_maps_become_the_faces_that_were_written_into_them(spec: FaceSpec) -> None:
    maps = empty_maps(spec, 96, 128, count=2)
    rng = np.random.default_rng(0)
    boxes = [[10.0, 12.0, 40.0, 50.0], [70.0, 30.0, 125.0, 90.0], [-20.0, 60.0, 20.0, 110.0]]
    points = rng.uniform(0, 100, (3, spec.landmarks, 2))
    places = [(0, 3, 2, 1), (1, 3, 6, 0), (1, 5, 0, 1)]
    for place, box, own, score in zip(places, boxes, points, (0.7, 0.9, 0.8), strict=True):
        write_face(maps, spec, place, box, own, score)
    # outside of the picture, and too small to have an area in it
    write_face(maps, spec, (0, 0, 0, 0), [-30, -30, -5, -5], points[0], 0.99)
    found, none = decode_faces(spec, maps, height=96, width=128)
    assert len(none.scores) == 0
    assert none.boxes.shape == (0, 4)
    assert none.landmarks.shape == (0, spec.landmarks, 2)
    order = [1, 2, 0]
    np.testing.assert_allclose(found.scores, [0.9, 0.8, 0.7], rtol=1e-5)
    expected = np.clip(np.array(boxes)[order], 0, [128, 96, 128, 96])
    np.testing.assert_allclose(found.boxes, expected, atol=1e-3)
    np.testing.assert_allclose(found.landmarks, points[order], atol=1e-3)


def test_rules_hold() -> None:
    maps = empty_maps(BLAZE, 128, 128)
    points = np.full((6, 2), 50.0)
    for column in range(8):
        box = [column * 16, 20, column * 16 + 12, 36]
        write_face(maps, BLAZE, (1, 1, column, 0), box, points, 0.1 + 0.1 * column)
    rules = FaceRules(threshold=0.35, top=4, overlap=0.3, most=3, merge="nms")
    (found,) = decode_faces(BLAZE, maps, height=128, width=128, rules=rules)
    np.testing.assert_allclose(found.scores, [0.8, 0.7, 0.6], rtol=1e-5)
    (found,) = decode_faces(BLAZE, maps, height=128, width=128, rules=replace(rules, most=9))
    assert len(found.scores) == 4  # the top
    (found,) = decode_faces(BLAZE, maps, height=128, width=128)
    assert len(found.scores) == 3  # above a half


@pytest.mark.parametrize("seed", range(4))
def test_suppressing_is_torchvisions(seed: int) -> None:
    faces = random_faces(120, seed)
    expected = other_nms(torch.from_numpy(faces.boxes), torch.from_numpy(faces.scores), 0.4)
    found = suppress(faces, 0.4)
    np.testing.assert_array_equal(found.boxes, faces.boxes[expected])
    np.testing.assert_array_equal(found.landmarks, faces.landmarks[expected])
    assert 5 < len(found.scores) < 100


def slow_blend(faces: Faces, overlap: float) -> list[tuple[float, list[float], list[list[float]]]]:
    """One number after the other."""
    rest = sorted(range(len(faces.scores)), key=lambda row: -float(faces.scores[row]))
    boxes = torch.from_numpy(faces.boxes)
    found = []
    while rest:
        first = rest[0]
        near = [
            row
            for row in rest
            if row == first or float(box_iou(boxes[[first]], boxes[[row]])[0, 0]) > overlap
        ]
        total = sum(float(faces.scores[row]) for row in near)
        box = [
            sum(float(faces.scores[row]) * float(faces.boxes[row, side]) for row in near) / total
            for side in range(4)
        ]
        points = [
            [
                sum(float(faces.scores[r]) * float(faces.landmarks[r, k, c]) for r in near) / total
                for c in range(2)
            ]
            for k in range(faces.landmarks.shape[1])
        ]
        found.append((float(faces.scores[first]), box, points))
        rest = [row for row in rest if row not in near]
    return found


@pytest.mark.parametrize("seed", range(3))
def test_blending_is_a_mean_weighted_by_scores(seed: int) -> None:
    faces = random_faces(60, seed)
    found, expected = blend(faces, 0.3), slow_blend(faces, 0.3)
    assert 5 < len(expected) < 55
    np.testing.assert_allclose(found.scores, [score for score, _, _ in expected], rtol=1e-6)
    np.testing.assert_allclose(found.boxes, [box for _, box, _ in expected], atol=1e-3)
    np.testing.assert_allclose(found.landmarks, [own for _, _, own in expected], atol=1e-3)


def test_blending_by_hand_and_of_nothing() -> None:
    faces = Faces(
        boxes=np.array([[0, 0, 10, 10], [2, 0, 12, 10], [50, 50, 50, 60]], np.float32),
        scores=np.array([0.25, 0.75, 0.5], np.float32),
        landmarks=np.array([[[4, 4]], [[8, 4]], [[1, 2]]], np.float32),
    )
    found = blend(faces, 0.3)
    np.testing.assert_allclose(found.boxes, [[1.5, 0, 11.5, 10], [50, 50, 50, 60]])
    np.testing.assert_allclose(found.landmarks, [[[7, 4]], [[1, 2]]])
    np.testing.assert_allclose(found.scores, [0.75, 0.5])
    none = blend(random_faces(0), 0.3)
    assert none.boxes.shape == (0, 4)
    assert none.landmarks.shape == (0, 5, 2)


# ---------------------------------------------------------------------------------------- network


def test_retinaface_has_its_authors_parameters_but_for_a_score() -> None:
    """Theirs has 426,608 and two scores of each of two boxes on three maps."""
    assert count_faces(RETINA).params == 426_608 - 3 * 2 * (64 + 1)


def test_blazeface_costs_what_its_table_says() -> None:
    """Each row of the paper's Table 4: 5x5 depthwise and 1x1 convolutions on its size."""
    rows = [  # size of the output, (input, output channels) of each pair
        (64, [(24, 24)]), (64, [(24, 24)]), (32, [(24, 48)]), (32, [(48, 48)]), (32, [(48, 48)]),
        (16, [(48, 24), (24, 96)]), (16, [(96, 24), (24, 96)]), (16, [(96, 24), (24, 96)]),
        (8, [(96, 24), (24, 96)]), (8, [(96, 24), (24, 96)]), (8, [(96, 24), (24, 96)]),
    ]  # fmt: skip
    madds, params = 64**2 * 75 * 24, 75 * 24 + 2 * 24
    for size, pairs in rows:
        for before, after in pairs:
            madds += size**2 * (25 * before + before * after)
            params += 25 * before + before * after + 2 * (before + after)
    numbers = 1 + 4 + 2 * 6
    for size, boxes in ((16, 2), (8, 6)):
        madds += size**2 * 96 * boxes * numbers
        params += (96 + 1) * boxes * numbers
    cost = count_faces(BLAZE)
    assert (cost.params, cost.madds) == (params, madds)
    assert [len(row.widths) for row in ROWS] == [1] * 5 + [2] * 6


def test_a_blazeblock_is_the_papers_but_for_its_pool() -> None:
    block = BlazeBackbone(LayerOptions()).eval().blocks[5]
    assert isinstance(block, BlazeBlock)
    for part in block.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias)
    x = torch.rand(1, 48, 8, 8, generator=torch.Generator().manual_seed(0))
    y = x
    for index, unit in enumerate(block.units):
        deep, point = unit.depthwise, unit.pointwise
        stride = 2 if index == 0 else 1
        y = F.conv2d(y, deep.conv.weight, stride=stride, padding=2, groups=y.shape[1])
        y = plain_norm(y, deep.norm)
        y = plain_norm(torch.einsum("oi,nihw->nohw", point.conv.weight[..., 0, 0], y), point.norm)
        if index == 0:
            y = y.clamp(min=0)
    short = torch.zeros_like(y)
    for row in range(4):
        for column in range(4):
            window = x[0, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            short[0, :48, row, column] = window.mean((1, 2))
    torch.testing.assert_close(block(x), (y + short).clamp(min=0), rtol=1e-5, atol=1e-5)


def plain_norm(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    assert norm.running_var is not None
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return x * scale[:, None, None] + norm.bias[:, None, None]


def test_blazeface_refuses_pictures_that_do_not_halve() -> None:
    network = create_faces(BLAZE).eval()
    with pytest.raises(UsageError, match="120 x 128 pixels: BlazeFace takes multiples of 16"):
        network(torch.zeros(1, 3, 120, 128))


def lively(spec: FaceSpec) -> FaceDetector:
    """Random, and no map all alike."""
    torch.manual_seed(0)
    network = create_faces(spec)
    for layers in network.head.predict.named().values():
        for layer in layers:
            nn.init.normal_(layer.weight, 0, (2 / layer.weight[0].numel()) ** 0.5)
    norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
    with torch.no_grad():
        network(torch.randn(32, 3, 96, 96, generator=torch.Generator().manual_seed(1)))
    for norm in norms:  # else channels that are always 0 grow a rounding
        assert norm.running_var is not None
        norm.running_var.clamp_(min=0.1 * norm.running_var.mean().item())
    return network.eval()


def little(name: str) -> FaceSpec:
    spec = FACES[name]
    return (
        spec
        if spec.backbone is None
        else replace(spec, backbone=replace(spec.backbone, width=0.25))
    )


def run_engine(network: Any, precision: Any, x: np.ndarray) -> dict[str, np.ndarray]:
    native = pytest.importorskip("mobilenet._engine", reason="the native engine was not built")
    height, width = x.shape[2:]
    made = EngineFile(network=network, precision=precision, height=height, width=width, card=Card())
    return native.Engine(native.Model(write_engine(made))).run(x)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("blazeface", (128, 96)),
        ("retinaface_mobilenet_v1_0.25", (97, 71)),
        ("retinaface_mobilenet_v2", (64, 96)),
    ],
)
def test_a_program_and_the_engine_answer_as_the_network(name: str, size: tuple[int, int]) -> None:
    network = lively(little(name))
    x = np.random.default_rng(3).standard_normal((2, 3, *size), np.float32)
    program = face_program(network)
    plain = folded(network)
    with torch.no_grad():
        answers = plain(torch.from_numpy(x))
        expected = plain.double()(torch.from_numpy(x).double())
    assert all(level.std() > 0.05 for level in expected.values())

    def error(found: Mapping[str, Any]) -> float:
        """The largest of any map, as a share of the map's largest value."""
        assert list(found) == list(expected)
        return max(
            abs(np.asarray(found[key]) - level.numpy()).max() / level.abs().max().item()
            for key, level in expected.items()
        )

    assert error(evaluate_float(program, x)) < 1e-7  # in float64, but for the weights of a resize
    rounding = error(answers)
    assert rounding < 1e-3
    assert error(run_engine(program, "float32", x)) < 5 * rounding


@pytest.mark.parametrize("name", ["blazeface", "retinaface_mobilenet_v1_0.25"])
def test_a_face_detector_has_an_exact_int8_form(name: str) -> None:
    program = face_program(lively(little(name)))
    x = np.random.default_rng(3).standard_normal((2, 3, 64, 80), np.float32)
    quantised = quantise_program(program, [x])
    expected = run_integer(quantised, x)
    found = run_engine(quantised, "int8", x)
    assert len(np.unique(expected["classes.0"])) > 20
    for key, level in expected.items():
        np.testing.assert_array_equal(found[key], level, err_msg=key)


# ------------------------------------------------------------------------------------------- loss


def test_matching_at_other_overlaps_by_hand() -> None:
    anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [40, 40, 80, 80]])
    boxes = torch.tensor([[0.0, 0, 10, 8], [60, 60, 70, 70]])  # IoU 0.8, 0.625; 1/16
    assert match(anchors, boxes).tolist() == [0, 0, 1]
    assert match(anchors, boxes, overlap=0.7).tolist() == [0, -1, 1]
    assert match(anchors, boxes, overlap=0.7, least=0.2).tolist() == [0, -1, -1]
    assert match(anchors, boxes[:0], least=0.2).tolist() == [-1, -1, -1]


def true_faces(faces: Faces, *, ignored: Sequence[Sequence[float]] = ()) -> TrueFaces:
    count, landmarks, _ = faces.landmarks.shape
    seen = torch.full((count, landmarks, 1), 2.0)
    return TrueFaces(
        boxes=torch.from_numpy(faces.boxes),
        landmarks=torch.cat([torch.from_numpy(faces.landmarks), seen], 2),
        ignored=torch.tensor(ignored, dtype=torch.float32).reshape(-1, 4),
    )


def random_maps(spec: FaceSpec, count: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {name: level.shape for name, level in empty_maps(spec, 96, 128, count).items()}
    return {
        name: torch.randn(shape, generator=generator).requires_grad_()
        for name, shape in shapes.items()
    }


def slow_loss(
    spec: FaceSpec, maps: Mapping[str, Tensor], truths: Sequence[TrueFaces]
) -> tuple[float, float, float]:
    """Anchor by anchor, face by face, in plain Python."""
    classes = boxes = landmarks = 0.0
    positives = 0
    for picture, truth in enumerate(truths):
        rows = []  # anchor, logit, box, landmarks
        for level, (stride, sides) in enumerate(zip(spec.strides, spec.anchors, strict=True)):
            scores = maps[f"classes.{level}"][picture].detach()
            raw, marks = maps[f"boxes.{level}"][picture], maps[f"landmarks.{level}"][picture]
            for row in range(scores.shape[1]):
                for column in range(scores.shape[2]):
                    for which, side in enumerate(sides):
                        x, y = (column + 0.5) * stride, (row + 0.5) * stride
                        corners = [x - side / 2, y - side / 2, x + side / 2, y + side / 2]
                        own = raw[4 * which : 4 * which + 4, row, column].tolist()
                        count = 2 * spec.landmarks
                        points = marks[which * count : (which + 1) * count, row, column].tolist()
                        logit = float(scores[which, row, column])
                        rows.append((x, y, side, corners, logit, own, points))
        anchors = torch.tensor([row[3] for row in rows])
        overlaps = box_iou(truth.boxes, anchors)
        chosen: list[int | None] = [None] * len(rows)
        if len(truth.boxes):
            for place in range(len(rows)):
                best = int(overlaps[:, place].argmax())
                if overlaps[best, place] >= 0.35:
                    chosen[place] = best
            for face in range(len(truth.boxes)):
                place = int(overlaps[face].argmax())
                if overlaps[face, place] >= 0.2:
                    chosen[place] = face
        wrong = []
        own_positives = 0
        for place, (x, y, side, corners, logit, own, points) in enumerate(rows):
            face = chosen[place]
            if face is None:
                spared = False
                for box in truth.ignored.tolist():
                    wide = min(corners[2], box[2]) - max(corners[0], box[0])
                    high = min(corners[3], box[3]) - max(corners[1], box[1])
                    spared |= max(wide, 0) * max(high, 0) >= 0.5 * side * side
                if not spared:
                    wrong.append(math.log1p(math.exp(logit)))
                continue
            own_positives += 1
            classes += math.log1p(math.exp(-logit))
            x0, y0, x1, y1 = truth.boxes[face].tolist()
            target = [
                ((x0 + x1) / 2 - x) / side / 0.1,
                ((y0 + y1) / 2 - y) / side / 0.1,
                math.log((x1 - x0) / side) / 0.2,
                math.log((y1 - y0) / side) / 0.2,
            ]
            boxes += sum(huber(a - b) for a, b in zip(own, target, strict=True))
            for k, (px, py, seen) in enumerate(truth.landmarks[face].tolist()):
                if seen > 0:
                    landmarks += huber(points[2 * k] - (px - x) / side / 0.1)
                    landmarks += huber(points[2 * k + 1] - (py - y) / side / 0.1)
        classes += sum(sorted(wrong, reverse=True)[: 7 * max(own_positives, 1)])
        positives += own_positives
    positives = max(positives, 1)
    return classes / positives, boxes / positives, landmarks / positives


def huber(x: float) -> float:
    return 0.5 * x * x if abs(x) < 1 else abs(x) - 0.5


@pytest.mark.parametrize("spec", [BLAZE, RETINA], ids=["blazeface", "retinaface"])
def test_the_loss_is_its_slow_twin(spec: FaceSpec) -> None:
    maps = random_maps(spec, 4)
    some = true_faces(random_faces(3, landmarks=spec.landmarks), ignored=[[60, 0, 128, 60]])
    unlabelled = true_faces(random_faces(2, 1, landmarks=spec.landmarks))
    unlabelled.landmarks[0] = 0
    unlabelled.landmarks[0, :, :2] = torch.nan  # whatever stands where nothing is labelled
    unlabelled.landmarks[1, 2, 2] = 0
    nobody = true_faces(random_faces(0, landmarks=spec.landmarks))
    crowd = true_faces(random_faces(0, landmarks=spec.landmarks), ignored=[[0, 0, 128, 96]])
    truths = [some, unlabelled, nobody, crowd]
    found = face_loss(spec, maps, truths)
    expected = slow_loss(spec, maps, truths)
    np.testing.assert_allclose([each.item() for each in found], expected, rtol=1e-4)
    assert found.landmarks.item() > 0
    total = found.classes + BOX_WEIGHT * found.boxes + found.landmarks
    torch.testing.assert_close(found.total, total)
    found.total.backward()
    for name, level in maps.items():
        assert level.grad is not None
        assert torch.isfinite(level.grad).all(), name


def test_only_background_teaches_scores_alone() -> None:
    maps = random_maps(RETINA, 1)
    found = face_loss(RETINA, maps, [true_faces(random_faces(0))])
    assert found.boxes.item() == found.landmarks.item() == 0
    hardest = sorted(
        (F.softplus(each).item() for i in range(3) for each in maps[f"classes.{i}"].flatten()),
        reverse=True,
    )
    assert found.classes.item() == pytest.approx(sum(hardest[:7]), rel=1e-5)
    # what lies in a crowd is no background; what is too small for every anchor is no face
    inside = covered(
        torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [6, 0, 16, 10]]),
        torch.tensor([[0.0, 0, 10, 20], [50, 50, 60, 60]]),
    )
    assert inside.tolist() == [True, True, False]
    everywhere = true_faces(random_faces(0), ignored=[[-999, -999, 999, 999]])
    assert face_loss(RETINA, maps, [everywhere]).classes.item() == 0
    tiny = replace_boxes(random_faces(1), [[10, 10, 13, 13]])
    again = face_loss(RETINA, maps, [true_faces(tiny)])
    torch.testing.assert_close(again, found)


def replace_boxes(faces: Faces, boxes: Sequence[Sequence[float]]) -> Faces:
    return replace(faces, boxes=np.array(boxes, np.float32))


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([10, 10, 10, 30], "picture 1 of the batch: face 1, .* no width or height"),
        ([10, 30, 20, 10], "no width or height"),
        ([10, math.nan, 20, 30], "no width or height"),
    ],
)
def test_a_degenerate_box_is_refused(box: list[float], message: str) -> None:
    maps = random_maps(RETINA, 2)
    faces = random_faces(2)
    wrong = replace_boxes(faces, [faces.boxes[0].tolist(), box])
    with pytest.raises(DataError, match=message):
        face_loss(RETINA, maps, [true_faces(faces), true_faces(wrong)])


def test_landmarks_of_another_kind_or_no_numbers_are_refused() -> None:
    maps = random_maps(RETINA, 1)
    with pytest.raises(DataError, match=r"landmarks \(2, 6, 3\) of 2 faces: expected \(2, 5, 3\)"):
        face_loss(RETINA, maps, [true_faces(random_faces(2, landmarks=6))])
    truth = true_faces(random_faces(2))
    truth.landmarks[0, 0, 0] = torch.nan
    with pytest.raises(DataError, match="no numbers; mark them 0"):
        face_loss(RETINA, maps, [truth])


# --------------------------------------------------------------------------------------- training


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """What the metric reads of a scene."""

    boxes: np.ndarray
    labels: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray


def picture(boxes: Any, crowd: Sequence[bool] = ()) -> Picture:
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    return Picture(
        boxes=corners,
        labels=np.zeros(len(corners), np.int64),
        areas=(corners[:, 2:] - corners[:, :2]).prod(1),
        crowd=np.array(crowd, bool) if crowd else np.zeros(len(corners), bool),
    )


def drawn(spec: FaceSpec, size: int = 64) -> tuple[Tensor, list[TrueFaces]]:
    """Bright squares with a dark dot at every landmark, on a noisy ground; a picture without one,
    and a face whose landmarks are not labelled."""
    rng = np.random.default_rng(0)
    shares = np.array([[0.3, 0.3], [0.7, 0.3], [0.5, 0.5], [0.3, 0.75], [0.7, 0.75], [0.5, 0.9]])
    shares = shares[: spec.landmarks]
    images = rng.normal(0, 0.2, (6, 3, size, size)).astype(np.float32)
    truths = []
    for index, image in enumerate(images):
        boxes, marks = [], []
        for _ in range(index > 0):
            side = int(rng.integers(18, 34))
            left, top = rng.integers(0, size - side, 2)
            image[:, top : top + side, left : left + side] = 1.5
            points = np.array([left, top]) + shares * side
            for x, y in points.astype(int):
                image[:, y - 1 : y + 2, x - 1 : x + 2] = -1.5
            boxes.append([left, top, left + side, top + side])
            marks.append(np.column_stack([points, np.full(len(points), 2 * (index < 5))]))
        truths.append(
            TrueFaces(
                boxes=torch.tensor(np.array(boxes), dtype=torch.float32).reshape(-1, 4),
                landmarks=torch.tensor(np.array(marks), dtype=torch.float32).reshape(
                    -1, spec.landmarks, 3
                ),
                ignored=torch.zeros(0, 4),
            )
        )
    return torch.from_numpy(images), truths


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "steps"), [("blazeface", 150), ("retinaface_mobilenet_v1_0.25", 120)]
)
def test_a_few_pictures_are_learnt_by_heart(name: str, steps: int) -> None:
    spec = FACES[name]
    torch.manual_seed(0)
    network = create_faces(spec)
    images, truths = drawn(spec)
    seen: list[float] = []
    state = train_faces(
        network,
        repeat((images, truths)),
        HeadTraining(steps=steps, lr=3e-3, backbone_rate=1.0, average=0.95),
        report=lambda step, loss: seen.append(loss),
    )
    assert seen[-1] < seen[0] / 5
    network.load_state_dict(state)
    network.eval()
    with torch.no_grad():
        maps = {key: level.numpy() for key, level in network(images).items()}
    found = decode_faces(spec, maps, height=64, width=64, rules=RULES["blazeface"])
    assert len(found[0].scores) == 0
    score = wider_scores([picture(each.boxes.numpy()) for each in truths], found)
    assert score.ap > 0.95
    for own, truth in list(zip(found, truths, strict=True))[1:5]:
        rows, places = pair_faces(truth.boxes.numpy(), own)
        sides = box_side(truth.boxes[rows].numpy())
        errors = landmark_error(own.landmarks[places], truth.landmarks[rows].numpy(), sides)
        assert errors.shape == (1,)
        assert errors[0] < 0.1


# ----------------------------------------------------------------------------------------- metric


def as_found(boxes: Any, scores: Sequence[float]) -> Faces:
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    return Faces(
        boxes=corners,
        scores=np.array(scores, np.float32),
        landmarks=np.zeros((len(corners), 5, 2), np.float32),
    )


def slow_wider(
    truths: Sequence[Picture], found: Sequence[Faces], subset: Sequence[np.ndarray]
) -> float:
    """The evaluation's steps one after the other, with its lists of -1, 0 and 1."""
    every = [float(score) for own in found for score in own.scores]
    low, high = min(every), max(every)
    curve = [[0, 0] for _ in range(1000)]
    faces = 0
    for truth, own, keep in zip(truths, found, subset, strict=True):
        keep = [bool(k) and not bool(c) for k, c in zip(keep, truth.crowd, strict=True)]
        faces += sum(keep)
        order = sorted(range(len(own.scores)), key=lambda row: -float(own.scores[row]))
        recall = [0] * len(keep)
        proposal = [1] * len(order)
        reached = []
        for place, row in enumerate(order):
            overlaps = []
            for box in truth.boxes.tolist():
                mine = own.boxes[row].tolist()
                wide = min(mine[2], box[2]) - max(mine[0], box[0]) + 1
                high_ = min(mine[3], box[3]) - max(mine[1], box[1]) + 1
                inside = max(wide, 0) * max(high_, 0)
                areas = [(b[2] - b[0] + 1) * (b[3] - b[1] + 1) for b in (mine, box)]
                overlaps.append(inside / (sum(areas) - inside))
            if overlaps and max(overlaps) >= 0.5:
                face = overlaps.index(max(overlaps))
                if not keep[face]:
                    recall[face], proposal[place] = -1, -1
                elif recall[face] == 0:
                    recall[face] = 1
            reached.append(recall.count(1))
        for t in range(1000):
            threshold = 1 - (t + 1) / 1000
            above = [
                place
                for place, row in enumerate(order)
                if (float(own.scores[row]) - low) / (high - low) >= threshold
            ]
            if above:
                curve[t][0] += proposal[: above[-1] + 1].count(1)
                curve[t][1] += reached[above[-1]]
    precision = [right / all_ if all_ else 0.0 for all_, right in curve]
    recall = [right / faces for _, right in curve]
    area, before = 0.0, 0.0
    for t in range(1000):
        area += (recall[t] - before) * max(precision[t:])
        before = recall[t]
    return area


@pytest.mark.parametrize("seed", range(3))
def test_wider_faces_ap_is_its_slow_twin(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truths, found, subset = [], [], []
    for index in range(12):
        own = random_faces(int(rng.integers(0, 9)), seed * 100 + index)
        crowd = rng.random(len(own.boxes)) < 0.15
        truths.append(picture(own.boxes, crowd.tolist()))
        moved = np.repeat(own.boxes, 2, axis=0) + rng.normal(0, 4, (2 * len(own.boxes), 4))
        wrong = random_faces(int(rng.integers(0, 6)), seed * 100 + index + 50).boxes
        boxes = np.concatenate([moved, wrong]) if index % 4 else np.zeros((0, 4))
        found.append(as_found(boxes, rng.uniform(0.02, 0.98, len(boxes)).round(2).tolist()))
        subset.append(rng.random(len(own.boxes)) < 0.7)
    result = wider_scores(truths, found, subset=subset)
    assert result.ap == pytest.approx(slow_wider(truths, found, subset), abs=1e-12)
    assert 0.1 < result.ap < 0.9
    assert result.pictures == 12
    assert result.faces == sum(
        int((own & ~truth.crowd).sum()) for own, truth in zip(subset, truths, strict=True)
    )
    everything = [np.ones(len(truth.boxes), bool) for truth in truths]
    assert wider_scores(truths, found).ap == wider_scores(truths, found, subset=everything).ap


def test_wider_faces_ap_by_hand() -> None:
    boxes = [[0, 0, 20, 20], [50, 50, 90, 90]]
    twice = [[0, 0, 20, 20], [0, 0, 20, 20], [50, 50, 90, 90]]
    # right, wrong (the same face again), right: precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1
    result = wider_scores([picture(boxes)], [as_found(twice, [0.9, 0.8, 0.7])])
    assert result.ap == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert (result.faces, result.pictures) == (2, 1)
    assert (result.recall[0], result.recall[-1]) == (0.5, 1)
    # a crowd's face is neither right nor wrong, however often it is found
    crowd = wider_scores([picture(boxes, [True, False])], [as_found(twice, [0.9, 0.8, 0.7])])
    assert (crowd.ap, crowd.faces) == (1, 1)
    only = wider_scores(
        [picture(boxes)], [as_found(twice, [0.9, 0.8, 0.7])], subset=[np.array([True, False])]
    )
    assert only.ap == 1  # its second finding is wrong, but comes behind
    assert only.precision[-1] == 0.5
    # nothing found; and found where there is no face
    assert wider_scores([picture(boxes)], [as_found([], [])]).ap == 0
    both = [picture([]), picture(boxes[:1])]
    blind = wider_scores(both, [as_found(boxes[:1], [0.9]), as_found(boxes[:1], [0.5])])
    assert blind.ap == pytest.approx(0.5)
    assert math.isnan(wider_scores([picture([])], [as_found(boxes, [0.9, 0.8])]).ap)
    # equal scores, and a box without area
    assert wider_scores([picture(boxes)], [as_found(boxes, [0.4, 0.4])]).ap == 1
    flat = wider_scores([picture(boxes)], [as_found([[5, 5, 5, 5], *boxes], [0.9, 0.8, 0.7])])
    assert flat.ap == pytest.approx(2 / 3)


def test_subsets_by_height() -> None:
    truths = [picture([[0, 0, 9, 9], [0, 0, 5, 10], [0, 0, 40, 30]]), picture([]),
              picture([[0, 10, 5, 60]])]  # fmt: skip
    expected = {"easy": [0, 0, 1], "medium": [1, 0, 1], "hard": [2, 0, 1]}
    for name, least in HEIGHTS.items():
        assert [int(each.sum()) for each in height_subset(truths, least)] == expected[name]


def test_pictures_that_are_not_as_many_are_refused() -> None:
    with pytest.raises(UsageError, match="1 pictures labelled, 0 found"):
        wider_scores([picture([])], [])
    with pytest.raises(UsageError, match="picture 0: 0 faces, subset of 2"):
        wider_scores([picture([])], [as_found([], [])], subset=[np.ones(2, bool)])


def test_faces_are_paired_by_the_surest_first() -> None:
    truth = np.array([[0, 0, 10, 10], [4, 0, 14, 10], [50, 50, 60, 60]], np.float32)
    found = as_found([[0, 0, 10, 10], [1, 0, 11, 10], [80, 80, 90, 90]], [0.7, 0.9, 0.8])
    rows, places = pair_faces(truth, found)  # the first is left its second best, IoU 6 / 14
    assert (rows.tolist(), places.tolist()) == ([0], [1])
    rows, places = pair_faces(truth, found, overlap=0.4)
    assert (rows.tolist(), places.tolist()) == ([0, 1], [1, 0])
    for boxes, faces in ((truth[:0], found), (truth, as_found([], []))):
        rows, places = pair_faces(boxes, faces)
        assert len(rows) == len(places) == 0


def test_a_scenes_crowds_are_ignored() -> None:
    boxes = np.array([[0, 0, 10, 10], [20, 20, 40, 40]], np.float32)
    crowd = np.array([False, True])
    points = np.arange(2 * 5 * 3, dtype=np.float32).reshape(2, 5, 3)
    truth = TrueFaces.of(boxes, crowd, points, landmarks=5)
    np.testing.assert_array_equal(truth.boxes, boxes[:1])
    np.testing.assert_array_equal(truth.ignored, boxes[1:])
    np.testing.assert_array_equal(truth.landmarks, points[:1])
    bare = TrueFaces.of(boxes, crowd, None, landmarks=5)
    assert (bare.landmarks == 0).all()
    assert bare.landmarks.shape == (1, 5, 3)


def test_landmark_error_by_hand() -> None:
    truth = np.array([[[0, 0, 2], [6, 8, 1], [3, 3, 0]], [[0, 0, 0]] * 3], np.float32)
    found = np.array([[[3, 4], [6, 8], [90, 90]], [[1, 1]] * 3], np.float32)
    eyes = interocular(truth)
    assert eyes.tolist() == [10, 0]
    errors = landmark_error(found, truth, eyes)
    assert errors[0] == pytest.approx(2.5 / 10)
    assert math.isnan(errors[1])  # nothing of it is labelled
    sides = box_side(np.array([[0, 0, 4, 9], [0, 0, 1, 1]], np.float32))
    assert sides.tolist() == [6, 1]
    assert landmark_error(found, truth, sides)[0] == pytest.approx(2.5 / 6)
    profile = truth.copy()
    profile[0, 1, :2] = 0
    with pytest.raises(DataError, match=r"face 0: its size is 0\.0; normalise by box_side"):
        landmark_error(found, profile, interocular(profile))
    with pytest.raises(UsageError, match=r"expected \(N, K, 2\) and"):
        landmark_error(found[:, :2], truth, eyes)
    with pytest.raises(UsageError, match="1 sizes of 2 faces"):
        landmark_error(found, truth, eyes[:1])
