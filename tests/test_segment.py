"""Segmentation against torchvision, torch's own functions, scikit-learn, SciPy and counts."""

import subprocess
import sys
from dataclasses import replace
from itertools import cycle
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.segmentation import (
    deeplabv3_mobilenet_v3_large,
    lraspp_mobilenet_v3_large,
)

from mobilenet.backbone import load_backbone
from mobilenet.errors import TrainingError, UsageError, WeightsError
from mobilenet.flat import Card, EngineFile, write_engine
from mobilenet.integer import run_integer
from mobilenet.models import MODELS, ModelSpec, create
from mobilenet.program import evaluate_float
from mobilenet.quantize import quantise_program
from mobilenet.segment import (
    SEGMENTERS,
    TORCHVISION,
    SegmenterSpec,
    boundaries,
    confusion,
    create_segmenter,
    decode_masks,
    default_tolerance,
    resize_scores,
    segment_program,
    segment_scores,
)
from mobilenet.segment.cost import count_segmenter
from mobilenet.segment.loss import cross_entropy, segment_loss
from mobilenet.segment.model import Segmenter
from mobilenet.segment.train import SegmentTraining, train_segmenter
from mobilenet.segment.weights import load_state, torchvision_state

M = TypeVar("M", bound=nn.Module)


pytestmark = pytest.mark.usefixtures("one_thread")


def settled(network: M, size: int) -> M:
    """In evaluation mode, the norms with the statistics of random pictures."""
    norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
    with torch.no_grad():
        network.train()(torch.randn(4, 3, size, size))
    return network.eval()


def backbone(name: str, **options: Any) -> ModelSpec:
    return replace(MODELS[name], output_stride=options.pop("output_stride", 16), **options)


# ------------------------------------------------------------------------------ torchvision

BUILDERS = {
    "lraspp_mobilenet_v3_large": lraspp_mobilenet_v3_large,
    "deeplabv3_mobilenet_v3_large": deeplabv3_mobilenet_v3_large,
}


@pytest.mark.parametrize("name", list(TORCHVISION))
def test_torchvisions_weights_give_its_scores_and_masks(name: str) -> None:
    build, spec = BUILDERS[name], TORCHVISION[name]
    options = {"aux_loss": True} if spec.auxiliary else {}
    torch.manual_seed(1)
    theirs = settled(build(weights=None, weights_backbone=None, **options), 96)
    ours = create_segmenter(spec).eval()
    load_state(ours, torchvision_state(spec, theirs.state_dict()))
    x = torch.randn(2, 3, 96, 131)
    with torch.no_grad():
        expected, found = theirs(x), ours(x)
    assert expected["out"].std() > 1e-2
    limit = 1e-4 * float(expected["out"].abs().max().clamp(max=1))
    torch.testing.assert_close(found, expected["out"], rtol=0, atol=limit)
    assert torch.equal(found.argmax(1), expected["out"].argmax(1))
    if ours.auxiliary is not None:
        with torch.no_grad():
            features = ours.backbone.features(x, ["c3_first"])
            second = F.interpolate(
                ours.auxiliary(features["c3_first"]), x.shape[2:], mode="bilinear"
            )
        torch.testing.assert_close(second, expected["aux"], rtol=0, atol=1e-4)
        without = replace(spec, auxiliary=False)
        load_state(create_segmenter(without), torchvision_state(without, theirs.state_dict()))


def test_weights_that_do_not_fit_are_refused() -> None:
    spec = TORCHVISION["lraspp_mobilenet_v3_large"]
    theirs = dict(lraspp_mobilenet_v3_large(weights=None, weights_backbone=None).state_dict())
    del theirs["classifier.scale.1.weight"]
    with pytest.raises(WeightsError, match=r"missing \['classifier.scale.1.weight'\]"):
        torchvision_state(spec, theirs)
    other = create_segmenter(SegmenterSpec(backbone=backbone("mobilenet_v3_small", width=0.35)))
    with pytest.raises(WeightsError, match="do not fit the segmenter"):
        load_state(other, create_segmenter(spec).state_dict())


