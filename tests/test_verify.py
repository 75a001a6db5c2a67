"""Certificates: the statistics against published examples and SciPy, the gate both ways."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from scipy.stats import binomtest

from mobilenet.checkpoint import read_model_json, write_model_json
from mobilenet.errors import CheckpointError, UsageError
from mobilenet.evaluate.metrics import wilson
from mobilenet.evaluate.paired import mcnemar, paired_drop
from mobilenet.export import Golden, read_golden
from mobilenet.runtime import load, read_artifact
from mobilenet.verify import verify


@pytest.mark.parametrize(
    ("table", "interval"),
    [
        # Newcombe 1998, Statistics in Medicine 17:2635-2650, method 10
        ((36, 12, 2, 0), (0.0569, 0.3404)),
        # Altman, Machin, Bryant and Gardner 2000, Statistics with Confidence, page 53
        ((14, 5, 0, 22), (0.011, 0.226)),
        # Fagerland, Lydersen and Laake 2014, Statistics in Medicine 33:2850-2875
        ((1, 1, 7, 12), (-0.507, -0.026)),
        ((59, 6, 16, 80), (-0.119, -0.005)),
    ],
)
def test_the_interval_of_a_drop_is_the_published_one(
    table: tuple[int, int, int, int], interval: tuple[float, float]
) -> None:
    both, only_float, only_exported, neither = table
    found = paired_drop(
        both=both, only_float=only_float, only_exported=only_exported, neither=neither
    )
    assert found.points == pytest.approx(100 * (only_float - only_exported) / sum(table))
    assert (found.low / 100, found.high / 100) == pytest.approx(interval, abs=6e-4)


def test_the_interval_of_a_drop_is_sound_at_the_ends() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        a, b, c, d = rng.multinomial(30, rng.dirichlet([0.3] * 4)).tolist()
        one = paired_drop(both=a, only_float=b, only_exported=c, neither=d)
        other = paired_drop(both=a, only_float=c, only_exported=b, neither=d)
        assert -100 <= one.low <= one.points <= one.high <= 100
        assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-9)
    same = paired_drop(both=30, only_float=0, only_exported=0, neither=0)
    assert same.high == pytest.approx(100 * (1 - wilson(30, 30).low))


@pytest.mark.parametrize(
    ("one", "other"), [(0, 0), (1, 0), (5, 5), (3, 9), (40, 17), (1200, 1100), (0, 2000)]
)
def test_mcnemar_agrees_with_scipy(one: int, other: int) -> None:
    expected = binomtest(one, one + other).pvalue if one + other else 1.0
    assert mcnemar(one, other) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(other, one) == mcnemar(one, other)


@pytest.fixture(scope="module")
def dataset(
    small_export: Path, pictures: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Pictures under the class that the network gives them, but the last ten under the second."""
    folder = tmp_path_factory.mktemp("dataset")
    answers = load(small_export).predict(pictures, top=2)
    for index, (picture, predictions) in enumerate(zip(pictures, answers, strict=True)):
        for split in ("train", "test"):
            label = predictions[index >= 30].label
            target = folder / split / label / picture.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(picture, target)
    return folder


@pytest.fixture
def family(small_run: Path, small_export: Path, tmp_path: Path) -> Path:
    """A folder with copies of the run and its export that a test may change."""
    shutil.copytree(small_run, tmp_path / "run")
    shutil.copytree(small_export, tmp_path / "exported")
    return tmp_path


