"""The peers' eight-bit files, the choice among a runtime's configurations, and what is said of
those whose answers are doubtful. No test here looks at how long anything took."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest

from mobilenet.benchmark import benchmark, contest, float16, quantised
from mobilenet.benchmark.contest import WrongAnswers, enter
from mobilenet.benchmark.float16 import open_litert_float16
from mobilenet.benchmark.quantised import litert_int8, nncf_performance, qdq
from mobilenet.benchmark.subject import Opening, Subject, find_subject
from mobilenet.errors import MissingDependency, UsageError
from mobilenet.runtime import RUNTIMES, Floats, Precision, Session, unpack

needs_nncf = pytest.mark.skipif(find_spec("nncf") is None, reason="nncf is not installed")
needs_litert = pytest.mark.skipif(
    find_spec("litert_torch") is None or find_spec("ai_edge_quantizer") is None,
    reason="LiteRT's converters are not installed",
)


@pytest.fixture(scope="module")
def subject() -> Subject:
    """A network with hard-swish and squeeze-excite."""
    found = find_subject("mobilenet_v3_small", size=40, width=0.35, batch=2)
    return replace(found, calibration=found.calibration[:8])


def cosine(a: Floats, b: Floats) -> float:
    return float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))


def answers(subject: Subject, runtime: str, data: bytes) -> Floats:
    session = RUNTIMES[runtime](data, threads=1, precision="int8", batch=subject.batch)
    assert "int8" in session.precision
    return session.run(session.laid_out(subject.inputs))


@pytest.mark.parametrize("convolutions_only", [False, True])
def test_a_qdq_file_is_of_unsigned_activations_and_weights_by_channel(
    subject: Subject, convolutions_only: bool
) -> None:
    made = qdq(subject.onnx_file(), subject.calibration, convolutions_only=convolutions_only)
    model = onnx.load_from_string(made)
    constants = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    made_by = {name: node for node in model.graph.node for name in node.output}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(convolutions) > 30
    for node in convolutions:
        image, weight = (made_by[name] for name in node.input[:2])
        assert (image.op_type, weight.op_type) == ("DequantizeLinear", "DequantizeLinear")
        assert constants[image.input[2]].dtype == np.uint8
        assert constants[weight.input[0]].dtype == np.int8
        assert len(constants[weight.input[1]]) == len(constants[weight.input[0]])
    gates = [node for node in model.graph.node if node.op_type == "Mul"]
    for node in gates:  # of hard-swish and of squeeze-excite
        read = {made_by[name].op_type for name in node.input}
        assert (read == {"DequantizeLinear"}) == (not convolutions_only)
    assert gates
    for runtime in ("onnxruntime", "openvino"):
        assert cosine(answers(subject, runtime, made), subject.expected) > 0.5


@needs_nncf
def test_nncf_gives_openvino_its_own_format(subject: Subject) -> None:
    made = nncf_performance(subject.onnx_file(), subject.calibration)
    network, weights = unpack(made).values()
    assert network.startswith(b"<?xml")
    assert b"FakeQuantize" in network
    assert len(weights) > 0
    assert cosine(answers(subject, "openvino", made), subject.expected) > 0.5


@needs_litert
def test_litert_keeps_hard_swish_out_of_eight_bits(subject: Subject) -> None:
    for convolutions_only in (False, True):
        made = litert_int8(
            subject.litert_file(), subject.calibration, batch=2, convolutions_only=convolutions_only
        )
        assert len(made) < len(subject.litert_file()) / 2
        assert cosine(answers(subject, "litert", made), subject.expected) > 0.5


def test_a_quantiser_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantised, "find_spec", lambda name: None)
    images = np.zeros((1, 3, 8, 8), np.float32)
    for call, named in (
        (lambda: qdq(b"", images, convolutions_only=False), r"mobilenet\[onnx\]"),
        (lambda: nncf_performance(b"", images), "openvino"),
        (lambda: litert_int8(b"", images, batch=1, convolutions_only=False), "ai-edge-quantizer"),
    ):
        with pytest.raises(MissingDependency, match=named):
            call()


def test_litert_has_no_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    def file() -> bytes:
        raise AssertionError("converted in vain")

    if find_spec("ai_edge_litert") is None:
        with pytest.raises(MissingDependency, match="ai-edge-litert"):
            open_litert_float16(file, threads=1)
        return
    monkeypatch.setattr(float16, "_INSTRUCTIONS", set())
    with pytest.raises(UsageError, match="no bfloat16"):
        open_litert_float16(file, threads=1)


def test_every_peer_in_int8(tmp_path: Path) -> None:
    found = benchmark(
        "mobilenet_v1",
        runtime=("onnxruntime", "openvino"),
        precision="int8",
        width=0.25,
        size=32,
        rounds=1,
        runs=2,
    )
    assert {t.runtime: t.configuration for t in found.results} == {
        "onnxruntime": "QDQ U8S8",
        "openvino": found.results[
            [t.runtime for t in found.results].index("openvino")
        ].configuration,
    }
    assert all(t.precision == "int8" or t.runtime == "openvino" for t in found.results)
    assert all(0.7 < t.cosine < 0.9999 for t in found.results)
    skipped = {"openvino, NNCF PERFORMANCE"} if find_spec("nncf") is None else set()
    assert found.skipped.keys() == skipped
    tried = found.conditions["tried"]
    assert tried.keys() == (set() if skipped else {"openvino"})
    for name, medians in tried.items():
        chosen = next(t.configuration for t in found.results if t.runtime == name)
        assert medians[chosen] == min(medians.values())


class Fixed(Subject):
    """A subject that opens what a test gives it."""

    openings: Mapping[str, Opening]

    def configurations(self, runtime: str, precision: Precision) -> Mapping[str, Opening]:
        return self.openings


def fixed(subject: Subject, **runs: Callable[[Floats], Floats]) -> Fixed:
    def opening(run: Callable[[Floats], Floats]) -> Opening:
        return lambda threads: Session(
            runtime="openvino",
            version="0",
            precision="int8",
            layout="NCHW",
            threads=threads,
            run=run,
        )

    made = object.__new__(Fixed)
    made.__dict__.update(vars(subject))
    made.__dict__["openings"] = {name: opening(run) for name, run in runs.items()}
    return made


def test_the_fastest_configuration_is_entered(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    def timed(sessions: Mapping[str, Session], *rest: object, **more: object) -> dict:
        return {"a": [3.0, 1.0, 2.0], "b": [1.0, 1.5, 9.0]}

    monkeypatch.setattr(contest, "time_in_turns", timed)
    noisy = subject.expected + 0.1 * np.ones_like(subject.expected)
    both = fixed(subject, a=lambda x: subject.expected, b=lambda x: noisy)
    entrant, skipped = enter(both, "r", threads=1, precision="int8")
    assert (entrant.configuration, dict(entrant.tried)) == ("b", {"a": 2.0, "b": 1.5})
    assert entrant.max_error == pytest.approx(0.1, rel=1e-3)
    assert entrant.cosine == pytest.approx(cosine(noisy, subject.expected), abs=1e-6)
    assert skipped == {}
    # one that cannot be opened is named, and the other entered untimed
    shapeless = fixed(subject, a=lambda x: subject.expected, b=lambda x: x)
    entrant, skipped = enter(shapeless, "r", threads=1, precision="int8")
    assert (entrant.configuration, dict(entrant.tried)) == ("a", {})
    assert "shape (2, 3, 40, 40), expected (2, 1000)" in skipped["r, b"]


def test_doubtful_answers_are_timed_below_float32_only(subject: Subject) -> None:
    turned = fixed(subject, a=lambda x: -subject.expected)
    for precision in ("int8", "bfloat16"):
        entrant, _ = enter(turned, "r", threads=1, precision=precision)
        assert entrant.doubt is not None
        assert entrant.doubt.startswith("cosine -1.0000 with the reference")
    with pytest.raises(WrongAnswers, match="answers differ by up to"):
        enter(turned, "r", threads=1, precision="float32")
    nothing = fixed(subject, a=lambda x: np.full_like(subject.expected, np.nan))
    for precision in ("int8", "float32"):
        with pytest.raises(WrongAnswers, match="no finite numbers"):
            enter(nothing, "r", threads=1, precision=precision)


def test_a_doubtful_runtime_is_timed_and_flagged(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    turned = fixed(subject, a=lambda x: -subject.expected)
    monkeypatch.setattr(sys.modules[benchmark.__module__], "find_subject", lambda *a, **o: turned)
    found = benchmark("x", runtime=("openvino",), precision="int8", rounds=1, runs=1)
    assert not found.ok
    assert found.wrong.keys() == {"openvino"}
    assert [round(t.cosine, 3) for t in found.results] == [-1.0]
    assert "WRONG ANSWERS: cosine" in str(found)
