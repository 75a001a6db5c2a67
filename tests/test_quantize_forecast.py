"""What the latency of a network is predicted from."""

from dataclasses import replace

import pytest

from mobilenet.cost import count
from mobilenet.errors import MissingEngine
from mobilenet.models import MODELS
from mobilenet.networks import SCENE_NETWORKS, network_program, random_network
from mobilenet.program import program_of
from mobilenet.quantize import forecast
from mobilenet.quantize.forecast import forecast_ms, measure_rates, work_of

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("size", [64, 97])
def test_the_work_is_all_multiply_adds_and_every_number_written(name: str, size: int) -> None:
    spec = replace(MODELS[name], width=0.5, classes=9)
    work = dict(work_of(program_of(random_network(spec, 64)), size))
    assert work.pop("rest") > 9
    cost = count(spec.network(), size)
    assert sum(work.values()) == cost.madds
    assert work["classifier"] >= 9
    assert ("squeeze-excite" in work) == ("v3" in name and "minimal" not in name)


def test_a_map_resized_and_a_map_pooled_have_the_sizes_that_they_have() -> None:
    spec = SCENE_NETWORKS["lraspp_mobilenet_v2"]
    network = random_network(spec, 64)
    small = work_of(network_program(network), 64)
    large = work_of(network_program(network), 128)
    # all maps are four times as large, but for what is pooled to one pixel
    assert 3.9 < large["rest"] / small["rest"] <= 4
    assert large["depthwise"] == 4 * small["depthwise"]


def test_a_forecast_is_the_work_at_the_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    program = program_of(random_network(replace(MODELS["mobilenet_v2"], width=0.35), 32))
    work = work_of(program, 32)
    rates = dict.fromkeys(work, 0.0) | {"pointwise": 2e-9, "rest": 1e-9}
    monkeypatch.setattr(forecast, "measure_rates", lambda precision: rates)
    expected = 2e-6 * work["pointwise"] + 1e-6 * work["rest"]
    assert forecast_ms(program, 32, "int8") == pytest.approx(expected)


def test_rates_are_measured_of_every_kind_of_work() -> None:
    kinds = {"stem", "pointwise", "depthwise", "squeeze-excite", "classifier", "rest"}
    try:
        rates = {precision: measure_rates(precision) for precision in ("float32", "int8")}
    except MissingEngine:
        pytest.skip("the engine was not built")
    for found in rates.values():
        assert set(found) == kinds
        assert all(rate > 0 for rate in found.values())
    # every kind of work has its rate, whatever the network
    for name in MODELS:
        program = program_of(random_network(replace(MODELS[name], width=0.35), 32))
        assert forecast_ms(program, 64, "float32") > 0
