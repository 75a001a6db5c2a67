"""The numbers, against hand-worked cases, SciPy and plain loops."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from mobilenet import DataError, MobilenetError, Preprocess, UsageError, preprocess
from mobilenet.data import ArraySplit, Dataset, open_dataset
from mobilenet.evaluate import answer, collect_logits, evaluate, match_classes, measure, open_split
from mobilenet.evaluate.metrics import (
    Outcomes,
    f1_score,
    log_softmax,
    outcomes_of,
    reject_curve,
    summarise,
    wilson,
)
from mobilenet.evaluate.model import OpenModel, open_model


def random_outcomes(seed: int, n: int, classes: int) -> tuple[np.ndarray, np.ndarray, Outcomes]:
    """Logits of a mediocre classifier, rounded so that equal ones occur."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    logits = rng.normal(size=(n, classes)) + 1.5 * np.eye(classes)[labels]
    logits = logits.round(1).astype(np.float32)
    return logits, labels, outcomes_of(logits, labels, np.arange(n))


@pytest.mark.parametrize(
    ("hits", "n"), [(0, 1), (1, 1), (0, 20), (3, 20), (20, 20), (81, 263), (9390, 10000)]
)
def test_wilson_agrees_with_scipy(hits: int, n: int) -> None:
    ours = wilson(hits, n)
    theirs = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert ours.value == hits / n
    assert ours.n == n
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert 0.0 <= ours.low <= ours.value <= ours.high <= 1.0


def test_wilson_agrees_with_the_published_example() -> None:
    # Newcombe 1998, Statistics in Medicine 17:857, table I: 81/263, 15/148, 0/20, 1/29
    published = {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0.0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }
    for (hits, n), (low, high) in published.items():
        ours = wilson(hits, n)
        assert (round(ours.low, 4), round(ours.high, 4)) == (low, high)


def test_a_rate_of_nothing_is_undefined_and_its_interval_is_everything() -> None:
    nothing = wilson(0, 0)
    assert math.isnan(nothing.value)
    assert (nothing.low, nothing.high, nothing.n) == (0.0, 1.0, 0)


def test_f1_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    # hits, misses, false alarms and the rest among 400 images
    rates = np.array([0.12, 0.03, 0.05, 0.80])
    truth = 2 * rates[0] / (2 * rates[0] + rates[1] + rates[2])
    draws = rng.multinomial(400, rates, size=2000)
    held = [(e := f1_score(*map(int, draw[:3]))).low <= truth <= e.high for draw in draws]
    assert 0.93 <= np.mean(held) <= 0.97
    hits, missed, false_alarms = map(int, draws[0][:3])
    assert f1_score(hits, missed, false_alarms).value == pytest.approx(
        2 * hits / (2 * hits + missed + false_alarms)
    )


def test_log_softmax_survives_large_logits() -> None:
    logits = np.array([[1e4, 0.0, -1e4], [2.0, 1.0, 0.0]], np.float32)
    found = log_softmax(logits)
    z = math.e**2 + math.e + 1
    expected = [[0.0, -1e4, -2e4], [math.log(math.e**k / z) for k in (2, 1, 0)]]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_a_case_worked_by_hand() -> None:
    # class a: 3 images, b: 2, c: 1; the answers are a a b | b a | a
    probabilities = np.array(
        [
            [0.7, 0.2, 0.1],
            [0.5, 0.3, 0.2],
            [0.3, 0.6, 0.1],
            [0.1, 0.8, 0.1],
            [0.9, 0.05, 0.05],
            [0.4, 0.3, 0.3],
        ]
    )
    labels = np.array([0, 0, 0, 1, 1, 2])
    found = summarise(outcomes_of(np.log(probabilities), labels, np.arange(6)), ["a", "b", "c"])
    assert found.top1.value == 3 / 6
    assert found.top5.value == 1.0  # there are only three classes
    assert found.loss == pytest.approx(-np.log([0.7, 0.5, 0.3, 0.8, 0.05, 0.3]).mean())
    assert found.confusion_matrix().tolist() == [[2, 1, 0], [1, 1, 0], [1, 0, 0]]
    a, b, c = found.per_class
    assert (a.support, a.predicted, a.precision.value, a.recall.value) == (3, 4, 2 / 4, 2 / 3)
    assert (b.support, b.predicted, b.precision.value, b.recall.value) == (2, 2, 1 / 2, 1 / 2)
    assert (c.support, c.predicted, c.recall.value) == (1, 0, 0.0)
    assert math.isnan(c.precision.value)
    assert [x.f1.value for x in (a, b, c)] == pytest.approx([4 / 7, 1 / 2, 0.0])
    assert found.macro_recall == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert found.macro_precision == pytest.approx((1 / 2 + 1 / 2 + 0) / 3)
    assert found.macro_f1 == pytest.approx((4 / 7 + 1 / 2 + 0) / 3)
    # every image falls into a bin of its own here
    right = np.array([1, 1, 0, 1, 0, 0])
    confidence = probabilities.max(axis=1)
    assert found.ece == pytest.approx(np.abs(right - confidence).mean())
    as_json = found.to_json()
    assert as_json["confusion"] == {"a": {"a": 2, "b": 1}, "b": {"a": 1, "b": 1}, "c": {"a": 1}}
    assert as_json["per_class"]["c"]["precision"] is None
    assert as_json["per_class"]["a"]["support"] == 3


