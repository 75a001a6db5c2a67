"""Networks for scenes through the verbs: trained, interrupted, measured, asked."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from PIL import Image, ImageDraw

import mobilenet
from mobilenet import CheckpointError, DataError, Overrides, UsageError
from mobilenet.checkpoint import read_model_json
from mobilenet.evaluate.scene_model import SceneModel, open_scene_model
from mobilenet.evaluate.scenes import SceneEvaluation, answer_scenes
from mobilenet.recipes import SCENE_RECIPES
from mobilenet.scenes import open_scenes
from mobilenet.tasks import examples_of

SIDE = 96
COLOURS = {"square": (220, 40, 40), "disc": (40, 80, 230)}
POINTS = ("head", "left_hand", "right_hand")
INKS = ((250, 240, 40), (40, 230, 60), (230, 60, 220))


def noise(rng: np.random.Generator) -> Image.Image:
    return Image.fromarray(rng.integers(60, 140, (SIDE, SIDE, 3), np.uint8))


def write_coco(folder: Path, name: str, category: list[dict[str, Any]], draw: Any) -> Path:
    """24 pictures to train on and 8 to validate with, each as `draw` makes it."""
    rng = np.random.default_rng(5)
    for split, count in (("train", 24), ("val", 8)):
        (folder / "images" / split).mkdir(parents=True)
        images, annotations = [], []
        for index in range(count):
            picture, objects = draw(rng, index)
            file = f"{split}-{index:02}.png"
            picture.save(folder / "images" / split / file)
            images.append({"id": index + 1, "file_name": file, "width": SIDE, "height": SIDE})
            for one in objects:
                number = {"id": len(annotations) + 1, "image_id": index + 1, "iscrowd": 0}
                annotations.append({**number, **one})
        content = {"images": images, "annotations": annotations, "categories": category}
        (folder / "annotations").mkdir(exist_ok=True)
        (folder / "annotations" / f"{name}_{split}.json").write_text(json.dumps(content))
    return folder


def shapes(rng: np.random.Generator, index: int) -> tuple[Image.Image, list[dict[str, Any]]]:
    """One or two shapes in the halves of a noisy picture."""
    picture = noise(rng)
    pen, objects = ImageDraw.Draw(picture), []
    for half in range(1 + index % 2):
        side = int(rng.integers(30, 44))
        x0, y0 = int(rng.integers(2, 46 - side + 1)) + 48 * half, int(rng.integers(2, 90 - side))
        x1, y1 = x0 + side, y0 + side
        label = (index + half) % 2
        if label == 0:
            corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
        else:
            turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
            middle, radius = np.array([x0 + x1, y0 + y1]) / 2, side / 2
            corners = [tuple(middle + radius * np.array([np.cos(a), np.sin(a)])) for a in turn]
        pen.polygon(corners, fill=list(COLOURS.values())[label])
        objects.append(
            {
                "category_id": label + 1,
                "bbox": [x0, y0, side, side],
                "area": side * side * (1.0, 0.77)[label],
                "segmentation": [[float(n) for corner in corners for n in corner]],
            }
        )
    return picture, objects


def figure(rng: np.random.Generator, index: int) -> tuple[Image.Image, list[dict[str, Any]]]:
    """A figure: a head and two hands, each a dot of its own colour, joined by lines."""
    picture = noise(rng)
    pen = ImageDraw.Draw(picture)
    x, y = int(rng.integers(12, 40)), int(rng.integers(8, 36))
    points = [(x + 20, y + 6), (x + 36, y + 40), (x + 4, y + 40)]
    points = [(px + int(rng.integers(-4, 5)), py + int(rng.integers(-4, 5))) for px, py in points]
    pen.line([points[1], points[0], points[2]], fill=(240, 240, 240), width=3)
    for (px, py), ink in zip(points, INKS, strict=True):
        pen.ellipse((px - 5, py - 5, px + 5, py + 5), fill=ink)
    box = [x - 4, y - 4, 48, 56]
    one = {
        "category_id": 1,
        "bbox": box,
        "area": float(box[2] * box[3]),
        "keypoints": [n for point in points for n in (*point, 2)],
        "num_keypoints": 3,
    }
    return picture, [one]


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Squares and discs: boxes and polygons."""
    category = [{"id": place + 1, "name": name} for place, name in enumerate(COLOURS)]
    return write_coco(tmp_path_factory.mktemp("shapes") / "data", "instances", category, shapes)


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Figures with three keypoints."""
    category = [{"id": 1, "name": "person", "keypoints": POINTS, "skeleton": [[1, 2], [1, 3]]}]
    folder = tmp_path_factory.mktemp("figures") / "data"
    return write_coco(folder, "person_keypoints", category, figure)


QUICK = Overrides(batch_size=8, lr=5e-3, ema=0.9)


def train(data: Path, out: Path, model: str, *, epochs: int = 2, **given: Any) -> Any:
    options = {"width": 0.35, "size": 64, "weights": "none", "overrides": QUICK, "seed": 3}
    fixed = {"threads": 1, "workers": 0, "device": "cpu"}
    return mobilenet.train(
        str(data), out=out, model=model, epochs=epochs, **{**options, **fixed, **given}
    )


def evaluate(run: Path, data: Path, **given: Any) -> SceneEvaluation:
    found = mobilenet.evaluate(str(run), str(data), threads=1, workers=0, device="cpu", **given)
    assert isinstance(found, SceneEvaluation)
    return found


def weights(run: Path) -> str:
    return hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()


def epochs_of(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == "epoch"]


# name, people or shapes, epochs, side, the figure and what chance does not reach
LEARNERS: dict[str, tuple[str, int, int, str, float]] = {
    "fcos_mobilenet_v2": ("scenes", 36, 64, "mAP50", 0.3),
    "lraspp_mobilenet_v3_small": ("scenes", 24, 96, "mIoU", 0.5),
    "pose_mobilenet_v2": ("people", 18, 64, "AP50", 0.4),
    "multipose_mobilenet_v2": ("people", 24, 64, "AP50", 0.4),
    "ssdlite_mobilenet_v2": ("scenes", 3, 64, "mAP50", 0.0),  # longer than a test should take
}
TASKS = {"fcos": "detect", "ssdlite": "detect", "lraspp": "segment", "pose": "keypoints"}


@pytest.fixture(scope="session")
def trained(
    scenes: Path, people: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Path, Path]]:
    """By a network's name a run that has learned, and its data; each made once."""
    made: dict[str, Path] = {}

    def get(name: str) -> tuple[Path, Path]:
        kind, epochs, size, _, _ = LEARNERS[name]
        data = scenes if kind == "scenes" else people
        if name not in made:
            out = tmp_path_factory.mktemp("trained") / name
            whole = {task: replace(recipe, small=0.0) for task, recipe in SCENE_RECIPES.items()}
            with patch.dict(SCENE_RECIPES, whole):
                train(data, out, name, epochs=epochs, size=size)
            made[name] = out
        return made[name], data

    return get


