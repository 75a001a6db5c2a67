"""The tables against the papers' and the public implementations' counts."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from mobilenet.architectures import (
    V1,
    V2,
    V3_LARGE,
    V3_SMALL,
    Architecture,
    dilate_entries,
    halve_last_stage,
    make_divisible,
    minimalistic,
    reduce_tail,
    resolve,
    until,
)
from mobilenet.cost import count
from mobilenet.errors import UsageError
from mobilenet.models import MODELS, TABLES, ModelSpec, parse_model_name

# Counted once with torchvision 0.29.1's modules and from the papers' rows by an independent
# counter; the rows of width rule "timm" are the published variant whose last layer is not scaled.
GOLDEN = Path(__file__).parent / "golden_costs.csv"


def golden_rows() -> list[dict[str, str]]:
    with GOLDEN.open(newline="") as file:
        return list(csv.DictReader(file))


def test_costs_equal_the_counts_of_other_implementations_at_every_width_and_size():
    wrong = []
    for row in golden_rows():
        network = resolve(
            TABLES[row["model"]],
            width=float(row["width"]),
            rule=row["width_rule"],  # pyright: ignore[reportArgumentType]
        )
        cost = count(network, int(row["size"]))
        if (cost.params, cost.madds) != (int(row["params"]), int(row["madds"])):
            wrong.append((row, cost.params, cost.madds))
        if row["peak_elements"]:
            expected = (int(row["peak_elements"]), int(row["block_elements"]))
            if (cost.peak_elements, cost.block_elements) != expected:
                wrong.append((row, cost.peak_elements, cost.block_elements))
    assert not wrong
    assert len(golden_rows()) > 400


@pytest.mark.parametrize(
    ("model", "width", "params", "madds"),
    [
        ("mobilenet_v1", 1.0, 4_231_976, 568_740_352),
        ("mobilenet_v2", 1.0, 3_504_872, 300_774_272),
        ("mobilenet_v2", 1.4, 6_108_776, 582_195_824),
        ("mobilenet_v3_large", 1.0, 5_483_032, 216_589_760),
        ("mobilenet_v3_large", 0.75, 3_993_528, 154_560_624),
        ("mobilenet_v3_small", 1.0, 2_542_856, 56_510_400),
        ("mobilenet_v3_small", 0.75, 2_041_872, 43_399_344),
        ("mobilenet_v3_large_minimalistic", 1.0, 3_924_288, 209_136_704),
        ("mobilenet_v3_small_minimalistic", 1.0, 2_044_736, 52_288_448),
        ("efficientnet_lite0", 1.0, 4_652_008, 385_187_552),
    ],
)
def test_the_published_networks(model: str, width: float, params: int, madds: int):
    cost = count(replace(MODELS[model], width=width).network(), 224)
    assert (cost.params, cost.madds) == (params, madds)


@pytest.mark.parametrize(
    ("model", "channels"),
    [
        ("mobilenet_v1", (64, 128, 256, 512, 1024)),
        ("mobilenet_v2", (16, 24, 32, 96, 320)),
        ("mobilenet_v3_large", (16, 24, 40, 112, 160)),
        ("mobilenet_v3_small", (16, 16, 24, 48, 96)),
    ],
)
def test_taps_of_every_stride(model: str, channels: tuple[int, ...]):
    taps = MODELS[model].network().taps()
    assert tuple(taps[f"c{n}"].channels for n in range(1, 6)) == channels
    assert tuple(taps[f"c{n}"].stride for n in range(1, 6)) == (2, 4, 8, 16, 32)


def test_ssdlite_taps_are_the_expanded_tensors_of_the_papers():
    expanded = {name: MODELS[name].network().taps().get("c4_expanded") for name in MODELS}
    channels = {name: tap and (tap.channels, tap.stride) for name, tap in expanded.items()}
    assert channels["mobilenet_v2"] == (576, 16)
    assert channels["mobilenet_v3_large"] == (672, 16)
    assert channels["mobilenet_v3_small"] == (288, 16)
    assert channels["mobilenet_v1"] is None


@pytest.mark.parametrize(("output_stride", "rates"), [(32, {1}), (16, {1, 2}), (8, {1, 2, 4})])
def test_dilation_replaces_strides_and_keeps_the_counts_of_parameters(
    output_stride: int, rates: set[int]
):
    for name in MODELS:
        network = replace(MODELS[name], output_stride=output_stride).network()
        assert network.taps()["last"].stride == output_stride
        assert {block.dilation for block in network.blocks} == rates
        assert count(network, 224).params == count(MODELS[name].network(), 224).params


def test_the_block_whose_stride_was_removed_keeps_the_rate_and_has_no_residual():
    network = resolve(V2, width=0.35, output_stride=8)
    removed = [block for block in network.blocks if block.stride_removed]
    assert [(block.dilation, block.residual) for block in removed] == [(1, False), (2, False)]


def test_the_reduced_tail_is_torchvisions():
    large = count(resolve(reduce_tail(V3_LARGE)), 224)
    small = count(resolve(reduce_tail(V3_SMALL)), 224)
    assert (large.params, large.madds) == (2_569_352, 182_302_720)
    assert (small.params, small.madds) == (1_099_672, 43_763_584)
    with pytest.raises(ValueError, match="only V3"):
        reduce_tail(V2)


def test_a_halved_last_stage_keeps_all_before_it():
    for table, start in ((V2, 14), (V3_LARGE, 13), (V3_SMALL, 9)):
        whole, halved = resolve(table), resolve(halve_last_stage(table))
        assert halved.blocks[:start] == whole.blocks[:start]
        behind = zip(halved.blocks[start:], whole.blocks[start:], strict=True)
        assert all(2 * half.out_channels == full.out_channels for half, full in behind)
    with pytest.raises(ValueError, match="only V2 and V3"):
        halve_last_stage(V1)


def test_a_network_ends_at_a_tap():
    network = resolve(V2)
    ended = until(network, "c5")
    assert ended.blocks == network.blocks[:-1]
    assert ended.taps()["last"] == ended.taps()["c5"]
    with pytest.raises(ValueError, match="tap 'c6': expected one of"):
        until(network, "c6")


def test_the_first_map_at_stride_8_is_torchvisions():
    # the segmentation networks read features.4 of 0 ... 16 of V3-Large
    assert resolve(V3_LARGE).taps()["c3_first"].block == 4
    assert resolve(V3_SMALL).taps()["c3_first"].block == 2


def test_dilation_from_the_removed_stride_on_is_torchvisions():
    network = resolve(V3_LARGE, output_stride=16)
    assert [block.dilation for block in network.blocks[12:]] == [1, 1, 2, 2, 1]
    # torchvision's cnf.dilation of the last three bottlenecks
    assert [block.dilation for block in dilate_entries(network).blocks[12:]] == [1, 2, 2, 2, 1]


def test_minimalistic_has_no_squeeze_no_hard_swish_and_only_small_kernels():
    for table in (V3_LARGE, V3_SMALL):
        blocks = resolve(minimalistic(table)).blocks
        assert {block.kernel for block in blocks} == {1, 3}
        assert {block.activation for block in blocks} == {"relu"}
        assert not any(block.squeeze for block in blocks)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(12, 16), (11.2, 16), (8.4, 8), (44.8, 48), (33.6, 32), (3, 8), (20, 24)],
)
def test_make_divisible_never_loses_a_tenth(value: float, expected: int):
    assert make_divisible(value) == expected
    assert make_divisible(value) >= 0.9 * value


@pytest.mark.parametrize("table", [V1, V2, V3_LARGE, V3_SMALL])
def test_hostile_options_are_refused(table: Architecture):
    for options in ({"width": 0}, {"width": -1.0}, {"output_stride": 4}, {"classes": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            resolve(table, **options)
    with pytest.raises(ValueError, match="rule"):
        resolve(table, rule="keras")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("alias", "name", "width", "size"),
    [
        ("mobilenet_v2", "mobilenet_v2", None, None),
        ("mobilenetv2_100", "mobilenet_v2", 1.0, None),
        ("mobilenetv2_035", "mobilenet_v2", 0.35, None),
        ("mobilenet_v2_1.0_224", "mobilenet_v2", 1.0, 224),
        ("mobilenet_v1_0.25_128", "mobilenet_v1", 0.25, 128),
        ("MobileNetV3Small", "mobilenet_v3_small", None, None),
        ("mobilenet-v3-large", "mobilenet_v3_large", None, None),
        ("tf_mobilenetv3_large_minimal_100", "mobilenet_v3_large_minimalistic", 1.0, None),
    ],
)
def test_aliases(alias: str, name: str, width: float | None, size: int | None):
    named = parse_model_name(alias)
    assert (named.spec.name, named.width, named.size) == (name, width, size)
    assert named.spec.width == (width or 1.0)


@pytest.mark.parametrize(
    "name", ["resnet50", "mobilenet_v2_large", "mobilenet_v5", "", "mobilenet"]
)
def test_unknown_models_are_refused_with_the_list(name: str):
    with pytest.raises(UsageError, match="mobilenet_v3_small"):
        parse_model_name(name)


def test_a_spec_survives_json_and_refuses_strangers():
    spec = ModelSpec(name="mobilenet_v3_small", width=0.5, classes=7, padding="same", bn_eps=1e-3)
    assert ModelSpec.from_dict(spec.to_dict()) == spec
    with pytest.raises(UsageError, match="colour"):
        ModelSpec.from_dict({**spec.to_dict(), "colour": 1})
    with pytest.raises(UsageError, match="padding"):
        ModelSpec(name="mobilenet_v2", padding="valid")  # pyright: ignore[reportArgumentType]