def test_metrics_agree_with_plain_loops() -> None:
    n, classes = 500, 8
    logits, labels, outcomes = random_outcomes(1, n, classes)
    names = [str(k) for k in range(classes)]
    found = summarise(outcomes, names)
    ranked = [sorted(range(classes), key=lambda c, row=row: (-row[c], c)) for row in logits]
    assert found.top1.value == np.mean([r[0] == y for r, y in zip(ranked, labels, strict=True)])
    assert found.top5.value == np.mean([y in r[:5] for r, y in zip(ranked, labels, strict=True)])
    matrix = np.zeros((classes, classes), int)
    for order, label in zip(ranked, labels, strict=True):
        matrix[label, order[0]] += 1
    assert found.confusion_matrix().tolist() == matrix.tolist()
    counts = [pair.count for pair in found.confusions]
    assert counts == sorted(counts, reverse=True)
    for k, row in enumerate(found.per_class):
        assert row.recall.value == matrix[k, k] / matrix[k].sum()
        assert row.precision.value == matrix[k, k] / matrix[:, k].sum()
    probability = np.exp(logits.astype(float))
    probability /= probability.sum(axis=1, keepdims=True)
    assert found.loss == pytest.approx(-np.log(probability[np.arange(n), labels]).mean())
    ece = 0.0
    for k in range(15):
        inside = [i for i in range(n) if k / 15 < probability[i].max() <= (k + 1) / 15]
        if inside:
            right = np.mean([ranked[i][0] == labels[i] for i in inside])
            sure = np.mean([probability[i].max() for i in inside])
            ece += len(inside) / n * abs(right - sure)
    assert found.ece == pytest.approx(ece)
    assert sum(b.accuracy.n for b in found.bins) == n


def test_batches_joined_give_what_one_batch_gives() -> None:
    logits, labels, whole = random_outcomes(2, 97, 5)
    parts = [
        outcomes_of(logits[s : s + 10], labels[s : s + 10], np.arange(97)[s : s + 10])
        for s in range(0, 97, 10)
    ]
    assert summarise(Outcomes.join(parts), list("abcde")) == summarise(whole, list("abcde"))


def test_all_logits_equal_is_not_taken_for_right() -> None:
    labels = np.arange(10)
    found = summarise(outcomes_of(np.zeros((10, 10)), labels, labels), [str(k) for k in range(10)])
    assert found.top1.value == 1 / 10
    assert found.top5.value == 5 / 10


def test_logits_that_are_no_numbers_are_refused() -> None:
    logits = np.zeros((3, 2))
    logits[1, 0] = np.nan
    with pytest.raises(ValueError, match="image 41"):
        outcomes_of(logits, np.array([0, 1, 1]), np.array([40, 41, 42]))


def test_reject_curve_agrees_with_plain_thresholds() -> None:
    _, _, outcomes = random_outcomes(3, 300, 6)
    curve = reject_curve(outcomes)
    assert curve.coverage[-1] == 1.0
    assert curve.accuracy[-1] == outcomes.correct.mean()
    assert (np.diff(curve.threshold) < 0).all()
    for threshold, coverage, accuracy in zip(
        curve.threshold, curve.coverage, curve.accuracy, strict=True
    ):
        kept = outcomes.confidence >= threshold
        assert coverage == kept.mean()
        assert accuracy == outcomes.correct[kept].mean()


# ------------------------------------------------------------------------------ models and data


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory, pictures: list[Path]) -> Path:
    """Forty pictures in seven class folders under test/, two a class under val/."""
    labels = ("daisy", "rose", "tulip", "poppy", "lily", "iris", "aster")
    root = tmp_path_factory.mktemp("folders")
    for index, path in enumerate(pictures):
        split = "val" if index < 14 else "test"
        folder = root / split / labels[index % 7]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / path.name).write_bytes(path.read_bytes())
    return root


