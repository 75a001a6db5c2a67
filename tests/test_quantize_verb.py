"""`mobilenet quantize`: the ladder, its gate, the run it writes, and what users do wrong."""

import importlib
import json
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from mobilenet import cli
from mobilenet.benchmark.subject import find_subject
from mobilenet.checkpoint import load_model, read_model_json, save_model
from mobilenet.errors import CheckpointError, DataError, UsageError
from mobilenet.evaluate import evaluate
from mobilenet.evaluate.metrics import wilson
from mobilenet.evaluate.paired import compare_answers
from mobilenet.export import export
from mobilenet.export.engine import run_file
from mobilenet.export.qdq import to_qdq
from mobilenet.integer import QuantisedProgram, Wide, run_integer
from mobilenet.integer.simulate import simulate
from mobilenet.integer.store import load_quantised
from mobilenet.program import LOGITS, program_of
from mobilenet.quantize import quantize, verb
from mobilenet.quantize.ladder import REPAIRS, Workshop, climb
from mobilenet.quantize.reconstruct import Reconstruction
from mobilenet.quantize.result import Gate
from mobilenet.runtime import engine as engine_module
from mobilenet.runtime import load
from mobilenet.verify import verify

ladder = importlib.import_module("mobilenet.quantize.ladder")


@pytest.fixture(scope="module")
def flowers(pictures: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of the run's classes, twenty pictures each."""
    folder = tmp_path_factory.mktemp("flowers")
    for index, path in enumerate(pictures):
        target = folder / ("daisy", "rose")[index % 2]
        target.mkdir(exist_ok=True)
        (target / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.fixture(scope="module")
def holidays(pictures: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same pictures, of a class that the run does not know."""
    folder = tmp_path_factory.mktemp("holidays")
    (folder / "holiday").mkdir()
    for path in pictures:
        (folder / "holiday" / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.fixture(scope="module")
def made(small_run: Path, flowers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An int8 run, with the cheap repairs."""
    out = tmp_path_factory.mktemp("made") / "int8"
    quantize(small_run, str(flowers), out=out, steps="equalise,ranges,bias", max_drop=100)
    return out


def images_of(run: Path, pictures: list[Path]) -> np.ndarray:
    from mobilenet.preprocess import Preprocess, preprocess

    contract = Preprocess.from_dict(load_model(run).preprocess)
    return np.stack([preprocess(path, contract) for path in pictures])


# ------------------------------------------------------------------------------- the int8 run


def test_the_out_folder_is_a_run_that_answers_in_int8(
    made: Path, small_run: Path, pictures: list[Path]
) -> None:
    network = load_quantised(made)
    images = images_of(small_run, pictures[:6])
    exact = run_integer(network, images)[LOGITS]
    np.testing.assert_array_equal(simulate(network, images)[LOGITS], exact)
    # the float weights beside it are those that were given
    assert load_model(made).weights_sha256 == load_model(small_run).weights_sha256
    summary = read_model_json(made)["provenance"]["quantisation"]
    assert summary["steps"][0] == "calibrate"


def test_evaluate_export_and_verify_take_it(made: Path, flowers: Path, tmp_path: Path) -> None:
    found = evaluate(made, str(flowers), split="val")
    assert "int8 arithmetic" in found.runtime
    stated = json.loads((made / "quantisation.json").read_text())
    assert found.metrics.top1.value == stated["gate"]["int8_top1"]["value"]
    for target in ("engine", "onnx"):
        artifact = export(made, to=target, out=tmp_path / target)
        assert artifact.precision == "int8"
        certificate = verify(tmp_path / target, str(flowers), split="val", max_drop=100)
        assert certificate.ok, certificate.problems
        assert certificate.precision == "int8"
        assert certificate.top1.value == found.metrics.top1.value


def test_the_exported_file_holds_the_very_numbers(
    made: Path, pictures: list[Path], tmp_path: Path
) -> None:
    images = images_of(made, pictures[:4])
    export(made, to="engine", out=tmp_path)
    exact = run_integer(load_quantised(made), images)[LOGITS][:, :, 0, 0]
    model = load(tmp_path)
    if model.session.runtime == "engine":
        np.testing.assert_array_equal(model(images), exact)


def test_without_the_native_engine_the_same_int8_network_takes_its_place(
    made: Path, flowers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(made, to="engine", out=tmp_path)

    def fail(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(engine_module, "import_module", fail)
    certificate = verify(tmp_path, str(flowers), split="val", max_drop=100)
    assert certificate.ok, certificate.problems
    assert (certificate.runtime.split()[0], certificate.precision) == ("onnxruntime", "int8")
    assert certificate.golden.logit_tolerance > 0


def test_what_is_timed_in_int8_is_the_run_itself(made: Path) -> None:
    subject = find_subject(str(made), size=None, width=None, batch=1)
    network = load_quantised(made)
    exact = run_integer(network, subject.inputs)[LOGITS][:, :, 0, 0]
    assert subject.files.keys() == {"engine int8", "onnx QDQ"}
    np.testing.assert_array_equal(run_file(subject.files["engine int8"], subject.inputs), exact)
    assert subject.files["onnx QDQ"] == to_qdq(network, size=subject.size, metadata={}).data


def test_float32_is_still_to_be_had(made: Path, tmp_path: Path) -> None:
    assert export(made, to="onnx", out=tmp_path, precision="float32").precision == "float32"


def test_an_int8_run_is_not_calibrated_again(made: Path, flowers: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="ranges of its own"):
        export(made, to="engine", out=tmp_path, precision="int8", calibrate=str(flowers))


def test_training_into_the_folder_leaves_no_int8_network(made: Path, tmp_path: Path) -> None:
    loaded = load_model(made)
    data = (made / str(read_model_json(made)["quantised"]["file"])).read_bytes()

    def save(quantised: bytes | None) -> None:
        save_model(
            tmp_path,
            loaded.spec,
            loaded.state,
            preprocess=loaded.preprocess,
            labels=loaded.labels,
            provenance={},
            quantised=quantised,
        )

    save(data)
    assert load_quantised(tmp_path).ranges == load_quantised(made).ranges
    save(None)
    assert load_model(tmp_path).quantised is None
    assert not list(tmp_path.glob("quantised.*"))
    with pytest.raises(CheckpointError, match="no int8 network there"):
        load_quantised(tmp_path)


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_damage_is_found(made: Path, tmp_path: Path, damage: str) -> None:
    for path in made.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    (file,) = tmp_path.glob("quantised.*")
    data = bytearray(file.read_bytes())
    if damage == "gone":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(data[: len(data) // 2])
    else:
        data[-5] ^= 16
        file.write_bytes(data)
    with pytest.raises(CheckpointError, match="quantised"):
        load_quantised(tmp_path)


# --------------------------------------------------------------------------------- the ladder


def gate_of(drop: float, n: int = 10_000) -> Gate:
    """A gate where so many percent of the pictures are lost."""
    lost = np.arange(n) < drop * n / 100
    return Gate(
        float_top1=wilson(n, n),
        int8_top1=wilson(int((~lost).sum()), n),
        drop=compare_answers(np.ones(n, bool), ~lost),
        agreement=wilson(int((~lost).sum()), n),
    )


@pytest.fixture(scope="module")
def shop(small_run: Path, pictures: list[Path]) -> Workshop:
    return Workshop(images=images_of(small_run, pictures[:24]), train_seconds=0.5, seed=0)


@pytest.mark.parametrize(("drops", "portable", "names"), [
    ([0.0], False, ["calibrate"]),
    ([5.0, 0.5], False, ["calibrate", "wide"]),
    ([5.0, 0.5], True, ["calibrate", "equalise"]),
    ([5.0, 4.0, 3.0, 0.5], False, ["calibrate", "wide", "equalise", "ranges"]),
    ([5.0, 4.0, 3.0, 2.0, 0.5], False, ["calibrate", "wide", "equalise", "ranges", "maps"]),
    ([5.0, 4.0, 3.0, 0.5], True, ["calibrate", "equalise", "ranges", "bias"]),
])  # fmt: skip
def test_the_ladder_stops_as_soon_as_the_gate_holds(
    small_run: Path,
    shop: Workshop,
    monkeypatch: pytest.MonkeyPatch,
    drops: list[float],
    portable: bool,
    names: list[str],
) -> None:
    monkeypatch.setattr(ladder, "snr_db", rising())
    left = iter(drops)
    program = program_of(load_model(small_run).module())
    draft, rungs = climb(
        program,
        shop,
        lambda _: gate_of(next(left)),
        steps=None,
        max_drop=1.0,
        portable=portable,
    )
    assert [rung.name for rung in rungs] == names
    assert draft.wide == ("wide" in names) + ("maps" in names)


def test_a_gate_that_may_hold_by_luck_is_followed_by_the_steps_that_take_little(
    small_run: Path, shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ladder, "snr_db", rising())
    program = program_of(load_model(small_run).module())
    few = gate_of(1.0, n=100)
    assert few.drop.points == 1.0 < few.drop.high
    _, rungs = climb(program, shop, lambda _: few, steps=None, max_drop=1.0)
    assert [rung.name for rung in rungs] == [
        "calibrate", "wide", "equalise", "ranges", "maps", "bias",
    ]  # fmt: skip


def test_steps_that_are_asked_for_are_done_in_that_order(small_run: Path, shop: Workshop) -> None:
    program = program_of(load_model(small_run).module())
    steps = ("maps", "equalise", "wide", "ranges")
    draft, rungs = climb(program, shop, lambda _: gate_of(0.0), steps=steps, max_drop=1.0)
    assert [rung.name for rung in rungs] == ["calibrate", *steps]
    assert draft.wide is Wide.EVERYWHERE


def rising():
    """A ratio that every step improves."""
    values = iter(range(100))
    return lambda *_: float(next(values))


def test_a_step_that_does_not_help_is_left_out(
    small_run: Path, shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([10.0, 9.85, 11.0])
    monkeypatch.setattr(ladder, "snr_db", lambda *_: next(values))
    measured: list[QuantisedProgram] = []

    def measure(network: QuantisedProgram) -> Gate:
        measured.append(network)
        return gate_of(3.0)

    program = program_of(load_model(small_run).module())
    draft, rungs = climb(program, shop, measure, steps=("equalise", "ranges"), max_drop=1.0)
    assert [(rung.name, rung.kept) for rung in rungs] == [
        ("calibrate", True), ("equalise", False), ("ranges", True),
    ]  # fmt: skip
    assert rungs[1].gate is None
    assert len(measured) == 2
    # the weights are not the equalised ones
    for step, given in zip(draft.program.steps, program.steps, strict=True):
        for name, filter in step.filters.items():
            np.testing.assert_array_equal(filter.weight, given.filters[name].weight)


def test_a_step_within_the_noise_is_kept_unless_it_costs_time(
    small_run: Path, shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([10.0, 9.95, 9.9])
    monkeypatch.setattr(ladder, "snr_db", lambda *_: next(values))
    program = program_of(load_model(small_run).module())
    steps = ("wide", "maps")
    draft, rungs = climb(program, shop, lambda _: gate_of(3.0), steps=steps, max_drop=1.0)
    assert [rung.kept for rung in rungs] == [True, True, False]
    assert draft.wide is Wide.INSIDE


def test_the_steps_of_the_options_are_those_of_the_ladder() -> None:
    assert tuple(REPAIRS) == verb.STEPS


@pytest.mark.slow
def test_every_step_runs_and_the_gate_fails_where_nothing_helps(
    small_run: Path,
    holidays: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A classifier with one huge weight in every row, the same for all classes, has no steps left
    for what tells them apart."""
    monkeypatch.setattr(ladder, "Reconstruction", partial(Reconstruction, iterations=10))
    loaded = load_model(small_run)
    run = tmp_path / "hopeless"
    state = {name: tensor.clone() for name, tensor in loaded.state.items()}
    head = state["head.classifier.weight"]
    head[:, 0] += 1e5 * head.abs().max()
    save_model(
        run,
        loaded.spec,
        state,
        preprocess=loaded.preprocess,
        labels=loaded.labels,
        provenance={"seed": 0},
    )
    with pytest.raises(SystemExit) as left:
        cli.main([
            "quantize", str(run), str(holidays), "--out", str(tmp_path / "out"),
            "--max-drop", "0", "--train-minutes", "0.02", "--json",
        ])  # fmt: skip
    found = json.loads(capsys.readouterr().out)
    assert [rung["name"] for rung in found["rungs"]] == ["calibrate", *verb.STEPS]
    assert found["gate"]["drop"]["points"] > 0
    assert found["ok"] is False
    assert left.value.code == 1


def test_the_page_and_the_json_tell_what_was_done(made: Path) -> None:
    page = (made / "quantisation.html").read_text()
    stated = json.loads((made / "quantisation.json").read_text())
    for rung in stated["rungs"]:
        assert rung["name"] in page
    assert page.count("<svg") == 3
    assert "http://" not in page.replace("http://www.w3.org", "")
    network = load_quantised(made)
    assert len(stated["layers"]) == len(network.ranges)
    filters = sum(len(step) for step in network.filters)
    assert len(stated["harms"]) == len(network.ranges) + filters
    if find_spec("mobilenet._engine") is not None:
        assert 0 < stated["latency"]["int8_ms"] < 1000
        assert stated["latency"]["threads"] == 1
    assert stated["float_bytes"] > 3 * stated["int8_bytes"]


# ------------------------------------------------------------------------- what users do wrong


@pytest.mark.parametrize(("options", "said"), [
    ({"steps": "equalize"}, "steps equalize: expected of wide, equalise"),
    ({"steps": "wide,bias,equalise"}, "equalise rounds anew, and would undo bias"),
    ({"max_drop": -1.0}, "max_drop -1"),
    ({"max_drop": float("nan")}, "max_drop nan"),
    ({"pictures": 0}, "pictures 0"),
    ({"train_minutes": 0.0}, "train_minutes 0"),
    ({"threads": 0}, "threads 0"),
    ({"portable": True, "steps": "wide"}, "--portable leaves out wide, which --steps asks for"),
])  # fmt: skip
def test_wrong_options_are_refused(
    small_run: Path, flowers: Path, tmp_path: Path, options: dict[str, object], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        quantize(small_run, str(flowers), out=tmp_path / "out", **options)  # pyright: ignore


def test_nothing_is_overwritten(small_run: Path, flowers: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the run itself"):
        quantize(small_run, str(flowers), out=small_run)
    other = tmp_path / "other"
    other.mkdir()
    for name in ("model.json", "model.safetensors"):
        (other / name).write_bytes((small_run / name).read_bytes())
    with pytest.raises(UsageError, match="holds another model"):
        quantize(small_run, str(flowers), out=other)


def test_neither_a_run_nor_a_name(flowers: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither a folder that train wrote"):
        quantize(tmp_path / "nowhere", str(flowers), out=tmp_path / "out")


def test_an_exported_folder_is_refused(small_export: Path, flowers: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="an exported model"):
        quantize(small_export, str(flowers), out=tmp_path / "out")


def test_a_bad_picture_is_named_or_left_out(
    small_run: Path, flowers: Path, pictures: list[Path], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    for name in ("daisy", "rose"):
        (data / name).mkdir(parents=True)
        for path in (flowers / name).iterdir():
            (data / name / path.name).write_bytes(path.read_bytes())
    (data / "rose" / "bad.png").write_bytes(b"no picture")
    out = tmp_path / "out"
    with pytest.raises(DataError, match=r"bad\.png.*--skip-bad"):
        quantize(small_run, str(data), out=out, steps="none")
    assert not out.exists()
    found = quantize(small_run, str(data), out=out, steps="none", skip_bad=True, max_drop=100)
    assert found.ok


def test_too_few_pictures_are_refused_and_few_are_said(
    small_run: Path, pictures: list[Path], flowers: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    (data / "rose").mkdir(parents=True)
    for index, path in enumerate(pictures[:6]):
        (data / "rose" / f"{index}.png").write_bytes(path.read_bytes())
    with pytest.raises(DataError, match="pictures to calibrate with, at least 8 are needed"):
        quantize(small_run, str(data), out=tmp_path / "out", steps="none")
    found = quantize(
        small_run, str(flowers), out=tmp_path / "out", steps="none", max_drop=100, pictures=16
    )
    assert found.calibrated_on == 16
    assert any("only 16 pictures" in note for note in found.notes)


def test_one_class_is_said(small_run: Path, pictures: list[Path], tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "rose").mkdir(parents=True)
    for index, path in enumerate(pictures):
        (data / "rose" / f"{index}.png").write_bytes(path.read_bytes())
    found = quantize(small_run, str(data), out=tmp_path / "out", steps="none", max_drop=100)
    assert any("of one class" in note for note in found.notes)


def test_without_labels_the_float_answers_stand_in(
    small_run: Path, holidays: Path, tmp_path: Path
) -> None:
    found = quantize(small_run, str(holidays), out=tmp_path / "out", steps="none", max_drop=100)
    assert not found.labelled
    assert found.gate.float_top1.value == 1.0
    assert found.gate.drop.points == pytest.approx(100 * (1 - found.gate.agreement.value))


def test_the_same_seed_gives_the_same_network(
    small_run: Path, flowers: Path, tmp_path: Path
) -> None:
    networks = []
    for name in ("one", "two"):
        quantize(small_run, str(flowers), out=tmp_path / name, steps="ranges,bias", max_drop=100)
        networks.append(read_model_json(tmp_path / name)["quantised"]["sha256"])
    assert networks[0] == networks[1]