@pytest.mark.parametrize("name", LEARNERS)
def test_a_network_learns_and_leaves_a_whole_run(
    name: str, trained: Callable[[str], tuple[Path, Path]]
) -> None:
    run, data = trained(name)
    kind, epochs, size, figure, floor = LEARNERS[name]
    contract = read_model_json(run)
    task = next(task for part, task in TASKS.items() if part in name)
    assert contract["task"] == task
    assert contract["preprocess"]["size"] == size
    classes = ["person"] if kind == "people" else list(COLOURS)
    assert contract["labels"] == (["background", *classes] if task == "segment" else classes)
    assert contract["weights"]["sha256"] == weights(run)
    if task == "keypoints":
        assert contract["decoding"]["names"] == list(POINTS)
        assert contract["decoding"]["flipped"] == [0, 2, 1]
    history = epochs_of(run)
    assert [record["epoch"] for record in history] == list(range(epochs))
    losses = [record["train_loss"] for record in history]
    assert np.mean(losses[-2:]) < (0.6 if floor else 1.0) * losses[0]
    page = (run / "report.html").read_text()
    assert name in page
    assert "data:image/jpeg;base64," in page
    assert not (run / "checkpoints").exists() or not any((run / "checkpoints").iterdir())
    scores = evaluate(run, data, split="train").scores
    assert scores.n == 24
    found = scores.figures[figure]
    assert found is not None
    assert found >= floor


