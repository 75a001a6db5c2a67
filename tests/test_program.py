"""Programs in NumPy against the modules in PyTorch that they were planned from."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.ssdlite import SSDLiteClassificationHead, _extra_block
from torchvision.models.segmentation.lraspp import LRASPPHead

from mobilenet.classify import Classifier
from mobilenet.models import MODELS, ModelSpec
from mobilenet.networks import random_network
from mobilenet.program import (
    BlockStep,
    Builder,
    ConvStep,
    Filter,
    Program,
    Step,
    evaluate_float,
    plain_filter,
    program_of,
)
from mobilenet.quantize.trace import run_float

pytestmark = pytest.mark.usefixtures("one_thread")


def images(size: tuple[int, int], *, count: int = 2) -> np.ndarray:
    return np.random.default_rng(7).standard_normal((count, 3, *size), np.float32)


def assert_close(found: np.ndarray, expected: Any) -> None:
    expected = np.asarray(expected)
    assert found.shape == expected.shape
    assert expected.std() > 0
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-5 * abs(expected).max())


OPTIONS: list[tuple[dict[str, Any], tuple[int, int]]] = [
    ({"width": 0.35}, (64, 64)),
    ({"width": 0.5, "padding": "same"}, (65, 97)),
    ({"width": 0.35, "padding": "same", "output_stride": 16}, (96, 80)),
    ({"width": 0.5, "output_stride": 8, "width_rule": "torchvision"}, (47, 63)),
]


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize(
    ("options", "size"), OPTIONS, ids=["plain", "same and odd", "dilated", "more dilated and odd"]
)
def test_a_program_answers_as_its_network(
    name: str, options: dict[str, Any], size: tuple[int, int]
) -> None:
    network = random_network(replace(MODELS[name], classes=13, **options), 64)
    x = images(size)
    program = program_of(network)
    with torch.inference_mode():
        expected = network(torch.from_numpy(x))
        names = list(network.backbone.taps)
        features = network.backbone.features(torch.from_numpy(x), names)
    assert_close(evaluate_float(program, x)["logits"][:, :, 0, 0], expected)
    assert_close(run_float(program, x)["logits"][:, :, 0, 0], expected)

    found = evaluate_float(program_of(network, taps=names), x)
    assert list(found) == names
    for tap, value in found.items():
        assert_close(value, features[tap])


def small(name: str, **options: Any) -> Classifier:
    spec: ModelSpec = replace(MODELS[name], width=0.35, classes=5, **options)
    return random_network(spec, 64)


def test_a_program_has_the_steps_of_the_papers_table() -> None:
    program = program_of(small("mobilenet_v2"))
    kinds = "".join(type(step).__name__[0] for step in program.steps)
    assert kinds == "C" + 17 * "B" + "CPC"
    blocks = [step for step in program.steps if isinstance(step, BlockStep)]
    assert [index for index, step in enumerate(blocks) if step.residual] == [
        2, 4, 5, 7, 8, 9, 11, 12, 14, 15,
    ]  # fmt: skip
    assert [index for index, step in enumerate(blocks) if step.stride == 2] == [1, 3, 6, 13]
    assert blocks[0].expand is None
    assert {step.activation for step in blocks} == {"relu6"}
    assert program.channels()[-3:] == (1280, 1280, 5)


def test_a_backbone_ends_at_its_last_tap_and_splits_at_an_expanded_one() -> None:
    network = small("mobilenet_v3_large")
    whole = program_of(network)
    early = program_of(network, taps=["c2", "c3"])
    assert len(early.steps) == 7
    assert early.outputs == (("c2", 4), ("c3", 7))
    expanded = program_of(network, taps=["c4_expanded"])
    assert isinstance(expanded.steps[-1], ConvStep)
    both = program_of(network, taps=["last", "c4_expanded"])
    assert len(both.steps) == len(whole.steps) - 3 + 1  # no head, and one block in two steps
    split = next(step for step in both.steps[1:] if isinstance(step, ConvStep))
    assert split.project.outputs == network.backbone.taps["c4_expanded"].channels
    with pytest.raises(ValueError, match="c9"):
        program_of(network, taps=["c3", "c9"])


def norms(module: nn.Module) -> nn.Module:
    """Random statistics for a module's norms, which else do nothing."""
    generator = torch.Generator().manual_seed(2)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            for array, low, high in (
                (part.running_mean, -0.3, 0.3),
                (part.running_var, 0.5, 2.0),
                (part.weight.data, 0.7, 1.4),
                (part.bias.data, -0.3, 0.3),
            ):
                assert array is not None
                array.uniform_(low, high, generator=generator)
    return module.eval()


