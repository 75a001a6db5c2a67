"""What `benchmark` says, in which order it times, and whom it does not believe. No test here
looks at how long anything took."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mobilenet.benchmark import CAPS, NAMES, Benchmark, benchmark
from mobilenet.benchmark import subject as subject_module
from mobilenet.benchmark.contest import Contender
from mobilenet.benchmark.result import summarise
from mobilenet.benchmark.subject import ASKED_FOR, OWN_FILES_ONLY, find_subject
from mobilenet.cost import count
from mobilenet.errors import MissingDependency, MobilenetError, UsageError
from mobilenet.models import MODELS
from mobilenet.networks import random_network
from mobilenet.runtime import RUNTIMES, Floats, Session
from mobilenet.runtime.timing import WARM_UP, time_in_turns

RESULT = {
    "runtime": str,
    "version": str,
    "precision": str,
    "configuration": str,
    "threads": int,
    "median_ms": float,
    "p10_ms": float,
    "p90_ms": float,
    "images_per_s": float,
    "ratio": float,
    "runs": int,
    "max_error": float,
    "cosine": float,
}


def fake(name: str, run: Callable[[Floats], Floats], layout: str = "NCHW") -> Session:
    return Session(
        runtime=name, version="0", precision="float32", layout=layout, threads=1, run=run
    )


def entered(session: Session, *, max_error: float) -> Contender:
    return Contender(
        session=session,
        configuration="plain",
        max_error=max_error,
        cosine=1.0,
        doubt=None,
        tried={},
    )


def check(found: Benchmark, runs: int) -> dict:
    """The JSON object, after what must hold of every one."""
    data = json.loads(json.dumps(found.to_json()))
    assert set(data) == {"conditions", "results", "skipped", "wrong"}
    fastest = min(result["median_ms"] for result in data["results"])
    medians = [result["median_ms"] for result in data["results"]]
    assert medians == sorted(medians)
    for result in data["results"]:
        assert {key: type(value) for key, value in result.items()} == RESULT
        assert 0 < result["p10_ms"] <= result["median_ms"] <= result["p90_ms"]
        assert result["ratio"] == pytest.approx(result["median_ms"] / fastest, rel=1e-2)
        rate = 1e3 * data["conditions"]["batch"] / result["median_ms"]
        assert result["images_per_s"] == pytest.approx(rate, rel=1e-2)
        assert result["runs"] == runs
        assert result["runtime"] in str(found)
    return data


def test_a_model_by_name_in_every_runtime() -> None:
    threads = torch.get_num_threads()
    found = benchmark(
        "mobilenet_v3_small_minimalistic", width=0.35, size=40, batch=2, rounds=2, runs=3
    )
    data = check(found, runs=6)
    assert found.ok
    assert {r["runtime"] for r in data["results"]} >= {"torch", "onnxruntime", "openvino"}
    assert all(r["precision"] == "float32" and r["threads"] == 1 for r in data["results"])
    assert all(r["max_error"] < 1e-4 and r["cosine"] > 0.999999 for r in data["results"])
    timed = {r["runtime"] for r in data["results"]}
    assert data["skipped"].keys() == set(NAMES) - {*ASKED_FOR, *OWN_FILES_ONLY} - timed
    assert data["skipped"].keys() <= {"litert", "engine"}
    spec = replace(MODELS["mobilenet_v3_small_minimalistic"], width=0.35)
    cost = count(spec.network(), 40)
    expected = {
        "model": spec.name,
        "width": 0.35,
        "size": 40,
        "classes": 1000,
        "batch": 2,
        "params": cost.params,
        "madds": cost.madds,
        "precision": "float32",
        "threads": 1,
        "rounds": 2,
        "runs": 3,
        "warm_up": WARM_UP,
    }
    assert {key: data["conditions"][key] for key in expected} == expected
    assert data["conditions"]["machine"].keys() >= {"cpu", "cores", "affinity", "governor", "load"}
    assert data["conditions"]["date"].endswith("+00:00")
    assert data["conditions"]["caps"].keys() == set(CAPS)
    assert torch.get_num_threads() == threads


def test_a_run_needs_nothing_but_torch(small_run: Path) -> None:
    data = check(benchmark(str(small_run), runtime=("torch",), size=64, rounds=1, runs=2), runs=2)
    assert [r["runtime"] for r in data["results"]] == ["torch"]
    assert data["results"][0]["max_error"] < 1e-4
    assert data["conditions"]["size"] == 64
    assert data["conditions"]["weights"] == str(small_run)


def test_bfloat16_is_computed_where_it_can_be(small_export: Path) -> None:
    data = check(benchmark(str(small_export), precision="bfloat16", rounds=1, runs=2), runs=2)
    assert all(r["precision"] == "bfloat16" for r in data["results"] if r["runtime"] != "litert")
    # so far off that it was not float32
    assert all(1e-4 < r["max_error"] < 0.5 for r in data["results"])
    assert "no bfloat16 convolution" in data["skipped"]["onnxruntime"]
    assert "torch" in {r["runtime"] for r in data["results"]}


def test_an_exported_folder_with_and_without_its_run(small_export: Path, tmp_path: Path) -> None:
    found = benchmark(str(small_export), batch=3, rounds=1, runs=2)
    data = check(found, runs=2)
    timed = {r["runtime"] for r in data["results"]}
    assert timed - {"engine", "litert"} == {"torch", "onnxruntime", "openvino"}
    assert len(data["conditions"]["artifact_sha256"]) == 64

    alone = shutil.copytree(small_export, tmp_path / "alone")
    data = check(benchmark(str(alone), rounds=1, runs=2), runs=2)
    assert {r["runtime"] for r in data["results"]} == {"onnxruntime", "openvino"}
    assert "not in its place" in data["skipped"]["torch"]
    assert (
        check(benchmark(str(alone), runtime=("openvino",), rounds=1, runs=1), runs=1)["skipped"]
        == {}
    )


def test_a_runtime_that_answers_wrongly_is_not_timed(
    small_export: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def open_wrong(data: bytes, *, threads: int, precision: str, batch: int | None) -> Session:
        right = RUNTIMES["onnxruntime"](data, threads=threads, precision="float32", batch=batch)
        return replace(right, run=lambda images: right.run(images[..., ::-1].copy()))

    monkeypatch.setattr(subject_module, "RUNTIMES", {**RUNTIMES, "openvino": open_wrong})
    found = benchmark(str(small_export), rounds=1, runs=1)
    assert not found.ok
    assert found.wrong.keys() == {"openvino"}
    assert "openvino" not in {timing.runtime for timing in found.results}
    assert "answers differ by up to" in found.to_json()["wrong"]["openvino"]
    assert "WRONG ANSWERS" in str(found)
    assert "openvino: answers otherwise" in capsys.readouterr().err
    with pytest.raises(MobilenetError, match="no runtime to time"):
        benchmark(str(small_export), runtime=("openvino",))


def test_runtimes_take_turns_and_each_begins_once() -> None:
    calls: list[str] = []
    shapes = {}

    def runner(name: str) -> Callable[[Floats], Floats]:
        def run(images: Floats) -> Floats:
            calls.append(name)
            shapes[name] = images.shape
            return images

        return run

    sessions = {
        "a": fake("a", runner("a")),
        "b": fake("b", runner("b"), layout="NHWC"),
        "c": fake("c", runner("c")),
    }
    inputs = np.zeros((2, 3, 4, 5), np.float32)
    taken = time_in_turns(sessions, inputs, rounds=3, runs=4)
    assert {name: len(times) for name, times in taken.items()} == {"a": 12, "b": 12, "c": 12}
    turn = 4 + WARM_UP
    assert calls == [name for name in "abcbcacab" for _ in range(turn)]
    assert shapes == {"a": (2, 3, 4, 5), "b": (2, 4, 5, 3), "c": (2, 3, 4, 5)}


def test_timings_are_percentiles_of_the_runs() -> None:
    contenders = {
        name: entered(fake(name, lambda x: x), max_error=error)
        for name, error in (("slow", 0.25), ("fast", 0.0))
    }
    taken = {"slow": [float(x) for x in range(10, 21)], "fast": [4.0, 5.0, 6.0]}
    fast, slow = summarise(contenders, taken, batch=4)
    assert (fast.runtime, fast.median_ms, fast.ratio, fast.runs) == ("fast", 5.0, 1.0, 3)
    assert (fast.images_per_s, fast.configuration) == (800.0, "plain")
    assert (slow.p10_ms, slow.median_ms, slow.p90_ms) == (11.0, 15.0, 19.0)
    assert (slow.ratio, slow.max_error) == (3.0, 0.25)


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v3_small"])
def test_random_networks_keep_their_activations_alive(name: str) -> None:
    spec = replace(MODELS[name], width=0.5)
    network = random_network(spec, 64)
    spreads: list[float] = []
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.register_forward_hook(lambda *call: spreads.append(call[2].std().item()))
            assert layer.momentum == spec.bn_momentum
    with torch.inference_mode():
        network(torch.randn(4, 3, 64, 64))
    assert len(spreads) > 20
    assert 0.3 < min(spreads) <= max(spreads) < 10
    again = random_network(spec, 64).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in network.state_dict().items())


def test_wrong_usage_is_refused(small_run: Path, small_export: Path, tmp_path: Path) -> None:
    for options, message in (
        ({"precision": "int4"}, "precision 'int4': expected one of"),
        ({"runtime": ("torch",), "precision": "int8"}, "no int8 network"),
        ({"runtime": ("onnx",)}, "runtime 'onnx': expected some of"),
        ({"threads": 0}, "threads 0"),
        ({"batch": 0}, "batch 0"),
        ({"rounds": 0}, "rounds 0"),
        ({"runs": 0}, "runs 0"),
        ({"size": 64}, "takes 48 pixels only"),
        ({"width": 0.5}, r"--width 0\.5"),
        ({"runtime": ("onnxruntime",), "precision": "bfloat16"}, "no bfloat16"),
    ):
        with pytest.raises(UsageError, match=message):
            benchmark(str(small_export), **options)
    with pytest.raises(UsageError, match=r"--width 0\.5"):
        benchmark(str(small_run), width=0.5)
    with pytest.raises(UsageError, match="expected one of"):
        benchmark("mobilenet_v9")
    with pytest.raises(UsageError, match="expected a model's name, a run or an export"):
        benchmark(str(tmp_path / "absent"))


def test_a_runtime_that_is_missing_is_skipped_unless_it_was_asked_for(
    small_export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(data: bytes, *, threads: int, precision: str, batch: int | None) -> Session:
        raise MissingDependency("openvino", "openvino", "running with OpenVINO")

    monkeypatch.setattr(subject_module, "RUNTIMES", {**RUNTIMES, "openvino": missing})
    found = benchmark(str(small_export), rounds=1, runs=1)
    assert "pip install 'mobilenet[openvino]'" in found.skipped["openvino"]
    with pytest.raises(MissingDependency):
        benchmark(str(small_export), runtime=("onnxruntime", "openvino"), rounds=1, runs=1)


def test_a_name_brings_its_width_and_size() -> None:
    found = find_subject("mobilenet_v1_0.25_128", size=None, width=None, batch=1)
    assert (found.spec.name, found.spec.width, found.size) == ("mobilenet_v1", 0.25, 128)
    assert found.inputs.shape == (1, 3, 128, 128)
    assert found.expected.shape == (1, 1000)
    assert NAMES[0] == "torch"
    assert set(NAMES[1:]) == set(RUNTIMES) >= {"onnxruntime", "openvino", "litert"}


def test_the_manual_page_runs(
    small_export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parent.parent / "docs" / "benchmark.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    shutil.copytree(small_export, tmp_path / "DIR")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(block, "docs/benchmark.md", "exec"), names)
    assert len(names["found"].results) == 2