def lookup(classes: tuple[str, ...]) -> OpenModel:
    """A model whose logits say how bright the red channel of a picture is, class by class."""

    def forward(images: np.ndarray) -> np.ndarray:
        level = np.rint(images[:, 0].mean((1, 2)) * 255 / 20).astype(int)
        return (10.0 * np.eye(len(classes))[level]).astype(np.float32)

    return OpenModel(
        name="lookup",
        forward=forward,
        preprocess=Preprocess(size=8, resize_mode="stretch", mean=(0,) * 3, std=(1,) * 3),
        labels=classes,
        runtime="none",
        provenance={},
    )


def bright(classes: tuple[str, ...], truth: list[int], shown: list[int]) -> Dataset:
    """Pictures whose brightness is class `shown` of three, labelled `truth`."""
    images = np.stack([np.full((8, 8, 3), 20 * level, np.uint8) for level in shown])
    split = ArraySplit("levels", images, np.array(truth))
    return Dataset(kind="array", source="levels", classes=classes, splits={"test": split})


def test_a_run_is_measured_as_a_plain_loop_does(small_run: Path, folders: Path) -> None:
    import torch

    from mobilenet.checkpoint import load_model

    found = evaluate(small_run, str(folders), device="cpu", batch_size=7)
    loaded = load_model(small_run)
    network = loaded.module()
    contract = Preprocess.from_dict(loaded.preprocess)
    right, losses, pairs = 0, [], {}
    for path in sorted((folders / "test").rglob("*.png")):
        with torch.no_grad():
            x = torch.from_numpy(preprocess(path, contract))[None]
            log_probability = network(x).log_softmax(1)[0]
        said, true = loaded.labels[int(log_probability.argmax())], path.parent.name
        right += said == true
        losses.append(-float(log_probability[loaded.labels.index(true)]))
        pairs.setdefault(true, {}).setdefault(said, 0)
        pairs[true][said] += 1
    as_json = found.to_json()
    assert as_json["conditions"]["split"] == "test"
    assert as_json["n"] == 26
    assert as_json["top1"] == right / 26
    assert as_json["loss"] == pytest.approx(np.mean(losses), abs=1e-4)
    assert as_json["confusion"] == pairs
    assert f"{100 * right / 26:.2f} %" in str(found)


