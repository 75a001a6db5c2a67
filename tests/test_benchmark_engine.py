"""The scripts behind docs/benchmarks.md: what they plan, keep, count and write. No test here looks
at how long anything took."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilenet.errors import MobilenetError
from mobilenet.runtime import RUNTIMES

SCRIPTS = str(Path(__file__).parent.parent / "benchmarks")
sys.path.insert(0, SCRIPTS)
try:
    import cold_start
    import engine as engine_bench
    import engine_job
    import engine_page
    import engine_subjects
finally:
    sys.path.remove(SCRIPTS)

AVX2 = ("avx", "fma", "avx2")
AMX = (*AVX2, "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16")


def options(*arguments: str) -> Any:
    return engine_bench.parse(list(arguments))


def timing(runtime: str, asked: str, median: float, **more: Any) -> dict[str, Any]:
    return {
        "runtime": runtime,
        "version": "0.1.0 avx2",
        "precision": asked,
        "configuration": "",
        "threads": 1,
        "median_ms": median,
        "p10_ms": median,
        "p90_ms": median,
        "images_per_s": 1e3 / median,
        "ratio": 1.0,
        "runs": 3,
        "max_error": 0.0,
        "cosine": 1.0,
        "asked": asked,
        "doubt": None,
        "tried": {},
        **more,
    }


def result(job: engine_job.Job, results: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    made = {
        "job": vars(job),
        "results": results,
        "skipped": {},
        "profile": {},
        "peaks": {},
        "caps": {},
        "machine": {"load": 0.1},
        "load_after": 0.2,
        "date": "2026-01-01T00:00:00+00:00",
        **more,
    }
    return json.loads(json.dumps(made))


def page_of(jobs: list[dict[str, Any]], **more: Any) -> engine_page.Results:
    machine = {
        "cpu": "a CPU",
        "cores": 2,
        "instruction_sets": list(AVX2),
        "governor": None,
        "mhz": None,
        "system": "Linux",
        "python": "3.11",
        "virtual": None,
        "caches": "L1 32K",
        "libc": "glibc",
    }
    given = {
        "jobs": jobs,
        "cold": [],
        "failures": {},
        "machine": machine,
        "versions": {"openvino": "1"},
        "complete": True,
    }
    return engine_page.Results(**{**given, **more})


def test_instruction_sets_are_capped_one_below_the_other() -> None:
    assert engine_bench.levels(AMX) == ["amx", "vnni", "avx512", "avx2"]
    assert engine_bench.levels(AVX2) == ["avx2"]
    assert engine_bench.levels(("asimd",)) == []


def test_everything_is_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {3, 5}, raising=False)
    jobs = engine_bench.plan(options("--model", "mobilenet_v2", "--batch", "8"), AMX)
    assert len({job.name for job in jobs}) == len(jobs) == 8
    plain = [job for job in jobs if not job.cap]
    assert [(job.threads, job.batch, job.cores, job.profile) for job in plain] == [
        (1, 1, (5,), True),
        (2, 1, (3, 5), False),
        (1, 8, (5,), False),
        (2, 8, (3, 5), False),
    ]
    assert all(job.precisions == ("float32", "bfloat16", "int8") for job in plain)
    assert {job.runtimes for job in plain} == {
        tuple(name for name in ("engine", *engine_bench.PEERS) if name in RUNTIMES)
    }
    capped = [job for job in jobs if job.cap]
    assert {job.cap for job in capped} == {"vnni", "avx2"}
    assert all(job.precisions == ("float32", "int8") for job in capped)
    for job in capped:
        assert (set(job.runtimes) <= {"engine", "openvino"}) == (job.cap == "avx2")
    assert [job.cap for job in engine_bench.plan(options(), AVX2)] == [""] * 16

    given = engine_bench.environment("vnni")
    assert given["MOBILENET_ENGINE_ISA"] == "vnni"
    assert given["ONEDNN_MAX_CPU_ISA"] == "AVX512_CORE_VNNI"
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    assert "ONEDNN_MAX_CPU_ISA" not in engine_bench.environment("")
    (job,) = (job for job in plain if job.profile)
    assert engine_job.Job.from_dict(json.loads(json.dumps(vars(job)))) == job


def test_what_was_kept_is_used_only_for_the_same_thing(tmp_path: Path) -> None:
    store = engine_bench.Store(tmp_path, "now")
    store.write("a", {"runs": (1, 2)}, {"x": 1})
    assert store.read("a", {"runs": (1, 2)}) == {"x": 1}
    assert store.read("a", {"runs": (1, 3)}) is None
    assert store.read("b", {}) is None
    assert engine_bench.Store(tmp_path, "later").read("a", {"runs": (1, 2)}) is None
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    store.clear()
    assert list(tmp_path.iterdir()) == []


def test_ratios_are_the_best_peers_time_over_ours(tmp_path: Path) -> None:
    (job,) = (
        job for job in engine_bench.plan(options("--model", "mobilenet_v2"), AVX2) if job.profile
    )
    times = [
        timing("engine", "float32", 5.0),
        timing("openvino", "float32", 8.0),
        timing("litert", "float32", 6.0),
        timing("engine", "bfloat16", 4.0),
        timing("engine", "int8", 2.0),
        timing("openvino", "int8", 7.0, configuration="QDQ U8S8", doubt="cosine 0.1"),
    ]
    lines = [
        {"step": 0, "kind": "stem", "seconds": 1e-3, "macs": 1e7, "bytes": 1e3},
        {"step": 1, "kind": "expand", "seconds": 2e-3, "macs": 1e8, "bytes": 1e5},
        {"step": 2, "kind": "expand", "seconds": 2e-3, "macs": 1e8, "bytes": 1e5},
        {"step": 3, "kind": "squeeze-excite", "seconds": 1e-4, "macs": 1e3, "bytes": 2e6},
    ]
    found = page_of(
        [
            result(
                job,
                times,
                profile={"float32": lines},
                peaks={"float32": 1e11, "read": 1e10},
                skipped={"bfloat16 litert": "no bfloat16"},
            )
        ]
    )
    path = tmp_path / "docs" / "benchmarks.md"
    engine_page.write(found, path)
    page = path.read_text()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines()]
    rows = {row[0]: row[1:] for row in cells if len(row) == 2}
    assert rows["float32, 1 thread"] == ["1.20"]  # LiteRT's 6 over 5
    assert rows["int8, 1 thread"] == ["3.50"]
    assert rows["int8, 1 thread, to the fastest at any precision"] == ["3.00"]
    assert rows["bfloat16, 1 thread, to the fastest at any precision"] == ["1.50"]
    assert "bfloat16, 1 thread" not in rows
    assert "No peer computes in bfloat16 on this machine." in page
    assert "7.00 (7.00–7.00) †<br>QDQ U8S8, cosine 1.000" in page
    assert "**3.00**<br>LiteRT float32 6.00" in page
    assert "bfloat16 litert: no bfloat16 (V2)" in page
    assert "no AVX-512, AVX-512 VNNI" in page
    kinds = {row[2]: row[3:] for row in cells if len(row) == 8 and row[1] == "float32"}
    # a floor is of the arithmetic or of the weights' way, whichever is longer
    assert kinds["stem"] == ["10.0", "1.000", "10.0", "0.100", "10.0"]
    assert kinds["expand"] == ["200.0", "4.000", "50.0", "2.000", "2.0"]
    assert kinds["rest"] == ["0.0", "0.100", "0.0", "0.200", "0.5"]
    assert kinds["all"][:2] == ["210.0", "5.100"]
    drawn = path.with_suffix(".svg").read_text()
    assert drawn.startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    assert "float32, network V2: 1.2" in drawn
    assert "V2: 3" in drawn


def test_a_page_of_nothing_but_peers_says_so(tmp_path: Path) -> None:
    job = engine_bench.plan(options("--model", "mobilenet_v1"), AVX2)[0]
    found = page_of(
        [result(job, [timing("openvino", "float32", 8.0)])],
        complete=False,
        failures={"mobilenet_v1-224-b32-t1": "it fell over"},
    )
    engine_page.write(found, tmp_path / "benchmarks.md")
    page = (tmp_path / "benchmarks.md").read_text()
    assert "**Not all was measured: the run was interrupted.**" in page
    assert "The engine was not timed." in page
    assert "There is one core only" in page
    assert "mobilenet_v1-224-b32-t1: failed: it fell over" in page
    assert not (tmp_path / "benchmarks.svg").exists()


def test_prepared_subjects_run_without_torch(tmp_path: Path) -> None:
    engine_subjects.write("mobilenet_v1_0.25_128", 32, tmp_path, [1, 2])
    assert engine_subjects.is_fresh(tmp_path / "b2")
    subject, failures = engine_subjects.read(tmp_path / "b2")
    assert (subject.batch, subject.inputs.shape) == (2, (2, 3, 32, 32))
    assert {"onnx", "onnx QDQ", "engine float32", "engine int8"} <= subject.files.keys()
    assert "no bfloat16 convolution" in failures["bfloat16 onnxruntime"]
    single, _ = engine_subjects.read(tmp_path / "b1")
    assert single.files["onnx"] == subject.files["onnx"]
    np.testing.assert_allclose(single.expected[0], subject.expected[0], atol=1e-4)
    (tmp_path / "b1" / "subject.json").write_text(json.dumps({"fingerprint": "of another version"}))
    assert not engine_subjects.is_fresh(tmp_path / "b1")


def small(tmp_path: Path) -> list[str]:
    given = "--model mobilenet_v1_0.25_128 --size 32 --batch 2 --rounds 1 --runs 1 --cold-runs 0"
    return [*given.split(), "--out", str(tmp_path / "b.md"), "--cache", str(tmp_path / "cache")]


@pytest.mark.slow
def test_an_interrupted_run_writes_its_page_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    time_job = engine_bench.time_job
    timed: list[str] = []

    def interrupted(job: engine_job.Job, subjects: Path) -> dict[str, Any]:
        if len(timed) == 1:
            raise KeyboardInterrupt
        timed.append(job.name)
        return time_job(job, subjects)

    monkeypatch.setattr(engine_bench, "time_job", interrupted)
    assert engine_bench.main(small(tmp_path)) == 130
    assert "goes on from here" in capsys.readouterr().err
    page = (tmp_path / "b.md").read_text()
    assert "Not all was measured" in page
    assert "int8, one image of 32 pixels" in page
    assert "Throughput" not in page

    def failing(job: engine_job.Job, subjects: Path) -> dict[str, Any]:
        timed.append(job.name)
        raise MobilenetError("out of order")

    monkeypatch.setattr(engine_bench, "time_job", failing)
    assert engine_bench.main(small(tmp_path)) == 1
    assert len(timed) == len(set(timed))  # the first was not timed again
    page = (tmp_path / "b.md").read_text()
    assert "Not all was measured" not in page
    assert f"{timed[-1]}: failed: out of order" in page
    # a complete run is not gone on with
    assert engine_bench.main(small(tmp_path)) == 1
    assert timed.count(timed[0]) == 2


def test_the_engines_own_account_is_taken_where_it_gives_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Engine:
        def profile(self, images: np.ndarray, runs: int) -> list[tuple]:
            assert images.shape == (1, 3, 224, 224)
            return [(0, "stem", 0.5, 10.0, 4.0), (1, "expand", "produce", 0.25, 20.0, 8.0)]

    native = sys.modules["mobilenet.runtime.engine"]
    job = engine_bench.plan(options("--model", "mobilenet_v1"), AVX2)[0]
    monkeypatch.setattr(native, "open_model", lambda data: data)
    monkeypatch.setattr(native, "plan", lambda model: Engine())
    found = engine_job._profile(job, {"engine int8": b"model"})
    assert list(found) == ["int8"]
    assert [line["kind"] for line in found["int8"]] == ["stem", "expand"]
    assert found["int8"][1] == {
        "step": 1, "kind": "expand", "seconds": 0.25, "macs": 20.0, "bytes": 8.0
    }  # fmt: skip
    monkeypatch.setattr(native, "plan", lambda model: object())
    assert engine_job._profile(job, {"engine int8": b"model"}) == {}


def test_a_job_that_dies_is_named(tmp_path: Path) -> None:
    job = engine_bench.plan(options("--model", "mobilenet_v1"), AVX2)[0]
    with pytest.raises(MobilenetError, match=r"mobilenet_v1-224-b1-t1: .*No such file"):
        engine_bench.time_job(job, tmp_path)


@pytest.mark.slow
def test_whole_processes_answer_as_the_network_does(tmp_path: Path) -> None:
    skipped = cold_start.prepare("mobilenet_v1_0.25_128", "float32", 32, tmp_path)
    found, failed = cold_start.measure(tmp_path, "float32", runs=1)
    names = {row.name for row in found}
    assert names >= {"NumPy alone", "ONNX Runtime", "OpenVINO", "OpenVINO, compiled beforehand"}
    assert all("engine" in name for name in failed)  # where it was not built
    assert not {"ONNX Runtime", "LiteRT"} & failed.keys()
    assert skipped.keys() <= {"litert"}
    for row in found:
        assert row.memory_mb > 10
        assert row.cosine is None or row.cosine > 0.9999
    assert all(name in cold_start.table(found) for name in names)
    # one that answers otherwise is not timed
    np.save(tmp_path / "expected.npy", -np.load(tmp_path / "expected.npy"))
    found, failed = cold_start.measure(tmp_path, "float32", runs=1)
    assert {row.name for row in found} == {"NumPy alone"}
    assert "cosine -1.000" in failed["ONNX Runtime"]
