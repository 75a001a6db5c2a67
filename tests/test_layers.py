"""The modules against their rows, finite differences and other implementations."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mobilenet.architectures import Block
from mobilenet.cost import count
from mobilenet.layers import (
    ConvNormAct,
    DepthwiseSeparable,
    InvertedResidual,
    LayerOptions,
    SqueezeExcite,
    fold_batch_norm,
    same_padding,
)
from mobilenet.models import MODELS, create


def randomise_norms(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            assert part.running_mean is not None
            assert part.running_var is not None
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.3)
            nn.init.normal_(part.running_mean, 0, 0.3)
            nn.init.uniform_(part.running_var, 0.5, 2.0)


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize(("width", "size"), [(1.0, 224), (0.35, 97), (1.4, 64)])
def test_the_built_module_has_the_costs_of_its_rows(name: str, width: float, size: int):
    spec = replace(MODELS[name], width=width, classes=13)
    module = create(spec).eval()
    counted = {"madds": 0}

    def hook(layer: nn.Module, _: Any, output: Tensor) -> None:
        assert isinstance(layer, nn.Conv2d)
        counted["madds"] += layer.weight[0].numel() * output[0].numel()

    for layer in module.modules():
        assert not isinstance(layer, nn.Linear)
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(hook)
    with torch.inference_mode():
        assert module(torch.zeros(1, 3, size, size)).shape == (1, 13)
    cost = count(spec.network(), size)
    assert sum(p.numel() for p in module.parameters()) == cost.params
    assert counted["madds"] == cost.madds


@pytest.mark.parametrize("padding", ["torch", "same"])
@pytest.mark.parametrize("output_stride", [8, 16, 32])
@pytest.mark.parametrize("size", [32, 65, 96])
def test_taps_have_the_shapes_that_they_promise(padding: str, output_stride: int, size: int):
    for name in MODELS:
        spec = replace(
            MODELS[name],
            width=0.25,
            padding=padding,  # pyright: ignore[reportArgumentType]
            output_stride=output_stride,
        )
        backbone = create(spec).eval().backbone
        taps = backbone.taps
        with torch.inference_mode():
            features = backbone.features(torch.zeros(1, 3, size, size), taps)
            last = backbone(torch.zeros(1, 3, size, size))
        for tap, value in features.items():
            pixels = -(-size // taps[tap].stride)
            assert value.shape == (1, taps[tap].channels, pixels, pixels), tap
        assert torch.equal(features["last"], last)
    with pytest.raises(ValueError, match="c9"):
        backbone.features(torch.zeros(1, 3, 32, 32), ["c9"])


def test_the_expanded_tap_is_what_the_depthwise_convolution_sees():
    backbone = create(MODELS["mobilenet_v2"]).eval().backbone
    block = backbone.taps["c4_expanded"].block
    seen: list[Tensor] = []
    layer = backbone.blocks[block].depthwise  # pyright: ignore[reportAttributeAccessIssue]
    layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    with torch.inference_mode():
        tapped = backbone.features(torch.rand(1, 3, 64, 64), ["c4_expanded"])["c4_expanded"]
        before = backbone.features(torch.rand(1, 3, 64, 64), ["c3", "c4_expanded"])
        backbone.features(torch.rand(1, 3, 64, 64), [])
    assert list(before) == ["c3", "c4_expanded"]
    assert tapped.shape == (1, 576, 4, 4)
    assert len(seen) == 2


def block(**changes: Any) -> Block:
    base = Block(
        kind="inverted", kernel=3, in_channels=3, expanded=6, out_channels=3, squeeze=2,
        activation="hard_swish", stride=1, stage=1,
    )  # fmt: skip
    return replace(base, **changes)


OWN_LAYERS = {
    "inverted, residual, squeeze-excite": lambda o: InvertedResidual(block(), o),
    "inverted, stride 2, 5x5": lambda o: InvertedResidual(block(kernel=5, stride=2), o),
    "inverted, no expansion": lambda o: InvertedResidual(block(expanded=3, squeeze=0), o),
    "inverted, dilated": lambda o: InvertedResidual(block(dilation=2), o),
    "separable": lambda o: DepthwiseSeparable(
        block(kind="separable", expanded=3, out_channels=5, squeeze=0, activation="relu6"), o
    ),
    "squeeze-excite": lambda o: SqueezeExcite(3, 2),
    "pointwise, linear": lambda o: ConvNormAct(3, 5, 1, activation=None, options=o),
}


@pytest.mark.parametrize("name", list(OWN_LAYERS))
@pytest.mark.parametrize("padding", ["torch", "same"])
def test_gradients_agree_with_finite_differences(name: str, padding: str):
    torch.manual_seed(0)
    layer = OWN_LAYERS[name](LayerOptions(padding=padding)).double().train()
    randomise_norms(layer)
    for part in layer.modules():
        if hasattr(part, "inplace"):
            part.inplace = False  # pyright: ignore[reportAttributeAccessIssue]
    parameters = {key: value.detach() for key, value in layer.named_parameters()}
    names = list(parameters)
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64).to(memory_format=torch.channels_last)

    def run(image: Tensor, *values: Tensor) -> Tensor:
        state = dict(zip(names, values, strict=True))
        return torch.func.functional_call(layer, state, (image,))

    inputs = [x.requires_grad_(), *(p.requires_grad_() for p in parameters.values())]
    assert torch.autograd.gradcheck(run, inputs, eps=1e-6, atol=1e-4)


def test_the_matrix_product_of_training_is_the_convolution():
    torch.manual_seed(0)
    layer = ConvNormAct(24, 144, 1, activation="relu6", options=LayerOptions())
    x = torch.randn(4, 24, 7, 9)
    as_product = layer.train()._convolve(x.to(memory_format=torch.channels_last))
    as_convolution = layer.conv(x)
    assert as_product.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(as_product, as_convolution, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "dilation", "expected"),
    [
        (224, 3, 2, 1, (0, 1)),
        (224, 5, 2, 1, (1, 2)),
        (225, 3, 2, 1, (1, 1)),
        (224, 3, 1, 1, (1, 1)),
        (7, 5, 1, 1, (2, 2)),
        (33, 3, 1, 2, (2, 2)),
        (32, 3, 2, 2, (1, 2)),
    ],
)
def test_same_padding_is_tensorflows(
    size: int, kernel: int, stride: int, dilation: int, expected: tuple[int, int]
):
    assert same_padding(size, kernel, stride, dilation) == expected


def test_folded_norms_answer_alike():
    torch.manual_seed(0)
    layer = ConvNormAct(5, 7, 3, activation=None, options=LayerOptions(bn_eps=1e-3)).eval()
    randomise_norms(layer)
    weight, bias = fold_batch_norm(layer)
    x = torch.randn(2, 5, 9, 9)
    with torch.inference_mode():
        folded = nn.functional.conv2d(x, weight, bias, padding=1)
        torch.testing.assert_close(folded, layer(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), [(5, 1, 1), (5, 2, 1), (3, 1, 2), (5, 1, 2)]
)
@pytest.mark.parametrize("groups", [1, 6])
def test_taps_that_meet_only_padding_are_left_out_of_training(
    size: int, kernel: int, stride: int, dilation: int, groups: int
) -> None:
    torch.manual_seed(0)
    layer = ConvNormAct(
        6,
        6,
        kernel,
        stride=stride,
        dilation=dilation,
        groups=groups,
        activation=None,
        options=LayerOptions(),
    ).double()
    x = torch.randn(3, 6, size, size, dtype=torch.float64, requires_grad=True)
    found = layer._convolve(x)  # the layer is in training mode
    wanted = layer.conv(x)
    torch.testing.assert_close(found, wanted)
    upstream = torch.randn_like(wanted)
    parts = (x, layer.conv.weight)
    for a, b in zip(
        torch.autograd.grad(found, parts, upstream),
        torch.autograd.grad(wanted, parts, upstream),
        strict=True,
    ):
        torch.testing.assert_close(a, b)
