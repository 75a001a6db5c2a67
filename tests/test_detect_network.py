"""Detectors against torchvision's SSDLite, its loss and focal loss, papers' counts, the engine."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import ssdlite320_mobilenet_v3_large
from torchvision.models.detection._utils import SSDMatcher
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.ssdlite import SSDLiteHead
from torchvision.ops import box_iou, generalized_box_iou, sigmoid_focal_loss

from mobilenet.backbone import load_backbone
from mobilenet.detect import (
    DETECTORS,
    TORCHVISION,
    DecodeRules,
    DetectorSpec,
    anchor_boxes,
    create_detector,
    decode_maps,
    detection_scores,
    detector_program,
    point_grid,
    tensorflow_anchors,
    torchvision_anchors,
)
from mobilenet.detect.assign import align, match
from mobilenet.detect.boxes import encode as encode_arrays
from mobilenet.detect.cost import count_detector
from mobilenet.detect.loss import (
    detector_loss,
    encode,
    focal_loss,
    giou,
    point_loss,
    softmax_loss,
)
from mobilenet.detect.model import PRIOR, Detector, flatten
from mobilenet.detect.train import train_detector
from mobilenet.detect.weights import torchvision_state
from mobilenet.errors import TrainingError, UsageError, WeightsError
from mobilenet.flat import Card, EngineFile, write_engine
from mobilenet.heads import HeadTraining
from mobilenet.integer import run_integer
from mobilenet.layers import folded
from mobilenet.models import MODELS, create
from mobilenet.program import Program, evaluate_float
from mobilenet.quantize import quantise_program

M = TypeVar("M", bound=nn.Module)


pytestmark = pytest.mark.usefixtures("one_thread")


def settled(network: M, size: int, *, count: int = 4) -> M:
    """In evaluation mode, the norms with the statistics of random pictures."""
    norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(count, 3, size, size, generator=generator)
    with torch.no_grad():
        if isinstance(network, SSD):
            network.head(list(network.backbone(images).values()))
        else:
            network(images)
    return network.eval()


# ------------------------------------------------------------------------------------------ spec


@pytest.mark.parametrize("name", list(DETECTORS))
def test_a_spec_survives_its_dictionary(name: str) -> None:
    spec = DETECTORS[name]
    assert DetectorSpec.from_dict(spec.to_dict()) == spec
    assert hash(DetectorSpec.from_dict(spec.to_dict())) == hash(spec)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "yolo"}, "expected one of"),
        ({"loss": "hinge"}, "expected one of"),
        ({"classes": 0}, "at least 1"),
        ({"anchors": None}, "anchors are missing"),
        ({"extras": (512,)}, "anchors of 6 maps"),
        ({"extras": (512, 256, 256, 8)}, "at least 16"),
        ({"anchors": (((0.1, 0.0),),) * 6}, "above 0"),
        ({"head": "fcos"}, "expected anchors None"),
        ({"head": "fcos", "loss": "sigmoid", "anchors": None, "filters": 40}, "multiple of 16"),
        ({"backbone": replace(MODELS["mobilenet_v2"], output_stride=16)}, "a detector's is 32"),
        ({"backbone": MODELS["mobilenet_v1"], "reduced_tail": True}, "reduced"),
    ],
)
def test_what_cannot_be_built_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        DetectorSpec(**options)
    with pytest.raises(UsageError, match="unknown fields \\['colour'\\]"):
        DetectorSpec.from_dict({**DetectorSpec().to_dict(), "colour": 1})


# ------------------------------------------------------------------------------------------ costs


def test_torchvisions_ssdlite_has_torchvisions_cost() -> None:
    cost = count_detector(TORCHVISION["ssdlite320_mobilenet_v3_large"])
    assert cost.params == 3_440_060
    assert cost.madds == 583_171_904


@pytest.mark.parametrize(
    ("backbone", "options", "size", "params", "madds"),
    [
        # V1 paper, Table 13
        ("mobilenet_v1", {"head": "ssd", "classes": 90}, 300, 6.8, 1.2),
        # V2 paper, Table 6
        ("mobilenet_v1", {"classes": 80}, 320, 5.1, 1.3),
        ("mobilenet_v2", {"classes": 80}, 320, 4.3, 0.8),
        # V3 paper, Table 6, whose counts fit 90 classes
        ("mobilenet_v3_large", {"classes": 90}, 320, 4.97, 0.62),
        ("mobilenet_v3_large", {"classes": 90, "reduced_tail": True}, 320, 3.22, 0.51),
        ("mobilenet_v3_small", {"classes": 90}, 320, 2.49, 0.21),
        ("mobilenet_v3_small", {"classes": 90, "reduced_tail": True}, 320, 1.77, 0.16),
    ],
)
def test_costs_are_the_papers(
    backbone: str, options: dict[str, Any], size: int, params: float, madds: float
) -> None:
    spec = DetectorSpec(backbone=MODELS[backbone], anchors=tensorflow_anchors(), **options)
    cost = count_detector(spec, size)
    assert cost.params / 1e6 == pytest.approx(params, rel=0.015)
    assert cost.madds / 1e9 == pytest.approx(madds, rel=0.035)


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small"])
def test_the_head_without_anchors_costs_what_ssdlite_does(name: str) -> None:
    points = count_detector(DETECTORS[f"fcos_{name}"])
    anchors = count_detector(DETECTORS[f"ssdlite_{name}"])
    assert 0.9 < points.madds / anchors.madds <= 1
    assert points.params < anchors.params


# ------------------------------------------------------------------------------------ torchvision


def test_torchvisions_state_gives_torchvisions_outputs_and_boxes() -> None:
    torch.manual_seed(0)
    other = ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, score_thresh=0.02, detections_per_img=200
    )
    for part in other.head.modules():  # else all answers are alike
        if isinstance(part, nn.Conv2d):
            nn.init.normal_(part.weight, 0.0, 0.1)
    other = settled(other, 320)
    spec = TORCHVISION["ssdlite320_mobilenet_v3_large"]
    mine = create_detector(spec)
    mine.load_state_dict(torchvision_state(spec, other.state_dict()))
    mine.eval()
    images = torch.rand(2, 3, 320, 320, generator=torch.Generator().manual_seed(0))
    normal = (images - 0.5) / 0.5
    with torch.no_grad():
        raw = other.head(list(other.backbone(normal).values()))
        expected = other(list(images))
        maps = mine(normal)
    close = {"rtol": 0, "atol": 1e-4}
    assert raw["cls_logits"].std() > 0.1
    torch.testing.assert_close(flatten(maps, "classes", 91), raw["cls_logits"], **close)
    torch.testing.assert_close(flatten(maps, "boxes", 4), raw["bbox_regression"], **close)

    arrays = {name: level.numpy() for name, level in maps.items()}
    rules = DecodeRules(threshold=0.02, top=300, overlap=0.55, most=200)
    found = decode_maps(spec, arrays, height=320, width=320, rules=rules)
    for ours, theirs in zip(found, expected, strict=True):
        assert len(theirs["scores"]) > 50
        np.testing.assert_array_equal(ours.labels + 1, theirs["labels"])
        np.testing.assert_allclose(ours.scores, theirs["scores"], atol=1e-5)
        np.testing.assert_allclose(ours.boxes, theirs["boxes"], atol=1e-2)


def test_a_head_on_v2_answers_as_torchvisions() -> None:
    spec = DetectorSpec(backbone=replace(MODELS["mobilenet_v2"], width=0.35), classes=3)
    network = settled(create_detector(spec), 96)
    head = SSDLiteHead(
        [network.backbone.taps[name].channels for name in spec.taps] + list(spec.extras),
        list(spec.boxes),
        4,
        nn.BatchNorm2d,
    )
    theirs = head.state_dict()
    for name, value in network.head.state_dict().items():
        side, index, *rest = name.split(".")
        if side == "extras":
            continue
        kind = {"classes": "classification_head", "boxes": "regression_head"}[side]
        place = {"depthwise.conv": "0.0", "depthwise.norm": "0.1", "conv": "1"}
        theirs[f"{kind}.module_list.{index}.{place['.'.join(rest[:-1])]}.{rest[-1]}"] = value
    head.load_state_dict(theirs)
    head.eval()
    x = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        maps = list(network.backbone.features(x, spec.taps).values())
        for extra in network.head.extras:
            maps.append(extra(maps[-1]))
        expected, found = head(maps), network(x)
    torch.testing.assert_close(flatten(found, "classes", 4), expected["cls_logits"])
    torch.testing.assert_close(flatten(found, "boxes", 4), expected["bbox_regression"])


def test_a_state_of_something_else_is_refused() -> None:
    spec = TORCHVISION["ssdlite320_mobilenet_v3_large"]
    state = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None).state_dict()
    lacking = {name: value for name, value in state.items() if "extra.0.0" not in name}
    with pytest.raises(WeightsError, match=r"missing \['backbone.extra.0.0"):
        torchvision_state(spec, lacking)
    with pytest.raises(WeightsError, match=r"left over \['more'\]"):
        torchvision_state(spec, {**state, "more": torch.zeros(1)})
    with pytest.raises(WeightsError, match="torchvision has no head 'fcos'"):
        torchvision_state(DETECTORS["fcos_mobilenet_v2"], state)
    with pytest.raises(WeightsError, match="on mobilenet_v1"):
        torchvision_state(DETECTORS["ssdlite_mobilenet_v1"], state)


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("ssd_mobilenet_v1", 0),
        ("ssdlite_mobilenet_v2", 0),
        ("fcos_mobilenet_v2", 0),
        ("ssdlite_mobilenet_v3_large", 5 + 2 * 19 + 5),
    ],
)
def test_a_classifiers_weights_load_into_the_backbone(name: str, left: int) -> None:
    spec = little(name)
    torch.manual_seed(1)
    classifier = create(replace(spec.backbone, classes=7)).eval()
    detector = create_detector(spec).eval()
    kept = load_backbone(detector.backbone, classifier.state_dict(), halved=spec.reduced_tail)
    assert len(kept) == left  # one projection, two blocks, the last layer
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    taps = [tap for tap in spec.taps if left == 0 or tap != "last"]
    with torch.no_grad():
        found = detector.backbone.features(x, taps)
        expected = classifier.backbone.features(x, taps)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


# ------------------------------------------------------------------------- assignment and losses

MAPS = [(6, 6), (3, 3), (2, 2), (1, 1), (1, 1), (1, 1)]  # of 96 pixels


def truth(
    counts: list[int], classes: int, *, size: float = 96
) -> tuple[list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(3)
    boxes, labels = [], []
    for count in counts:
        low = torch.rand(count, 2, generator=generator) * size * 0.7
        sides = 8 + torch.rand(count, 2, generator=generator) * size / 3
        boxes.append(torch.cat([low, low + sides], 1))
        labels.append(torch.randint(0, classes, (count,), generator=generator))
    return boxes, labels


def anchors_of_96() -> Tensor:
    return torch.from_numpy(anchor_boxes(torchvision_anchors(), MAPS, height=96, width=96))


def test_matching_is_torchvisions() -> None:
    anchors = anchors_of_96()
    matcher = SSDMatcher(0.5)
    for own in truth([1, 3, 8, 20], 5)[0]:
        expected = matcher(box_iou(own, anchors))
        found = match(anchors, own)
        torch.testing.assert_close(found, expected.clamp(min=-1))
        assert set(range(len(own))) - set(found.tolist()) == set() or len(own) > 8
    assert (match(anchors, torch.zeros(0, 4)) == -1).all()


def test_softmax_loss_is_torchvisions() -> None:
    anchors, classes = anchors_of_96(), 5
    boxes, labels = truth([4, 1, 0, 7], classes)
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(4, len(anchors), classes + 1, generator=generator)
    raw = torch.randn(4, len(anchors), 4, generator=generator)
    other = SSD(
        nn.Identity(), DefaultBoxGenerator([[2]]), (96, 96), classes + 1, head=nn.Identity()
    )
    expected = other.compute_loss(
        [{"boxes": b, "labels": own + 1} for b, own in zip(boxes, labels, strict=True)],
        {"bbox_regression": raw, "cls_logits": scores},
        [anchors] * 4,
        [match(anchors, own) for own in boxes],
    )
    found = softmax_loss(scores, raw, anchors, boxes, labels)
    torch.testing.assert_close(found.classes, expected["classification"])
    torch.testing.assert_close(found.boxes, expected["bbox_regression"])


def test_offsets_are_those_that_are_decoded() -> None:
    first, second = truth([30, 30], 2)[0]
    expected = encode_arrays(first.numpy(), second.numpy())
    np.testing.assert_allclose(encode(first, second), expected, rtol=1e-4, atol=1e-4)


def test_focal_loss_is_torchvisions() -> None:
    anchors, classes = anchors_of_96(), 3
    boxes, labels = truth([4, 0], classes)
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, len(anchors), classes, generator=generator)
    raw = torch.zeros(2, len(anchors), 4)
    chosen = match(anchors, boxes[0])
    target = torch.zeros_like(scores)
    for place in torch.where(chosen >= 0)[0]:
        target[0, place, labels[0][chosen[place]]] = 1
    expected = sigmoid_focal_loss(scores, target, alpha=0.75, gamma=2, reduction="sum")
    found = focal_loss(scores, raw, anchors, boxes, labels)
    torch.testing.assert_close(found.classes, expected / (chosen >= 0).sum())


def test_generalised_overlap_is_torchvisions() -> None:
    first, second = truth([40, 40], 2)[0]
    torch.testing.assert_close(giou(first, second), generalized_box_iou(first, second).diagonal())


def test_points_are_given_to_the_boxes_that_they_answer() -> None:
    points = torch.tensor([[4.0, 4], [12, 4], [20, 4], [28, 4], [60, 60]])
    boxes = torch.tensor([[0.0, 0, 16, 8], [8, 0, 32, 8], [50, 50, 53, 53]])
    labels = torch.tensor([0, 1, 0])
    found = torch.tensor(
        [
            [0.0, 0, 16, 8],  # the first box exactly
            [8.0, 0, 32, 8],  # in both boxes, answers the second exactly
            [8.0, 0, 32, 8],
            [8.0, 0, 20, 8],  # half of the second
            [50.0, 50, 53, 53],
        ]
    )
    scores = torch.full((5, 2), 0.5)
    scores[2, 1] = 0.25
    aligned = align(points, scores, found, boxes, labels)
    # the third has no point inside: the nearest is its own
    assert aligned.box.tolist() == [0, 1, 1, 1, 2]
    # the best of a box is told its IoU, 1; the others their share of the fitness s IoU^6
    expected = [1, 1, 0.5, 0.5**6, 1]
    torch.testing.assert_close(aligned.quality, torch.tensor(expected), rtol=1e-4, atol=1e-6)
    none = align(points, scores, found, boxes[:0], labels[:0])
    assert (none.box == -1).all()
    assert (none.quality == 0).all()


def test_point_loss_by_hand() -> None:
    points, strides = torch.tensor([[8.0, 8], [24, 8]]), torch.tensor([16.0, 16])
    inverse = math.log(math.expm1(0.5))  # softplus of it is a half: 8 pixels to each side
    raw = torch.full((1, 2, 4), inverse)
    scores = torch.tensor([[[0.0], [-1.0]]])
    boxes, labels = [torch.tensor([[0.0, 0, 16, 16]])], [torch.tensor([0])]
    losses = point_loss(scores, raw, points, strides, boxes, labels)
    # quality 1 for the first (the box exactly), 0 for the second: |p - q|² BCE of both
    first = 0.25 * math.log(2)
    p = 1 / (1 + math.e)
    second = p * p * -math.log(1 - p)
    assert losses.classes.item() == pytest.approx(first + second, rel=1e-4)
    assert losses.boxes.item() == pytest.approx(0, abs=1e-5)
    nothing = point_loss(scores, raw, points, strides, [torch.zeros(0, 4)], [labels[0][:0]])
    assert nothing.boxes == 0
    assert nothing.classes > 0


# ---------------------------------------------------------------------------------------- program


def little(name: str, **options: Any) -> DetectorSpec:
    spec = DETECTORS[name]
    backbone = replace(spec.backbone, width=0.35, **options)
    return replace(spec, backbone=backbone, classes=3, size=96, filters=32, extras=(32,) * 4)


def lively(spec: DetectorSpec) -> Detector:
    """Random, and no map all alike."""
    torch.manual_seed(0)
    network = create_detector(spec)
    for name, part in network.head.named_modules():
        if isinstance(part, nn.Conv2d) and not name.startswith("laterals"):
            nn.init.normal_(part.weight, 0, (2 / part.weight[0].numel()) ** 0.5)
    settled(network, 96, count=32)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):  # else channels that are always 0 grow a rounding
            assert part.running_var is not None
            part.running_var.clamp_(min=0.1 * part.running_var.mean().item())
    return network


def run_engine(network: Any, precision: Any, x: np.ndarray) -> dict[str, np.ndarray]:
    native = pytest.importorskip("mobilenet._engine", reason="the native engine was not built")
    height, width = x.shape[2:]
    made = EngineFile(network=network, precision=precision, height=height, width=width, card=Card())
    return native.Engine(native.Model(write_engine(made))).run(x)


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        *((name, {}, (96, 96)) for name in DETECTORS),
        ("ssdlite_mobilenet_v2", {"padding": "same"}, (97, 70)),
        ("ssd_mobilenet_v1", {"padding": "same"}, (75, 96)),
        ("fcos_mobilenet_v3_large", {}, (97, 71)),
    ],
)
def test_a_program_and_the_engine_answer_as_the_detector(
    name: str, options: dict[str, Any], size: tuple[int, int]
) -> None:
    network = lively(little(name, **options))
    x = np.random.default_rng(3).standard_normal((2, 3, *size), np.float32)
    program = detector_program(network)
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
    # thirty layers with random norms make much of a rounding: PyTorch's float32 is the measure
    rounding = error(answers)
    assert rounding < 1e-3
    assert error(run_engine(program, "float32", x)) < 5 * rounding


@pytest.mark.parametrize("name", list(DETECTORS))
def test_every_listed_detector_has_an_exact_int8_form(name: str) -> None:
    program: Program = detector_program(lively(little(name)))
    x = np.random.default_rng(3).standard_normal((2, 3, 64, 81), np.float32)
    quantised = quantise_program(program, [x])
    expected = run_integer(quantised, x)
    found = run_engine(quantised, "int8", x)
    assert len(np.unique(expected["classes.0"])) > 20
    for key, level in expected.items():
        np.testing.assert_array_equal(found[key], level, err_msg=key)


# --------------------------------------------------------------------------------------- training


def drawn(count: int, size: int) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Pictures of a bright square and a dark bar on a noisy ground, and their boxes."""
    rng = np.random.default_rng(0)
    images = rng.normal(0, 0.2, (count, 3, size, size)).astype(np.float32)
    boxes, labels = [], []
    for image in images:
        own = []
        for label, (height, width) in enumerate(((size // 3, size // 3), (size // 5, size // 2))):
            left, top = rng.integers(0, size - width), rng.integers(0, size - height)
            image[:, top : top + height, left : left + width] = (1.5, -1.5)[label]
            own.append([left, top, left + width, top + height])
        boxes.append(torch.tensor(own, dtype=torch.float32))
        labels.append(torch.arange(2))
    return torch.from_numpy(images), boxes, labels


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    boxes: np.ndarray
    labels: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray


def scored(detector: Detector, state: dict[str, Tensor], size: int) -> float:
    """AP50 of the averaged weights on what they were trained on."""
    images, boxes, labels = drawn(8, size)
    detector.load_state_dict(state)
    detector.eval()
    with torch.no_grad():
        maps = {name: level.numpy() for name, level in detector(images).items()}
    truths = [
        Picture(
            boxes=own.numpy(),
            labels=label.numpy(),
            areas=(own[:, 2:] - own[:, :2]).prod(1).numpy(),
            crowd=np.zeros(len(own), bool),
        )
        for own, label in zip(boxes, labels, strict=True)
    ]
    found = decode_maps(detector.spec, maps, height=size, width=size)
    return detection_scores(truths, found, classes=2).ap50


# spec and steps
TRAINED = {
    "softmax": (replace(DETECTORS["ssdlite_mobilenet_v2"], anchors=tensorflow_anchors()), 80),
    "focal": (
        replace(DETECTORS["ssdlite_mobilenet_v2"], anchors=tensorflow_anchors(), loss="sigmoid"),
        80,
    ),
    "points": (DETECTORS["fcos_mobilenet_v2"], 120),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(TRAINED))
def test_a_few_pictures_are_learnt_by_heart(name: str) -> None:
    pytest.importorskip("pycocotools")
    spec, steps = TRAINED[name]
    backbone = replace(spec.backbone, width=0.25)
    torch.manual_seed(0)
    detector = create_detector(
        replace(spec, backbone=backbone, classes=2, filters=32, extras=(32,) * 4)
    )
    seen: list[float] = []
    state = train_detector(
        detector,
        repeat(drawn(8, 64)),
        HeadTraining(steps=steps, lr=3e-3, backbone_rate=1.0, average=0.95),
        report=lambda step, loss: seen.append(loss),
    )
    assert len(seen) == steps
    assert seen[-1] < seen[0] / 5
    assert scored(detector, state, 64) > 0.9


@pytest.mark.parametrize("name", ["ssdlite_mobilenet_v2", "fcos_mobilenet_v2"])
def test_a_frozen_backbone_does_not_move(name: str) -> None:
    torch.manual_seed(0)
    detector = create_detector(little(name))
    before = {key: value.clone() for key, value in detector.backbone.state_dict().items()}
    head = {key: value.clone() for key, value in detector.head.state_dict().items()}
    images, _, _ = drawn(2, 64)
    batch = (images, [torch.zeros(0, 4)] * 2, [torch.zeros(0, dtype=torch.long)] * 2)  # no objects
    options = HeadTraining(steps=2, backbone_rate=0)
    state = train_detector(detector, repeat(drawn(2, 64)), options)
    for key, value in before.items():
        torch.testing.assert_close(detector.backbone.state_dict()[key], value, rtol=0, atol=0)
        torch.testing.assert_close(state[f"backbone.{key}"], value, rtol=0, atol=0)
    moved = [key for key, value in detector.head.state_dict().items() if (value != head[key]).any()]
    assert any(key.startswith("classes.0") for key in moved)
    train_detector(detector, repeat(batch), options)  # only background: finite


def test_training_stops_where_it_cannot_go_on() -> None:
    detector = create_detector(little("ssdlite_mobilenet_v3_small"))
    with pytest.raises(TrainingError, match="ended after 1 of 3 steps"):
        train_detector(detector, [drawn(2, 64)], HeadTraining(steps=3))
    images, boxes, labels = drawn(2, 64)
    with pytest.raises(TrainingError, match="step 0: the loss is nan"):
        train_detector(detector, [(images * torch.nan, boxes, labels)], HeadTraining(steps=1))
    with pytest.raises(UsageError, match="at least 1 step"):
        HeadTraining(steps=0)


@pytest.mark.parametrize(("loss", "prior"), [("sigmoid", PRIOR), ("softmax", 0.0)])
def test_a_score_starts_from_its_prior(loss: Any, prior: float) -> None:
    detector = create_detector(replace(little("ssdlite_mobilenet_v3_small"), loss=loss))
    for conv in detector.head.last_of_classes():
        assert conv.bias is not None
        assert (conv.bias == prior).all()


def test_a_loss_is_chosen_by_the_spec() -> None:
    boxes, labels = truth([2, 1], 3)
    x = torch.zeros(2, 3, 96, 96)
    for name, loss in (
        ("ssdlite_mobilenet_v2", "softmax"),
        ("ssdlite_mobilenet_v2", "sigmoid"),
        ("fcos_mobilenet_v2", "sigmoid"),
    ):
        detector = create_detector(replace(little(name), loss=loss))
        maps = detector(x)
        found = detector_loss(detector.spec, maps, boxes, labels, height=96, width=96)
        scores, raw = flatten(maps, "classes", detector.spec.scores), flatten(maps, "boxes", 4)
        if detector.spec.anchors is None:
            points, strides = point_grid([(12, 12), (6, 6), (3, 3)], (8, 16, 32))
            places = torch.from_numpy(points), torch.from_numpy(strides)
            expected = point_loss(scores, raw, *places, boxes, labels)
        else:
            chosen = softmax_loss if loss == "softmax" else focal_loss
            expected = chosen(scores, raw, anchors_of_96(), boxes, labels)
        torch.testing.assert_close(found, expected)