def damage(folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change the classifier's biases in the exported file, and its hash with it."""
    model = onnx.load_from_string((folder / "model.onnx").read_bytes())
    bias = next(i for i in model.graph.initializer if i.name == "head.classifier.bias")
    values = change(onnx.numpy_helper.to_array(bias)).astype(np.float32)
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    data = model.SerializeToString()
    (folder / "model.onnx").write_bytes(data)
    description = read_model_json(folder)
    description["artifact"]["sha256"] = hashlib.sha256(data).hexdigest()
    write_model_json(folder, description)


def renew_golden(folder: Path) -> None:
    """Golden logits from the file as it is now, as if the float network had answered so."""
    file = read_artifact(folder)
    old = read_golden(file)
    logits = load(folder)(old.inputs)
    data = Golden(images=old.images, inputs=old.inputs, logits=logits).to_bytes()
    (folder / "golden.npz").write_bytes(data)
    description = read_model_json(folder)
    description["artifact"]["golden"]["sha256"] = hashlib.sha256(data).hexdigest()
    write_model_json(folder, description)


@pytest.mark.parametrize("runtime", [None, "openvino"])
def test_a_faithful_export_is_certified(family: Path, dataset: Path, runtime: str | None) -> None:
    found = verify(family / "exported", str(dataset), max_drop=0.0, runtime=runtime, threads=1)
    assert found.ok
    assert found.problems == ()
    assert (found.n, found.split) == (40, "test")
    assert found.top1 == wilson(30, 40)
    assert found.comparison is not None
    assert found.comparison.top1 == wilson(30, 40)
    assert found.comparison.agreement == wilson(40, 40)
    assert (found.comparison.drop.points, found.comparison.drop.p_value) == (0.0, 1.0)
    assert 0 < found.comparison.mean_logit_error < found.comparison.max_logit_error < 1e-4
    assert found.golden.ok
    assert found.golden.max_input_error == 0
    assert found.precision == "float32"
    assert found.runtime.startswith(runtime or "onnxruntime")
    assert found.artifact_sha256 == read_artifact(family / "exported").sha256

    written = json.loads((family / "exported" / "certificate.json").read_text())
    assert written == found.to_json()
    assert written["top1"]["value"] == 0.75
    assert written["machine"]["cpu"] == found.machine.cpu
    assert written["versions"]["numpy"] == np.__version__
    assert "gate      holds" in str(found)
    assert "75.00 %" in str(found)


def test_a_folder_of_exported_folders_gets_one_matrix(family: Path, dataset: Path) -> None:
    for name in ("good", "damaged", "lost"):
        shutil.copytree(family / "exported", family / "all" / name)
    damage(family / "all" / "damaged", lambda bias: bias + 0.01 * np.arange(len(bias)))
    (family / "all" / "lost" / "model.onnx").unlink()
    (family / "all" / "notes.txt").write_text("")
    run = next(path for path in family.iterdir() if (path / "model.safetensors").exists())
    shutil.copytree(run, family / "all" / "run")  # is measured with each, not for itself
    found = verify(family / "all", str(dataset), run=run, threads=1, max_drop=100.0)
    assert not found.ok
    assert [one.folder.name for one in found.certificates] == ["damaged", "good"]
    assert [one.ok for one in found.certificates] == [False, True]
    alone = verify(family / "all" / "good", str(dataset), run=run, threads=1)
    assert found.certificates[1].comparison == alone.comparison
    assert found.certificates[1].top1 == alone.top1
    assert "cannot be read" in found.failed[str(family / "all" / "lost")]
    page = (family / "all" / "certificates.html").read_text()
    assert "1 of 3 folders hold their gate" in page
    assert "75.0 %" in page
    assert json.loads((family / "all" / "damaged" / "certificate.json").read_text())["ok"] is False
    assert "damaged  FAILS" in str(found)

    shutil.rmtree(family / "all" / "damaged")
    shutil.rmtree(family / "all" / "lost")
    assert verify(family / "all", str(dataset), run=run, threads=1).ok
    with pytest.raises(UsageError, match="for one exported folder"):
        verify(family / "all", str(dataset), run=run, runtime="onnxruntime")


def test_the_certificate_names_the_very_pictures(family: Path, dataset: Path) -> None:
    data = Path(shutil.copytree(dataset, family / "data"))
    first = verify(family / "exported", str(dataset), threads=1)
    assert verify(family / "exported", str(data), threads=1).data_sha256 == first.data_sha256
    part = verify(family / "exported", str(data), threads=1, limit=12)
    assert part.n == 12
    assert part.data_sha256 != first.data_sha256
    picture = next((data / "test").rglob("*.png"))
    picture.write_bytes(picture.read_bytes() + b"\0")
    assert verify(family / "exported", str(data), threads=1).data_sha256 != first.data_sha256


def test_a_damaged_file_fails_at_the_golden_images(family: Path, dataset: Path) -> None:
    damage(family / "exported", lambda bias: bias + 0.01 * np.arange(len(bias)))
    found = verify(family / "exported", str(dataset), threads=1, max_drop=100.0)
    assert not found.ok
    assert not found.golden.ok
    assert found.golden.max_logit_error == pytest.approx(0.06, abs=1e-3)
    assert "golden images are not the float network's" in found.problems[0]
    assert not json.loads((family / "exported" / "certificate.json").read_text())["ok"]
    assert "FAILS" in str(found)


def test_a_file_that_answers_nothing_fails(family: Path, dataset: Path) -> None:
    damage(family / "exported", lambda bias: np.full_like(bias, np.nan))
    found = verify(family / "exported", str(dataset), threads=1, max_drop=100.0)
    assert not found.ok
    assert found.to_json()["golden"]["max_logit_error"] is None


def test_the_gate_on_the_drop_holds_and_fails_where_it_is_set(family: Path, dataset: Path) -> None:
    # the file always answers one class, and its golden logits agree with that
    damage(family / "exported", lambda bias: bias - 100 * (np.arange(len(bias)) != 3))
    renew_golden(family / "exported")
    found = verify(family / "exported", str(dataset), threads=1)
    assert found.comparison is not None
    drop = found.comparison.drop
    assert found.golden.ok
    assert found.comparison.top1 == wilson(30, 40)
    assert drop.points == pytest.approx(100 * (0.75 - found.top1.value))
    assert drop.points > 20
    assert drop.low <= drop.points <= drop.high
    assert drop.p_value < 0.01
    assert found.comparison.agreement.value < 0.6
    assert not found.ok
    assert found.problems == (f"the file loses {drop.points:.2f} points, more than 1",)
    assert verify(family / "exported", str(dataset), threads=1, max_drop=drop.points).ok
    assert not verify(family / "exported", str(dataset), threads=1, max_drop=drop.points - 0.01).ok


def test_other_preprocessing_fails(family: Path, dataset: Path) -> None:
    description = read_model_json(family / "exported")
    description["preprocess"]["interpolation"] = "bicubic"
    write_model_json(family / "exported", description)
    found = verify(family / "exported", str(dataset), threads=1, max_drop=100.0)
    assert not found.ok
    assert found.golden.max_input_error > found.golden.input_tolerance
    assert "preprocessing differs" in found.problems[0]


def test_without_the_float_run_the_gate_cannot_hold(family: Path, dataset: Path) -> None:
    (family / "run").rename(family / "elsewhere")
    found = verify(family / "exported", str(dataset), threads=1)
    assert found.comparison is None
    assert found.golden.ok
    assert found.top1 == wilson(30, 40)
    assert not found.ok
    assert "no drop is known" in found.problems[0]
    assert found.to_json()["comparison"] is None
    assert verify(family / "exported", str(dataset), threads=1, run=family / "elsewhere").ok


def test_where_torch_is_missing_the_file_alone_is_measured(family: Path, dataset: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from mobilenet.verify import verify\n"
        "found = verify(sys.argv[1], sys.argv[2])\n"
        "assert found.golden.ok and not found.ok and found.comparison is None\n"
        "print(found.top1.value)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, family / "exported", dataset],
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(done.stdout) == 0.75
    assert "torch is not installed" in done.stderr


def test_wrong_usage_is_refused(family: Path, dataset: Path) -> None:
    description = read_model_json(family / "run")
    description["weights"]["sha256"] = "0" * 64
    write_model_json(family / "run", description)
    with pytest.raises(CheckpointError, match="not those that were exported"):
        verify(family / "exported", str(dataset), threads=1, run=family / "run")
    for max_drop in (-1.0, float("nan")):
        with pytest.raises(UsageError, match="max_drop"):
            verify(family / "exported", str(dataset), threads=1, max_drop=max_drop)
    with pytest.raises(CheckpointError, match="a run, not an exported model"):
        verify(family / "run", str(dataset))