def fold(conv: nn.Module, norm: nn.Module) -> Filter:
    """A convolution and its norm, as PyTorch itself folds them."""
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    return plain_filter(torch.nn.utils.fusion.fuse_conv_bn_eval(conv, norm))


def backbone_and_features(
    network: Classifier, x: np.ndarray, taps: list[str]
) -> tuple[Builder, dict[str, int], dict[str, Tensor]]:
    program = program_of(network, taps=taps)
    with torch.inference_mode():
        features = network.backbone.features(torch.from_numpy(x), taps)
    return Builder(steps=list(program.steps)), dict(program.outputs), features


def test_a_segmentation_head_answers_as_torchvisions() -> None:
    network, x = small("mobilenet_v3_large", output_stride=16), images((65, 80))
    builder, values, features = backbone_and_features(network, x, ["c3", "last"])
    low, high = features["c3"], features["last"]
    torch.manual_seed(0)
    head = norms(LRASPPHead(low.shape[1], high.shape[1], num_classes=21, inter_channels=32))

    wide = builder.conv(values["last"], fold(head.cbr[0], head.cbr[1]), activation="relu")
    pooled = builder.pool(values["last"])
    gate = builder.conv(pooled, plain_filter(head.scale[1]), activation="sigmoid")
    gated = builder.multiply(wide, gate)
    resized = builder.resize(gated, like=values["c3"])
    total = builder.add(
        builder.conv(values["c3"], plain_filter(head.low_classifier)),
        builder.conv(resized, plain_filter(head.high_classifier)),
    )
    program = builder.program({"segments": total})
    with torch.inference_mode():
        expected = head({"low": low, "high": high})
    for found in (evaluate_float(program, x), run_float(program, x)):
        assert_close(found["segments"], expected)


def test_a_detection_head_answers_as_torchvisions() -> None:
    network, x = small("mobilenet_v3_small"), images((96, 65))
    builder, values, features = backbone_and_features(network, x, ["c4_expanded", "last"])
    maps = list(features.values())
    torch.manual_seed(0)
    extra = norms(_extra_block(maps[1].shape[1], 24, nn.BatchNorm2d))
    channels = [maps[0].shape[1], maps[1].shape[1], 24]
    head = norms(SSDLiteClassificationHead(channels, [3, 6, 6], 4, nn.BatchNorm2d))

    expand, depthwise, project = (fold(layer[0], layer[1]) for layer in extra)
    sources = [
        *values.values(),
        builder.block(
            values["last"],
            expand=expand,
            depthwise=depthwise,
            project=project,
            stride=2,
            activation="relu6",
            out_activation="relu6",
        ),
    ]
    outputs = {
        f"classes {index}": builder.block(
            source,
            depthwise=fold(layers[0][0], layers[0][1]),
            project=plain_filter(layers[1]),
            activation="relu6",
        )
        for index, (source, layers) in enumerate(zip(sources, head.module_list, strict=True))
    }
    program = builder.program(outputs)
    with torch.inference_mode():
        maps.append(extra(maps[1]))
        expected = [layers(m) for layers, m in zip(head.module_list, maps, strict=True)]
    for found in (evaluate_float(program, x), run_float(program, x)):
        for answer, other in zip(found.values(), expected, strict=True):
            assert_close(answer, other)


def filter_of(outputs: int, inputs: int, kernel: int, seed: int = 0) -> Filter:
    rng = np.random.default_rng(seed)
    return Filter(
        weight=rng.standard_normal((outputs, inputs, kernel, kernel), np.float32) / kernel,
        bias=rng.standard_normal(outputs, np.float32),
    )