@pytest.mark.parametrize("name", LEARNERS)
def test_an_interrupted_run_ends_with_the_same_bytes(
    name: str, scenes: Path, people: Path, tmp_path: Path
) -> None:
    from mobilenet.train.scene_loop import SceneTrainer

    data = scenes if LEARNERS[name][0] == "scenes" else people
    options = {"epochs": 2, "size": 64}
    train(data, tmp_path / "alone", name, **options)
    step = SceneTrainer._step
    seen: list[int] = []

    def stopped(self: SceneTrainer, *batch: Any) -> float:
        seen.append(self.position.step)
        if len(seen) in (2, 5):  # Ctrl-C in the first epoch, and in the second
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, *batch)

    with patch.object(SceneTrainer, "_step", stopped):
        with pytest.raises(KeyboardInterrupt):
            train(data, tmp_path / "again", name, **options)
        with pytest.raises(KeyboardInterrupt):
            train(data, tmp_path / "again", name, resume=True, **options)
        train(data, tmp_path / "again", name, resume=True, workers=2, **options)
    assert seen == list(range(6))
    assert weights(tmp_path / "again") == weights(tmp_path / "alone")
    whole, resumed = (epochs_of(tmp_path / each) for each in ("alone", "again"))
    assert [r["train_loss"] for r in resumed] == [r["train_loss"] for r in whole]
    with pytest.raises(CheckpointError, match="choose another --out"):
        train(data, tmp_path / "again", name, resume=True, epochs=3, size=64)


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from unittest.mock import patch
import test_scene_verbs as verbs
with patch("mobilenet.train.scene_loop.CHECKPOINT_SECONDS", 0.0):
    verbs.train(Path(sys.argv[2]), Path(sys.argv[3]), "pose_mobilenet_v2", resume=True)
