"""Which parts of which networks the rules of accelerators are about."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mobilenet import cli
from mobilenet.doctor import doctor
from mobilenet.errors import UsageError
from mobilenet.models import MODELS, create
from mobilenet.targets import RULES, check_target
from mobilenet.targets.check import places_of

PLAIN = (
    "mobilenet_v1",
    "mobilenet_v2",
    "mobilenet_v3_large_minimalistic",
    "mobilenet_v3_small_minimalistic",
)
# what the papers' tables say: HS, SE and 5x5 rows, with the stem, the last layer and the one behind
# the pool where they have h-swish
COUNTED = {
    "mobilenet_v3_large": {"hard_swish": 12, "squeeze_excite": 8, "kernel_5x5": 6},
    "mobilenet_v3_small": {"hard_swish": 11, "squeeze_excite": 9, "kernel_5x5": 8},
    "efficientnet_lite0": {"kernel_5x5": 9},
}


@pytest.mark.parametrize("name", MODELS)
def test_places_are_those_of_the_tables_and_of_the_modules(name: str) -> None:
    found = places_of(MODELS[name].network())
    counts = {feature: len(places) for feature, places in found.items()}
    expected = COUNTED.get(name, {})
    assert counts == {
        "any": 0,
        "hard_swish": expected.get("hard_swish", 0),
        "squeeze_excite": expected.get("squeeze_excite", 0),
        "kernel_5x5": expected.get("kernel_5x5", 0),
        "channels_4": 0,
    }
    modules = dict(create(MODELS[name]).named_modules())
    gates = {key.removesuffix(".reduce") for key in modules if key.endswith("squeeze.reduce")}
    assert gates == {f"backbone.{place}.squeeze" for place in found["squeeze_excite"]}
    assert ("head.hidden" in found["hard_swish"]) == (
        type(modules.get("head.act")).__name__ == "Hardswish"
    )


def test_channels_of_a_v1_at_an_uneven_width() -> None:
    """V1 is not rounded to eights: 32 * 0.35 is 11."""
    spec = replace(MODELS["mobilenet_v1"], width=0.35)
    assert "blocks.0" in places_of(spec.network())["channels_4"]
    report = check_target("litert-gpu", spec)
    assert [found.feature for found in report.findings] == ["channels_4"]
    assert "mobilenet_v1" not in report.untroubled


@pytest.mark.parametrize("target", RULES)
def test_a_rule_has_a_source_and_says_what_to_do(target: str) -> None:
    assert RULES[target]
    for rule in RULES[target]:
        assert rule.source.startswith("https://")
        assert rule.says
        assert rule.instead
        assert (rule.feature == "any") == (rule.effect == "needs")
    # what is advised must not be what is warned of
    for name in PLAIN:
        assert name in check_target(target, MODELS["mobilenet_v3_large"]).untroubled
    v3 = check_target(target, MODELS["mobilenet_v3_small"])
    assert {"hard_swish", "squeeze_excite"} & {found.feature for found in v3.findings}


def test_doctor_names_what_falls_off(capsys: pytest.CaptureFixture[str], small_run: Path) -> None:
    words = ["doctor", "--target", "edgetpu", "--model", "mobilenet_v3_large", "--json"]
    with pytest.raises(SystemExit) as left:
        cli.main(words)
    assert left.value.code == 0
    target = json.loads(capsys.readouterr().out)["target"]
    (falls,) = [found for found in target["findings"] if found["effect"] == "falls off"]
    assert falls["feature"] == "hard_swish"
    assert len(falls["places"]) == 12
    assert "minimalistic" in falls["instead"]
    assert falls["source"] == "https://github.com/google-coral/edgetpu/issues/353"

    text = str(doctor(target="hexagon", model=str(small_run)))
    assert text.startswith("hexagon: mobilenet_v3_small 0.35")
    assert "h-swish in 11 places (blocks.0, blocks.4, blocks.5 ...)" in text
    text = str(doctor(target="ane", model="mobilenetv2_100"))
    assert "mobilenet_v2" in text
    assert "squeeze" not in text


def test_wrong_usage() -> None:
    for options, reason in (
        ({"target": "vax", "model": "mobilenet_v2"}, "target 'vax': expected one of edgetpu, "),
        ({"target": "ane"}, "go together"),
        ({"model": "mobilenet_v2"}, "go together"),
        ({"target": "ane", "model": "resnet"}, "model 'resnet'"),
        ({"data": "x", "target": "ane", "model": "mobilenet_v2"}, "not about data"),
    ):
        with pytest.raises(UsageError, match=reason):
            doctor(**options)  # pyright: ignore[reportArgumentType]