def test_a_classifiers_backbone_is_loaded_but_for_a_halved() -> None:
    small = ModelSpec(name="mobilenet_v2", width=0.35)
    classifier = create(small).eval()
    whole = create_segmenter(SegmenterSpec(backbone=replace(small, output_stride=16)))
    assert load_backbone(whole.backbone, classifier.state_dict()) == ()
    undilated = create_segmenter(SegmenterSpec(backbone=small)).eval()
    load_backbone(undilated.backbone, classifier.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        one = undilated.backbone.features(x, ["c5"])["c5"]
        assert torch.equal(one, classifier.backbone.features(x, ["c5"])["c5"])

    reduced = create_segmenter(SegmenterSpec(backbone=small, halved=True))
    left = load_backbone(reduced.backbone, classifier.state_dict(), halved=True)
    assert left[0] == "blocks.14.project.conv.weight"
    assert not any(name.startswith("blocks.13.") for name in left)
    with pytest.raises(WeightsError, match="same model, width and width rule"):
        load_backbone(
            create_segmenter(SegmenterSpec(backbone=replace(small, width=0.5))).backbone,
            classifier.state_dict(),
        )


# ------------------------------------------------------------------------------ costs

CITYSCAPES = {"classes": 19}
# V3 paper, Table 7: parameters in millions, multiply-adds in billions at 1024x2048
# fmt: off
TABLE_7 = [
    ("mobilenet_v2",       1.0,  "raspp",  256, False, 2.11, 21.29),
    ("mobilenet_v2",       1.0,  "raspp",  256, True,  1.15, 13.68),
    ("mobilenet_v2",       1.0,  "lraspp", 256, True,  1.02, 12.83),
    ("mobilenet_v2",       1.0,  "lraspp", 128, True,  0.98, 12.57),
    ("mobilenet_v3_large", 1.0,  "raspp",  256, False, 3.60, 18.43),
    ("mobilenet_v3_large", 1.0,  "raspp",  256, True,  1.76, 11.24),
    ("mobilenet_v3_large", 1.0,  "lraspp", 256, True,  1.63, 10.33),
    ("mobilenet_v3_large", 1.0,  "lraspp", 128, True,  1.51, 9.74),
    ("mobilenet_v3_small", 1.0,  "lraspp", 128, True,  0.47, 2.90),
    ("mobilenet_v2",       0.5,  "lraspp", 128, True,  0.28, 4.00),
    ("mobilenet_v2",       0.35, "lraspp", 128, True,  0.16, 2.54),
]
# fmt: on


@pytest.mark.parametrize(
    ("name", "width", "head", "filters", "reduced", "params", "madds"), TABLE_7
)
def test_the_costs_are_those_of_the_papers_table(
    name: str, width: float, head: Any, filters: int, reduced: bool, params: float, madds: float
) -> None:
    """To 0.01 M of the parameters printed. The multiply-adds of convolutions are 2 to 7 % below
    the paper's, whose networks have no others: it must count some of what lies between."""
    spec = SegmenterSpec(
        backbone=backbone(name, width=width), head=head, filters=filters, halved=reduced,
        pool="window" if head == "lraspp" else "global", **CITYSCAPES,
    )  # fmt: skip
    cost = count_segmenter(spec, 1024, 2048)
    assert abs(cost.params / 1e6 - params) < 0.01
    assert 0.925 < cost.madds / 1e9 / madds < 1


def test_the_costs_are_torchvisions() -> None:
    lraspp, deeplab = (TORCHVISION[name] for name in BUILDERS)
    assert count_segmenter(lraspp, 320, 320).madds == 772_346_880
    assert count_segmenter(lraspp, 320, 320).params == 3_221_538
    assert count_segmenter(deeplab, 320, 320).params == 11_029_328


def test_the_costs_are_those_of_deeplab_on_v1_and_v2() -> None:
    """V2 paper, Table 7, 513 pixels: its multiply-adds of ASPP count maps that are padded from 33
    to 36 pixels, a multiple of the rates, and so 19 % more for the dilated branches."""
    for name, params, madds in (("mobilenet_v1", 11.15, 14.25), ("mobilenet_v2", 4.52, 5.8)):
        spec = SegmenterSpec(
            backbone=backbone(name), head="deeplabv3", filters=256, rates=(6, 12, 18)
        )
        cost = count_segmenter(spec, 513, 513)
        channels = spec.network().features
        dilated = 3 * 9 * 256 * channels * 33 * 33
        assert abs(cost.params / 1e6 - params) < 0.006
        assert abs((cost.madds + ((36 / 33) ** 2 - 1) * dilated) / 1e9 - madds) < 0.05
    without = SegmenterSpec(backbone=backbone("mobilenet_v2"), head="raspp", filters=256)
    cost = count_segmenter(without, 513, 513)
    assert (round(cost.params / 1e6, 2), round(cost.madds / 1e9, 2)) == (2.11, 2.74)


# ------------------------------------------------------------------------------ the spec


def test_a_spec_is_read_back_and_a_wrong_one_refused() -> None:
    for spec in [*SEGMENTERS.values(), *TORCHVISION.values()]:
        assert SegmenterSpec.from_dict(spec.to_dict()) == spec
    with pytest.raises(UsageError, match=r"unknown fields \['heads'\]"):
        SegmenterSpec.from_dict({"backbone": {"name": "mobilenet_v2"}, "heads": 1})
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"head": "unet"}, "expected one of"),
        ({"classes": 1}, "background among them"),
        ({"filters": 100}, "multiple of 16"),
        ({"pool": "window", "head": "raspp"}, "belongs to head 'lraspp'"),
        ({"gate": "tanh"}, "expected 'sigmoid' or 'hard_sigmoid'"),
        ({"pool": "local"}, "expected 'global' or 'window'"),
        ({"refine": True}, "belongs to head 'deeplabv3'"),
        ({"dilation": "none"}, "expected 'reference'"),
        ({"rates": (6, 0)}, "numbers from 1"),
        ({"backbone": MODELS["mobilenet_v1"], "halved": True}, "only V2 and V3"),
    ]
    for options, message in wrong:
        with pytest.raises(UsageError, match=message):
            SegmenterSpec(**options)