def test_the_other_steps_answer_as_pytorch_does() -> None:
    x = images((23, 30))
    builder = Builder()
    stem = builder.conv(0, filter_of(16, 3, 5), activation="relu")
    first = builder.conv(stem, filter_of(16, 16, 3), dilation=2, activation="relu")
    second = builder.conv(
        0, filter_of(9, 3, 3, seed=1), stride=2, padding="same", activation="hard_sigmoid"
    )
    outputs = {
        "concat": builder.concat(first, builder.resize(second, like=first)),
        "smaller": builder.resize(first, like=second),
        "pooled": builder.average_pool(first, kernel=3, stride=2),
        "sum": builder.add(first, first, activation="relu6"),
    }
    program = builder.program(outputs)
    assert program.channels()[outputs["concat"]] == 25

    tensor = torch.from_numpy(x)
    filters = filter_of(16, 3, 5), filter_of(16, 16, 3), filter_of(9, 3, 3, seed=1)
    zero, a, b = ((torch.from_numpy(f.weight), torch.from_numpy(f.bias)) for f in filters)
    one = F.relu(F.conv2d(tensor, *zero, padding=2))
    one = F.relu(F.conv2d(one, *a, padding=2, dilation=2))
    # SAME of 23 x 30 at stride 2: rows on both sides, columns only right
    two = F.hardsigmoid(F.conv2d(F.pad(tensor, (0, 1, 1, 1)), *b, stride=2))
    assert two.shape[2:] == (12, 15)
    expected = {
        "concat": torch.cat([one, F.interpolate(two, (23, 30), mode="bilinear")], 1),
        "smaller": F.interpolate(one, (12, 15), mode="bilinear"),
        "pooled": F.avg_pool2d(one, 3, 2),
        "sum": F.relu6(one + one),
    }
    for found in (evaluate_float(program, x), run_float(program, x)):
        for name, value in expected.items():
            assert_close(found[name], value)


def broken_programs() -> list[tuple[str, tuple[Step, ...], tuple[tuple[str, int], ...]]]:
    conv = ConvStep(sources=(0,), project=filter_of(16, 3, 3))
    block = BlockStep(
        sources=(1,), depthwise=filter_of(16, 1, 3), project=filter_of(16, 16, 1), residual=True
    )
    outputs = (("a", 2),)
    return [
        ("channels 16: expected 3", (replace(conv, project=filter_of(4, 16, 1)),), (("a", 1),)),
        ("reads \\(1,\\)", (replace(conv, sources=(1,)),), (("a", 1),)),
        ("read the image", (replace(block, sources=(0,)),), (("a", 1),)),
        ("read the image", (replace(conv, dilation=2),), (("a", 1),)),
        ("only a convolution has a sigmoid", (conv, replace(block, activation="sigmoid")), outputs),
        ("no activation behind", (conv, replace(block, out_activation="relu")), outputs),
        ("has two filters", (conv, replace(block, reduce=filter_of(4, 16, 1))), outputs),
        ("kernel above 1", (conv, replace(block, project=filter_of(16, 16, 3))), outputs),
        ("odd and square", (replace(conv, project=filter_of(16, 3, 2)),), (("a", 1),)),
        ("neither read nor", (conv, replace(conv)), outputs),
        ("expected values 1 to 2", (conv, block), (("a", 3),)),
    ]


@pytest.mark.parametrize(("message", "steps", "outputs"), broken_programs())
def test_steps_that_do_not_fit_are_refused(
    message: str, steps: tuple[Step, ...], outputs: tuple[tuple[str, int], ...]
) -> None:
    with pytest.raises(ValueError, match=message):
        Program(steps=steps, outputs=outputs)


def test_weights_that_are_no_numbers_are_refused() -> None:
    bad = filter_of(16, 3, 3)
    bad.weight[3, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="finite float32"):
        Program(steps=(ConvStep(sources=(0,), project=bad),), outputs=(("a", 1),))