"""


def test_a_run_that_is_killed_goes_on(people: Path, tmp_path: Path) -> None:
    train(people, tmp_path / "alone", "pose_mobilenet_v2")
    run, here = tmp_path / "killed", str(Path(__file__).parent)
    child = subprocess.Popen([sys.executable, "-c", KILLED, here, str(people), str(run)])
    deadline = time.monotonic() + 60
    while len(list((run / "checkpoints").glob("*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.002)
    child.kill()
    assert child.wait() == -signal.SIGKILL
    assert not (run / "model.json").exists()
    train(people, run, "pose_mobilenet_v2", resume=True)
    assert weights(run) == weights(tmp_path / "alone")


def test_a_checkpoint_of_other_options_or_data_is_refused(people: Path, tmp_path: Path) -> None:
    from mobilenet.train.scene_loop import SceneTrainer

    run, data = tmp_path / "run", tmp_path / "data"
    shutil.copytree(people, data)

    def stopped(self: SceneTrainer, *batch: Any) -> float:
        os.kill(os.getpid(), signal.SIGINT)
        return 1.0

    with patch.object(SceneTrainer, "_step", stopped), pytest.raises(KeyboardInterrupt):
        train(data, run, "pose_mobilenet_v2")
    for other in (
        {"seed": 4},
        {"size": 96},
        {"epochs": 3},
        {"overrides": replace(QUICK, lr=1e-3)},
        {"limit": 10},
    ):
        with pytest.raises(CheckpointError, match="other options or data"):
            train(data, run, "pose_mobilenet_v2", resume=True, **other)
    with pytest.raises(UsageError, match="--resume"):
        train(data, run, "pose_mobilenet_v2")
    file = data / "annotations" / "person_keypoints_train.json"
    content = json.loads(file.read_text())
    content["annotations"][3]["keypoints"][0] += 1  # a point that somebody has corrected
    file.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="other options or data"):
        train(data, run, "pose_mobilenet_v2", resume=True)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"recipe": "finetune"}, "--recipe.*classifiers"),
        ({"resize": 128}, "--resize.*classifiers"),
        ({"overrides": Overrides(mixup=0.2)}, "--mixup: of classifiers; .*lr"),
        ({"overrides": Overrides(batch_size=0)}, "batch_size 0.*at least 1 picture"),
        ({"epochs": 0}, "epochs 0: expected at least 1"),
        ({"minutes": 1.0}, "--epochs and --minutes"),
        ({"size": 31}, "size 31: expected 32"),
        ({"size": 0}, "size 0: expected 32"),
        ({"width": 0.0}, "width 0"),
        ({"threads": 0}, "threads 0"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_written(
    wrong: dict[str, Any], said: str, scenes: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=said):
        train(scenes, tmp_path / "run", "ssdlite_mobilenet_v2", **wrong)
    assert not (tmp_path / "run").exists()


def test_data_that_does_not_serve_the_task_is_refused(
    scenes: Path, people: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with pytest.raises(DataError, match="without keypoints"):
        train(scenes, run, "pose_mobilenet_v2")
    with pytest.raises(DataError, match=r"polygon|segment"):
        train(people, run, "lraspp_mobilenet_v3_small")
    data = tmp_path / "train only"
    shutil.copytree(scenes, data)
    (data / "annotations" / "instances_val.json").unlink()
    with pytest.raises(DataError, match="no pictures to validate with"):
        train(data, run, "ssdlite_mobilenet_v2", val_fraction=0.0)
    assert not run.exists()
    result = train(data, run, "lraspp_mobilenet_v3_small", epochs=1, val_fraction=0.25)
    # evaluated on the pictures that were held out in training
    counts = read_model_json(run)["provenance"]["data"]["counts"]
    assert counts["train"] + counts["val"] == 24
    again = evaluate(run, data)
    assert (again.split, again.scores.n) == ("val", counts["val"])
    assert again.scores == result.evaluation.scores


def test_an_unreadable_picture_is_named_and_can_be_left_out(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(scenes, data)
    for name in ("train/train-03.png", "val/val-02.png"):
        torn = data / "images" / name
        torn.write_bytes(torn.read_bytes()[:9000])  # its head is whole
    with pytest.raises(DataError, match=r"(?s)2 pictures.*--skip-bad.*train-03.png.*val-02.png"):
        train(data, run, "lraspp_mobilenet_v3_small")
    assert not run.exists()
    result = train(data, run, "lraspp_mobilenet_v3_small", epochs=1, skip_bad=True)
    assert "train-03.png: truncated" in capsys.readouterr().err
    assert read_model_json(run)["provenance"]["data"]["counts"] == {"train": 23, "val": 7}
    assert result.evaluation.scores.n == 7
    with pytest.raises(DataError, match=r"val-02.png.*--skip-bad"):
        evaluate(run, data)
    assert evaluate(run, data, skip_bad=True).scores == result.evaluation.scores


def answered(run: Path, data: Path) -> tuple[SceneModel, list[Any]]:
    """What a run finds on the val pictures."""
    model = open_scene_model(run, threads=1, device="cpu")
    task: Any = model.task.name
    part = open_scenes(data, task=task).splits["val"]
    examples = examples_of(part, windowed=model.task.windowed(model.spec))
    found = answer_scenes(model, examples, batch_size=3, workers=0)
    return model, [one for _, batch in found for one in batch]


def coco_figures(file: Path, kind: str, found: list[dict[str, Any]], sigmas: Any = None) -> Any:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO(str(file))
    for one in truth.dataset["annotations"]:
        one.setdefault("num_keypoints", 0)
    counted = COCOeval(truth, truth.loadRes(found), kind)
    if sigmas is not None:
        counted.params.kpt_oks_sigmas = np.array(sigmas)
    if kind == "bbox":
        counted.params.maxDets = [1, 10, 300]
    counted.evaluate()
    counted.accumulate()
    return counted.eval["precision"]  # thresholds, recalls, classes, areas, most


def of_all(precision: np.ndarray) -> float:
    return float(precision[precision > -1].mean())


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_boxes_are_measured_as_pycocotools_measures_them(
    scenes: Path, trained: Callable[[str], tuple[Path, Path]]
) -> None:
    run, _ = trained("fcos_mobilenet_v2")
    _, found = answered(run, scenes)
    boxes = [
        {
            "image_id": place + 1,
            "category_id": int(label) + 1,
            "bbox": [float(x0), float(y0), float(x1 - x0), float(y1 - y0)],
            "score": float(score),
        }
        for place, one in enumerate(found)
        for (x0, y0, x1, y1), label, score in zip(
            one.found.boxes.astype(float), one.found.labels, one.found.scores, strict=True
        )
    ]
    file = scenes / "annotations" / "instances_val.json"
    expected = coco_figures(file, "bbox", boxes)
    figures = evaluate(run, scenes).scores.figures
    assert figures["mAP"] == pytest.approx(of_all(expected[:, :, :, 0, 2]), abs=1e-6)
    assert figures["mAP50"] == pytest.approx(of_all(expected[0, :, :, 0, 2]), abs=1e-6)
    assert figures["mAP75"] == pytest.approx(of_all(expected[5, :, :, 0, 2]), abs=1e-6)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_poses_are_measured_as_pycocotools_measures_them(
    people: Path, trained: Callable[[str], tuple[Path, Path]]
) -> None:
    run, _ = trained("multipose_mobilenet_v2")
    model, found = answered(run, people)
    poses = [
        {
            "image_id": place + 1,
            "category_id": 1,
            "keypoints": points.astype(float).reshape(-1).tolist(),
            "score": float(score),
        }
        for place, one in enumerate(found)
        for points, score in zip(one.found.keypoints, one.found.scores, strict=True)
    ]
    file = people / "annotations" / "person_keypoints_val.json"
    expected = coco_figures(file, "keypoints", poses, sigmas=model.rules.sigmas)  # pyright: ignore
    figures = evaluate(run, people).scores.figures
    assert figures["AP"] == pytest.approx(of_all(expected[:, :, :, 0, 0]), abs=1e-6)
    assert figures["AP50"] == pytest.approx(of_all(expected[0, :, :, 0, 0]), abs=1e-6)


def test_masks_are_measured_as_counted_by_hand(
    scenes: Path, trained: Callable[[str], tuple[Path, Path]]
) -> None:
    run, _ = trained("lraspp_mobilenet_v3_small")
    _, found = answered(run, scenes)
    truth = np.stack(
        [scene.semantic() for scene in open_scenes(scenes, task="segment").splits["val"]]
    )
    mine = np.stack([one.found for one in found])
    both = [
        ((truth == c) & (mine == c)).sum() / ((truth == c) | (mine == c)).sum() for c in range(3)
    ]
    figures = evaluate(run, scenes).scores.figures
    assert figures["mIoU"] == pytest.approx(np.mean(both), abs=1e-9)
    assert figures["pixel_accuracy"] == pytest.approx((truth == mine).mean(), abs=1e-9)


def test_what_is_found_is_in_the_pictures_own_pixels(
    trained: Callable[[str], tuple[Path, Path]], tmp_path: Path
) -> None:
    """The same content, twice as wide and three times as high, is found there."""
    for name in ("fcos_mobilenet_v2", "pose_mobilenet_v2", "lraspp_mobilenet_v3_small"):
        run, data = trained(name)
        source = data / "images" / "val" / "val-00.png"
        large = tmp_path / "large.png"
        picture = Image.open(source)
        picture.resize((2 * SIDE, 3 * SIDE), Image.Resampling.NEAREST).save(large)
        model = open_scene_model(run, threads=1, device="cpu")
        small, big = picture.convert("RGB"), Image.open(large)
        maps = model.maps(np.zeros((1, 3, model.preprocess.size, model.preprocess.size), "f4"))
        rng = np.random.default_rng(0)
        drawn = {key: rng.normal(size=value.shape).astype("f4") for key, value in maps.items()}
        same = replace(model, maps=lambda images, drawn=drawn: drawn)
        one, other = same.find(small), same.find(big)
        match model.task.name:
            case "detect":
                assert len(one.boxes)
                np.testing.assert_allclose(other.boxes, one.boxes * (2, 3, 2, 3), rtol=1e-4)
            case "keypoints":
                np.testing.assert_allclose(
                    other.keypoints[..., :2], one.keypoints[..., :2] * (2, 3), rtol=1e-4
                )
            case _:
                assert (one.shape, other.shape) == ((SIDE, SIDE), (3 * SIDE, 2 * SIDE))
                assert (other[1::3, ::2] == one).mean() > 0.9


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize(
    "name", ["fcos_mobilenet_v2", "pose_mobilenet_v2", "lraspp_mobilenet_v3_small"]
)
def test_pictures_are_answered_and_drawn(
    name: str, trained: Callable[[str], tuple[Path, Path]], tmp_path: Path
) -> None:
    run, data = trained(name)
    paths = sorted((data / "images" / "val").iterdir())[:2]
    given = [*paths, tmp_path / "absent.png"]
    found = mobilenet.predict(str(run), given, save=tmp_path / "drawn", device="cpu", threads=1)
    assert not found.ok
    lines = list(found.json_lines())
    assert [line["path"] for line in lines] == [str(path) for path in paths]
    json.dumps(lines)
    assert {path.name for path in (tmp_path / "drawn").iterdir()} == {"val-00.jpg", "val-01.jpg"}
    best = lines[1]["predictions"][0]
    match name.split("_")[0]:
        case "fcos":
            assert list(best) == ["label", "score", "box"]
            assert best["label"] in COLOURS
            x0, y0, x1, y1 = best["box"]
            assert 0 <= x0 < x1 <= SIDE
            assert 0 <= y0 < y1 <= SIDE
        case "pose":
            assert list(best) == ["label", "score", "keypoints"]
            assert list(best["keypoints"]) == list(POINTS)
        case _:
            from pycocotools import mask

            assert list(best) == ["label", "share", "segment"]
            own = mask.decode({**best["segment"], "counts": best["segment"]["counts"].encode()})
            assert own.shape == (SIDE, SIDE)
            assert own.mean() == pytest.approx(best["share"])


def test_a_network_without_a_run_says_what_is_missing(scenes: Path) -> None:
    picture = scenes / "images" / "val" / "val-00.png"
    with pytest.raises(UsageError, match=r"ssdlite_mobilenet_v2.*train"):
        mobilenet.predict("ssdlite_mobilenet_v2", [picture])
    with pytest.raises(UsageError, match=r"ssdlite_mobilenet_v2.*train"):
        mobilenet.evaluate("ssdlite_mobilenet_v2", str(scenes))


def test_data_of_other_classes_or_keypoints_is_refused(
    scenes: Path, people: Path, trained: Callable[[str], tuple[Path, Path]], tmp_path: Path
) -> None:
    for name, source in (("fcos_mobilenet_v2", scenes), ("pose_mobilenet_v2", people)):
        run, _ = trained(name)
        data = tmp_path / name
        shutil.copytree(source, data)
        for file in (data / "annotations").iterdir():
            text = file.read_text().replace('"disc"', '"ring"').replace('"head"', '"hat"')
            file.write_text(text)
        with pytest.raises(DataError, match=r"(ring|hat).*was trained on.*(disc|head)"):
            evaluate(run, data)


@pytest.mark.parametrize(
    ("name", "change", "field"),
    [
        ("fcos_mobilenet_v2", {"decoding": {"threshold": 2}}, "decoding.*threshold"),
        ("fcos_mobilenet_v2", {"decoding": {"soft": True}}, "decoding.*soft"),
        ("fcos_mobilenet_v2", {"decoding": {"top": 0}}, "decoding.*top"),
        ("fcos_mobilenet_v2", {"decoding": {"overlap": "much"}}, "decoding.*overlap"),
        ("fcos_mobilenet_v2", {"model": {"filters": 17}}, "model.*filters"),
        ("fcos_mobilenet_v2", {"model": {"head": "yolo"}}, "model.*head"),
        ("fcos_mobilenet_v2", {"model": {"output": 1}}, "model.*output"),
        ("fcos_mobilenet_v2", {"model": {"classes": 3}}, "labels.*3 classes"),
        ("fcos_mobilenet_v2", {"labels": ["a"]}, "labels"),
        ("fcos_mobilenet_v2", {"labels": ["a", 2]}, "labels"),
        ("fcos_mobilenet_v2", {"task": "segment"}, "model|segment"),
        ("fcos_mobilenet_v2", {"preprocess": {"size": -4}}, "size"),
        ("lraspp_mobilenet_v3_small", {"decoding": {"choose": "softmax"}}, "decoding.*choose"),
        ("pose_mobilenet_v2", {"decoding": {"sigmas": [1, 1]}}, "decoding.*sigmas"),
        ("pose_mobilenet_v2", {"decoding": {"flipped": [0, 0, 1]}}, "decoding.*flipped"),
        ("pose_mobilenet_v2", {"decoding": {"skeleton": [[0, 9]]}}, "decoding.*skeleton"),
        ("pose_mobilenet_v2", {"decoding": {"names": ["a", "b"]}}, "decoding"),
        (
            "pose_mobilenet_v2",
            {"decoding": {"names": ["a", "b"], "sigmas": [1, 1], "flipped": [], "skeleton": []}},
            "names|keypoints",
        ),
        ("pose_mobilenet_v2", {"labels": []}, "labels"),
    ],
)
def test_a_contract_that_was_changed_is_refused_by_name(
    name: str,
    change: dict[str, Any],
    field: str,
    trained: Callable[[str], tuple[Path, Path]],
    tmp_path: Path,
) -> None:
    source, _ = trained(name)
    run = tmp_path / "run"
    shutil.copytree(source, run)
    content = json.loads((run / "model.json").read_text())
    del content["checksum"]
    for key, value in change.items():
        content[key] = {**content[key], **value} if isinstance(value, dict) else value
    (run / "model.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=f"(?s)model.json.*({field})"):
        open_scene_model(run, threads=1, device="cpu")