@pytest.mark.parametrize("output_stride", [8, 16, 32])
@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small"])
def test_scores_have_the_stride_of_the_map_that_the_head_ends_at(
    name: str, output_stride: int
) -> None:
    strides = {"lraspp": 8, "raspp": output_stride, "deeplabv3": output_stride, "deeplabv3plus": 4}
    for head, stride in strides.items():
        spec = SegmenterSpec(
            backbone=backbone(name, width=0.25, output_stride=output_stride),
            head=head, filters=16, classes=3, auxiliary=True,
        )  # fmt: skip
        network = create_segmenter(spec)
        found = network.scores(torch.randn(2, 3, 64, 96))
        assert found["segments"].shape == (2, 3, 64 // stride, 96 // stride)
        assert found["auxiliary"].shape == (2, 3, 8, 12)
        assert list(network.eval().scores(torch.randn(1, 3, 64, 64))) == ["segments"]


def test_the_papers_pool_is_a_window_where_the_map_is_larger() -> None:
    spec = SegmenterSpec(
        backbone=backbone("mobilenet_v2", width=0.25), pool="window", filters=16, classes=3
    )
    torch.manual_seed(0)
    network = settled(create_segmenter(spec), 64)
    other = create_segmenter(replace(spec, pool="global")).eval()
    other.load_state_dict(network.state_dict())
    with torch.no_grad():
        small, wide = torch.randn(1, 3, 64, 96), torch.randn(1, 3, 16 * 49, 16 * 69)
        torch.testing.assert_close(network(small), other(small), rtol=0, atol=1e-6)
        assert network.head._pool(torch.zeros(1, 1, 49, 69)).shape[2:] == (1, 2)
        assert not torch.allclose(network(wide), other(wide), atol=1e-3)
    with pytest.raises(UsageError, match="train with pool 'global'"):
        segment_program(network)


def test_what_a_device_needs_does_not_import_torch() -> None:
    code = "import sys, mobilenet.segment; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# ------------------------------------------------------------------------------ loss


def test_the_loss_is_torchs_over_what_is_not_void() -> None:
    rng = torch.Generator().manual_seed(0)
    scores = torch.randn(3, 5, 8, 12, generator=rng)
    masks = torch.randint(0, 5, (3, 16, 24), generator=rng).to(torch.uint8)
    masks[torch.rand(masks.shape, generator=rng) < 0.3] = 255
    large = F.interpolate(scores, (16, 24), mode="bilinear")
    for weights in (None, torch.tensor([0.5, 1.0, 2.0, 0.0, 3.0])):
        expected = F.cross_entropy(large, masks.long(), weight=weights, ignore_index=255)
        torch.testing.assert_close(cross_entropy(scores, masks, weights=weights), expected)
        both = {"segments": scores, "auxiliary": scores}
        found = segment_loss(both, masks, weights=weights, auxiliary=0.4)
        torch.testing.assert_close(found, 1.4 * expected)


def test_pictures_of_void_alone_teach_nothing() -> None:
    scores = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = cross_entropy(scores, torch.full((2, 4, 4), 255), weights=torch.ones(3))
    loss.backward()
    assert loss == 0
    assert scores.grad is not None
    assert not scores.grad.any()


# ------------------------------------------------------------------------------ metric


def test_scores_computed_by_hand() -> None:
    truth = np.array([[0, 0, 1], [0, 1, 255]], np.uint8)
    found = np.array([[0, 1, 1], [0, 1, 2]], np.uint8)
    counts = confusion(truth, found, 4)
    assert counts[:2, :2].tolist() == [[2, 1], [0, 2]]
    assert counts.sum() == 5
    scores = segment_scores(counts)
    assert scores.iou == (2 / 3, 2 / 3, None, None)
    assert scores.mean_iou == pytest.approx(2 / 3)
    assert scores.pixel_accuracy == 0.8
    assert scores.mean_accuracy == pytest.approx((2 / 3 + 1) / 2)
    assert (scores.boundary_f, scores.pixels) == (None, 5)
    with pytest.raises(ValueError, match="every mask is void"):
        segment_scores(confusion(np.full((2, 2), 255), np.zeros((2, 2)), 4))
    with pytest.raises(ValueError, match="found classes 0 to 2: expected 0 to 1"):
        confusion(np.zeros((1, 3)), np.array([[0, 1, 2]]), 2)
    with pytest.raises(ValueError, match="expected one shape"):
        confusion(np.zeros((1, 3)), np.zeros((3, 1)), 2)


def random_masks(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Blobs of five classes with void, and the same with some of them moved."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 5, (5, 6)).astype(np.uint8)
    truth = np.kron(coarse, np.ones((7, 8), np.uint8))
    found = np.roll(truth, (1, 2), (0, 1))
    found[rng.random(found.shape) < 0.02] = 3
    truth[rng.random(truth.shape) < 0.03] = 255
    return truth, found


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_scikit_learns(seed: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    truth, found = random_masks(seed)
    seen = truth != 255
    counts = confusion(truth, found, 5)
    expected = metrics.confusion_matrix(truth[seen], found[seen], labels=range(5))
    np.testing.assert_array_equal(counts, expected)
    iou = metrics.jaccard_score(truth[seen], found[seen], average=None, labels=range(5))
    np.testing.assert_allclose(segment_scores(counts).iou, iou)


@pytest.mark.parametrize("tolerance", [0, 1, 1.5, 3.2, 100])
@pytest.mark.parametrize("seed", range(2))
def test_boundaries_are_near_as_scipys_distances_say(seed: int, tolerance: float) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    truth, found = random_masks(seed)
    counts = boundaries(truth, found, 6, tolerance=tolerance)
    hidden = np.where(truth == 255, 255, found)

    def edge(mask: np.ndarray, index: int) -> np.ndarray:
        others = (mask != index) & (mask != 255)
        cross = ndimage.generate_binary_structure(2, 1)
        return (mask == index) & ndimage.binary_dilation(others, cross)

    for index in range(6):
        true, mine = edge(truth, index), edge(hidden, index)
        near_true = ndimage.distance_transform_edt(~true) <= tolerance if true.any() else true
        near_mine = ndimage.distance_transform_edt(~mine) <= tolerance if mine.any() else mine
        expected = [mine.sum(), (mine & near_true).sum(), true.sum(), (true & near_mine).sum()]
        assert counts[index].tolist() == expected


def test_boundary_f_computed_by_hand() -> None:
    truth, found = np.zeros((2, 8, 8), np.uint8)
    truth[:, 4:], found[:, 6:] = 1, 1
    counts = confusion(truth, found, 3)
    apart = segment_scores(counts, boundaries(truth, found, 3, tolerance=1))
    assert apart.class_boundary_f == (0.0, 0.0, None)
    together = segment_scores(counts, boundaries(truth, found, 3, tolerance=2))
    assert together.boundary_f == 1.0
    found[:4] = 0  # half of the boundary is gone, a new one is there: columns 6 and 7 of a row
    half = boundaries(truth, found, 3, tolerance=2)
    # class 1: found column 6 (rows 4-7) and (4, 7); true column 4, rows 2-7 within 2 of (r, 6)
    assert half[1].tolist() == [5, 4, 8, 4]
    by_class = segment_scores(counts, half).class_boundary_f
    assert by_class is not None
    assert by_class[1] == pytest.approx(2 * 4 / 5 * 4 / 8 / (4 / 5 + 4 / 8))
    assert default_tolerance(300, 400) == 3.75


# ------------------------------------------------------------------------------ decode


@pytest.mark.parametrize("size", [(7, 9), (56, 72), (61, 130), (3, 5), (7, 200)])
def test_scores_are_resized_as_torch_does(size: tuple[int, int]) -> None:
    scores = np.random.default_rng(0).standard_normal((2, 4, 7, 9), np.float32)
    expected = F.interpolate(torch.from_numpy(scores), size, mode="bilinear", align_corners=False)
    found = resize_scores(scores, *size)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=3e-6)
    masks = decode_masks(scores, *size)
    assert masks.dtype == np.uint8
    top = expected.topk(2, 1).values
    clear = (top[:, 0] - top[:, 1] > 1e-5).numpy()
    assert clear.mean() > 0.999
    np.testing.assert_array_equal(masks[clear], expected.argmax(1).numpy()[clear])


def test_shapes_that_are_no_scores_are_refused() -> None:
    with pytest.raises(ValueError, match=r"scores \(4, 7, 9\)"):
        decode_masks(np.zeros((4, 7, 9), np.float32), 10, 10)
    assert not decode_masks(np.ones((1, 1, 7, 9), np.float32), 10, 11).any()


# ------------------------------------------------------------------------------ program

PROGRAMS: list[tuple[str, dict[str, Any], int]] = [
    ("mobilenet_v3_large", {"head": "lraspp", "dilation": "torchvision"}, 16),
    ("mobilenet_v2", {"gate": "hard_sigmoid", "halved": True}, 16),
    ("mobilenet_v1", {"head": "raspp"}, 8),
    ("mobilenet_v3_small", {"head": "deeplabv3", "rates": (2, 4, 6), "refine": True}, 16),
    ("mobilenet_v2", {"head": "deeplabv3plus", "rates": (2, 4), "auxiliary": True}, 32),
]


def planned(name: str, options: dict[str, Any], output_stride: int) -> Segmenter:
    spec = SegmenterSpec(
        backbone=backbone(name, width=0.35, output_stride=output_stride),
        filters=32, classes=6, **options,
    )  # fmt: skip
    torch.manual_seed(0)
    network = create_segmenter(spec)
    with torch.no_grad():
        for part in network.head.modules():  # scores that are far apart
            if isinstance(part, nn.Conv2d) and part.out_channels == 6:
                part.weight.mul_(20)
    return settled(network, 96)


def assert_close(found: np.ndarray, expected: Tensor, limit: float) -> None:
    assert expected.std() > 0.01
    np.testing.assert_allclose(
        found, expected.numpy(), rtol=0, atol=limit * float(expected.abs().max())
    )


@pytest.mark.parametrize(("name", "options", "output_stride"), PROGRAMS)
def test_a_program_answers_as_its_segmenter(
    name: str, options: dict[str, Any], output_stride: int
) -> None:
    network = planned(name, options, output_stride)
    program = segment_program(network)
    assert [output for output, _ in program.outputs] == ["segments"]
    network.double()  # in float32 torch's own rounding is 2e-5 of the largest score here
    x = np.random.default_rng(3).standard_normal((2, 3, 64, 97), np.float32)
    with torch.no_grad():
        expected = network.scores(torch.from_numpy(x).double())["segments"]
        masks = network(torch.from_numpy(x).double()).argmax(1).numpy()
    found = evaluate_float(program, x)["segments"]
    assert_close(found, expected, 1e-5)
    decoded = decode_masks(found.astype(np.float32), 64, 97)
    assert (decoded != masks).mean() < 1e-3

    native = pytest.importorskip("mobilenet._engine", reason="the native engine was not built")
    made = EngineFile(network=program, precision="float32", height=64, width=97, card=Card())
    engine = native.Engine(native.Model(write_engine(made)))
    assert_close(engine.run(x)["segments"], expected, 5e-5)
    other = native.Engine(native.Model(write_engine(made)), height=48, width=80)
    part = np.ascontiguousarray(x[:, :, :48, :80])
    with torch.no_grad():
        smaller = network.scores(torch.from_numpy(part).double())["segments"]
    assert_close(other.run(part)["segments"], smaller, 5e-5)


@pytest.mark.parametrize("name", list(SEGMENTERS))
def test_every_listed_segmenter_has_an_exact_int8_form(name: str) -> None:
    native = pytest.importorskip("mobilenet._engine", reason="the native engine was not built")
    spec = SEGMENTERS[name]
    small = replace(spec, backbone=replace(spec.backbone, width=0.35), filters=16, classes=4)
    torch.manual_seed(0)
    network = settled(create_segmenter(small), 96)
    x = np.random.default_rng(3).standard_normal((2, 3, 64, 81), np.float32)
    quantised = quantise_program(segment_program(network), [x])
    expected = run_integer(quantised, x)["segments"]
    made = EngineFile(network=quantised, precision="int8", height=64, width=81, card=Card())
    found = native.Engine(native.Model(write_engine(made))).run(x)["segments"]
    assert len(np.unique(expected)) > 20
    np.testing.assert_array_equal(found, expected)


# ------------------------------------------------------------------------------ training


def drawn(count: int, size: int) -> tuple[Tensor, Tensor]:
    """Pictures of a bright square and a dark disc on a noisy ground, and their masks with void."""
    rng = np.random.default_rng(0)
    images = rng.normal(0, 0.2, (count, 3, size, size)).astype(np.float32)
    masks = np.zeros((count, size, size), np.uint8)
    rows, columns = np.mgrid[:size, :size]
    for image, mask in zip(images, masks, strict=True):
        top, left = rng.integers(2, size // 2, 2)
        side = size // 3
        mask[top : top + side, left : left + side] = 1
        y, x = rng.integers(size // 4, 3 * size // 4, 2)
        mask[(rows - y) ** 2 + (columns - x) ** 2 < (size / 6) ** 2] = 2
        image += np.array([0, 1, -1], np.float32)[mask] * rng.uniform(0.8, 1.5)
    masks[:, 0] = 255
    return torch.from_numpy(images), torch.from_numpy(masks)


def test_a_few_pictures_are_learnt_by_heart() -> None:
    images, masks = drawn(8, 64)
    spec = SegmenterSpec(
        backbone=backbone("mobilenet_v2", width=0.35), filters=64, classes=3, auxiliary=True
    )
    torch.manual_seed(0)
    network = create_segmenter(spec)
    told: list[float] = []
    options = SegmentTraining(steps=120, lr=4e-3, backbone_rate=1.0, average=0.95)
    average = train_segmenter(
        network, cycle([(images, masks)]), options, report=lambda step, loss: told.append(loss)
    )
    assert len(told) == 120
    assert told[-1] < told[0] / 3
    network.load_state_dict(average)
    with torch.no_grad():
        scores = network.eval().scores(images)["segments"].numpy()
    found = decode_masks(scores, 64, 64)
    counts = sum(
        (confusion(t, f, 3) for t, f in zip(masks.numpy(), found, strict=True)),
        np.zeros((3, 3), np.int64),
    )
    assert segment_scores(counts).mean_iou > 0.9


def test_a_frozen_backbone_keeps_its_weights_and_statistics() -> None:
    images, masks = drawn(2, 64)
    spec = SegmenterSpec(backbone=backbone("mobilenet_v3_small", width=0.35), filters=16, classes=3)
    torch.manual_seed(0)
    network = create_segmenter(spec)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    options = SegmentTraining(steps=3, backbone_rate=0.0, schedule="poly", class_weights=(1, 2, 3))
    train_segmenter(network, cycle([(images, masks)]), options)
    for name, value in network.state_dict().items():
        changed = not torch.equal(value, before[name])
        assert changed != name.startswith("backbone."), name


def test_training_that_cannot_go_on_says_why() -> None:
    images, masks = drawn(2, 64)
    spec = SegmenterSpec(backbone=backbone("mobilenet_v2", width=0.25), filters=16, classes=3)
    network = create_segmenter(spec)
    with pytest.raises(TrainingError, match="ended after 2 of 3"):
        train_segmenter(network, [(images, masks)] * 2, SegmentTraining(steps=3))
    with pytest.raises(TrainingError, match="the loss is nan"):
        train_segmenter(network, cycle([(images * np.nan, masks)]), SegmentTraining(steps=3))
    with pytest.raises(UsageError, match="2 for 3 classes"):
        train_segmenter(network, [], SegmentTraining(steps=1, class_weights=(1, 1)))
    with pytest.raises(UsageError, match="at least 1 step"):
        SegmentTraining(steps=0)