def test_an_export_is_measured_alike_without_torch(
    small_run: Path, small_export: Path, folders: Path
) -> None:
    code = """
import sys
from pathlib import Path
from mobilenet.evaluate import evaluate
found = evaluate(Path(sys.argv[1]), sys.argv[2], threads=1)
assert "torch" not in sys.modules
print(repr(found.metrics.loss), found.metrics.top1.value)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(small_export), str(folders)],
        capture_output=True,
        text=True,
        check=True,
    )
    loss, top1 = map(float, done.stdout.split())
    run = evaluate(small_run, str(folders), device="cpu")
    assert loss == pytest.approx(run.metrics.loss, abs=1e-4)
    assert top1 == run.metrics.top1.value


def test_logits_come_in_the_order_of_the_split(small_run: Path, folders: Path) -> None:
    model = open_model(small_run, threads=None, device="cpu")
    split = open_dataset(folders).splits["val"]
    logits, labels, indices = collect_logits(
        model.forward, split, model.preprocess, batch_size=5, workers=2
    )
    assert indices.tolist() == list(range(14))
    assert labels.tolist() == split.labels.tolist()
    for index in range(14):
        alone = model.forward(preprocess(split.read(index), model.preprocess)[None])[0]
        np.testing.assert_allclose(logits[index], alone, atol=1e-4)


@pytest.mark.parametrize("order", [("a", "b", "c"), ("c", "a", "b")])
def test_classes_are_matched_by_name(
    order: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    # truth in the data's order, shown (and answered) in the model's: a, b, c
    dataset = bright(order, [order.index(x) for x in "abca"], shown=[0, 1, 2, 1])
    found = measure(lookup(("a", "b", "c")), dataset, "test", batch_size=3, workers=0)
    assert found.metrics.top1.value == 3 / 4
    assert found.metrics.confusion_matrix().tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
    assert ("another order" in capsys.readouterr().err) == (order != ("a", "b", "c"))


def test_data_with_some_of_the_classes(capsys: pytest.CaptureFixture[str]) -> None:
    dataset = bright(("a", "c"), truth=[0, 1, 1], shown=[0, 2, 1])
    found = measure(lookup(("a", "b", "c")), dataset, "test", batch_size=3, workers=0)
    assert "2 of the model's 3 classes" in capsys.readouterr().err
    assert found.metrics.top1.value == 2 / 3
    # b has no images: it is no part of the averages
    assert found.metrics.macro_recall == pytest.approx((1 + 1 / 2) / 2)
    assert found.to_json()["per_class"]["b"] == {
        "support": 0,
        "predicted": 1,
        "precision": 0.0,
        "precision_interval": pytest.approx([0.0, 0.7935], abs=1e-4),
        "recall": None,
        "recall_interval": None,
        "f1": 0.0,
        "f1_interval": pytest.approx([0.0, 0.8849], abs=1e-4),
    }


def test_unknown_classes_are_refused_with_the_difference() -> None:
    dataset = bright(("a", "x", "y"), truth=[0], shown=[0])
    with pytest.raises(DataError) as caught:
        match_classes(dataset, lookup(("a", "b", "c")))
    assert "2 of its 3 classes are unknown to lookup: 'x', 'y'" in str(caught.value)
    assert "lacks: 'b', 'c'" in str(caught.value)


def test_the_split_is_chosen_or_refused(folders: Path, small_run: Path) -> None:
    model = open_model(small_run, threads=None, device="cpu")
    assert open_split(model, str(folders), None, limit=None)[1] == "test"
    dataset, name = open_split(model, str(folders), "val", limit=7)
    assert (name, len(dataset.splits["val"])) == ("val", 7)
    assert dataset.splits["val"].counts(dataset.classes) == dict.fromkeys(dataset.classes, 1)
    assert open_split(model, str(folders / "test"), None, limit=None)[1] == "val"
    dataset, name = open_split(model, str(folders / "test"), "all", limit=None)
    assert len(dataset.splits[name]) == 26
    for split, reason in (("train", "has only"), ("all", "splits of its own")):
        with pytest.raises(UsageError, match=reason):
            open_split(model, str(folders), split, limit=None)  # pyright: ignore


def test_val_is_held_out_as_in_training(folders: Path) -> None:
    data = str(folders / "test")
    trained = {"options": {"seed": 7}, "data": {"val_fraction": 0.5}}
    model = replace(lookup(("a",)), provenance=trained)
    split = open_split(model, data, "val", limit=None)[0].splits["val"]
    expected = open_dataset(data, seed=7, val_fraction=0.5).splits["val"]
    other = open_dataset(data).splits["val"]
    names = [split.name(index) for index in range(len(split))]
    assert names == [expected.name(index) for index in range(len(expected))]
    assert names != [other.name(index) for index in range(len(other))]


def test_images_that_cannot_be_read(small_run: Path, folders: Path, tmp_path: Path) -> None:
    for label in ("rose", "tulip"):
        (tmp_path / "test" / label).mkdir(parents=True)
        source = next((folders / "test" / label).glob("*.png"))
        (tmp_path / "test" / label / source.name).write_bytes(source.read_bytes())
    (tmp_path / "test" / "rose" / "torn.png").write_bytes(source.read_bytes()[:300])
    with pytest.raises(DataError, match=r"torn\.png.*--skip-bad"):
        evaluate(small_run, str(tmp_path), device="cpu")
    assert evaluate(small_run, str(tmp_path), device="cpu", skip_bad=True).metrics.n == 2


def test_answers_that_are_no_numbers_are_refused() -> None:
    broken = replace(lookup(("a", "b")), forward=lambda x: np.full((len(x), 2), np.nan, np.float32))
    dataset = bright(("a", "b"), truth=[0, 1], shown=[0, 1])
    with pytest.raises(MobilenetError, match=r"levels\[0\] is not a number"):
        measure(broken, dataset, "test", batch_size=2, workers=0)


def test_reading_stops_with_its_reader(folders: Path, small_run: Path) -> None:
    import threading

    model = open_model(small_run, threads=None, device="cpu")
    split = open_dataset(folders).splits["test"]
    reading = answer(model.forward, split, model.preprocess, batch_size=2, workers=2)
    next(reading)
    reading.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert not [t for t in threading.enumerate() if t.name.startswith("mobilenet-read")]


@pytest.mark.parametrize(
    ("model", "message"),
    [("no/such/run", "neither a folder"), ("efficientnet", "neither a folder")],
)
def test_what_is_no_model_is_refused(model: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_model(model, threads=None, device="cpu")
    with pytest.raises(UsageError, match="threads 0"):
        open_model(model, threads=0, device="cpu")
