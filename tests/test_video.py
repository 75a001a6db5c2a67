"""Videos and cameras answered frame by frame, with OpenCV as the witness."""

import builtins
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mobilenet import UsageError, cli
from mobilenet.errors import MissingDependency
from mobilenet.predict import VideoPredictions, predict
from mobilenet.video import FrameAnswer

cv2 = pytest.importorskip("cv2")

RATE, FRAMES = 12.5, 9


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine smooth frames of 64 x 48, each another colour."""
    path = tmp_path_factory.mktemp("video") / "clip ü.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), RATE, (64, 48))
    for index in range(FRAMES):
        frame = np.full((48, 64, 3), (20 * index, 120, 240 - 20 * index), np.uint8)
        frame[10:30, 4 * index : 4 * index + 20] = 255
        writer.write(frame)
    writer.release()
    return path


def frames_of(path: Path) -> list[np.ndarray]:
    """RGB."""
    capture, found = cv2.VideoCapture(str(path)), []
    while True:
        good, frame = capture.read()
        if not good:
            return found
        found.append(frame[..., ::-1])


class Camera:
    """A camera that shows the same frame, and after so many the user has seen enough."""

    shots, at = 6, 0.0

    def __init__(self, name: Any) -> None:
        self.name, self.left = name, Camera.shots

    def isOpened(self) -> bool:
        return self.name == 0

    def set(self, prop: int, value: float) -> None: ...

    def get(self, prop: int) -> float:
        return {cv2.CAP_PROP_FPS: 10.0}.get(prop, 0.0)

    def read(self) -> tuple[bool, np.ndarray]:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        return True, np.full((48, 64, 3), (200, 30, 90), np.uint8)

    def release(self) -> None: ...


def test_every_frame_is_answered_as_its_picture_is(
    small_run: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = predict(str(small_run), [clip], top=2, device="cpu")
    assert isinstance(found, VideoPredictions)
    lines = list(found.json_lines())
    assert found.ok
    assert [list(line) for line in lines] == [["path", "frame", "seconds", "predictions"]] * FRAMES
    assert [line["frame"] for line in lines] == list(range(FRAMES))
    assert [line["seconds"] for line in lines] == [round(i / RATE, 3) for i in range(FRAMES)]
    paths = [tmp_path / f"{index}.png" for index in range(FRAMES)]
    for path, frame in zip(paths, frames_of(clip), strict=True):
        Image.fromarray(np.ascontiguousarray(frame)).save(path)
    pictures = predict(str(small_run), paths, top=2, device="cpu")
    for line, picture in zip(lines, pictures.json_lines(), strict=True):
        assert line["path"] == str(clip)
        assert line["predictions"] == picture["predictions"]
    assert f"{clip}: {FRAMES} frames in " in capsys.readouterr().err


def test_a_video_is_drawn_beside_pictures_with_all_its_frames(
    small_run: Path, clip: Path, pictures: list[Path], tmp_path: Path
) -> None:
    given = [pictures[0], clip, pictures[1]]
    found = predict(str(small_run), given, save=tmp_path / "drawn", device="cpu")
    names = [str(answer.path) for answer in found]  # pyright: ignore[reportGeneralTypeIssues]
    assert names == [str(pictures[0]), *[str(clip)] * FRAMES, str(pictures[1])]
    assert {path.name for path in (tmp_path / "drawn").iterdir()} == {
        "00.jpg", "clip ü.mp4", "01.jpg"
    }  # fmt: skip
    drawn = frames_of(tmp_path / "drawn" / "clip ü.mp4")
    assert len(drawn) == FRAMES
    for shown, source in zip(drawn, frames_of(clip), strict=True):
        assert shown.shape[1] == 320
        top = np.asarray(Image.fromarray(np.ascontiguousarray(shown[:240])).resize((64, 48)), float)
        assert np.abs(top - source).mean() < 8
        assert shown[245:].std() > 10  # bars and letters below


def test_the_verb_prints_frame_after_frame(
    small_run: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["predict", str(small_run), str(clip), "--top", "1", "--device", "cpu"])
    assert left.value.code == 0
    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert len(lines) == FRAMES
    assert lines[1].startswith(f"{clip}, 0.08 s: ")
    with pytest.raises(SystemExit) as left:
        cli.main(["predict", str(small_run), str(clip), "--json", "--device", "cpu"])
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["frame"] for line in shown] == list(range(FRAMES))


def test_a_camera_answers_until_it_is_stopped_and_its_video_is_whole(
    small_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    clock = iter(np.arange(0, 100, 0.15))
    monkeypatch.setattr("mobilenet.video.time.perf_counter", lambda: float(next(clock)))
    found = predict(str(small_run), [Path("camera:0")], save=tmp_path, device="cpu")
    answers = list(found)  # pyright: ignore[reportArgumentType]
    monkeypatch.undo()
    assert found.ok
    assert len(answers) == Camera.shots
    assert all(isinstance(answer, FrameAnswer) for answer in answers)
    assert answers[0].seconds < answers[-1].seconds
    assert "camera:0: 6 frames in " in capsys.readouterr().err
    (drawn,) = tmp_path.iterdir()
    assert drawn.name == "camera-0.mp4"
    # at the camera's rate, though it was answered more slowly: the video takes as long as it took
    assert len(frames_of(drawn)) == pytest.approx(10 * answers[-1].seconds + 1, abs=1)


def test_an_interruption_keeps_what_was_drawn(
    small_run: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter(predict(str(small_run), [clip], save=tmp_path, device="cpu"))  # pyright: ignore
    for _ in range(4):
        next(found)
    assert not [path for path in tmp_path.iterdir() if path.name[0] != "."]
    found.close()  # pyright: ignore[reportAttributeAccessIssue]
    (drawn,) = tmp_path.iterdir()
    assert len(frames_of(drawn)) == 4

    told = iter(range(3))

    def stopped(*given: Any) -> Any:
        if next(told, None) is None:
            raise KeyboardInterrupt
        return real(*given)

    module = sys.modules["mobilenet.predict"]
    real = module._classify
    monkeypatch.setattr(module, "_classify", stopped)
    with pytest.raises(SystemExit) as left:
        cli.main(["predict", str(small_run), str(clip), "--save", str(tmp_path)])
    assert left.value.code == 130
    (drawn,) = tmp_path.iterdir()
    assert len(frames_of(drawn)) == 3


def test_what_is_no_video_is_named_and_the_rest_goes_on(
    small_run: Path,
    clip: Path,
    pictures: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    torn = tmp_path / "torn.mp4"
    torn.write_bytes(clip.read_bytes()[:200])
    given = [torn, tmp_path / "absent.avi", pictures[0]]
    found = predict(str(small_run), given, save=tmp_path / "out", device="cpu")
    assert [str(answer.path) for answer in found] == [str(pictures[0])]  # pyright: ignore
    assert not found.ok
    told = capsys.readouterr().err
    assert f"error: {torn}: no video that OpenCV can read" in told
    assert f"error: {tmp_path / 'absent.avi'}: no such file" in told
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["00.jpg"]


def test_a_camera_that_is_not_there(
    small_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    found = predict(str(small_run), [Path("camera:7")], device="cpu")
    assert list(found) == []  # pyright: ignore[reportArgumentType]
    assert not found.ok
    assert "error: camera:7: no camera that can be opened" in capsys.readouterr().err
    with pytest.raises(UsageError, match=r"camera:front.*camera:0"):
        predict(str(small_run), [Path("camera:front")], device="cpu")


def test_nothing_is_drawn_over_what_is_read(
    small_run: Path, clip: Path, pictures: list[Path], tmp_path: Path
) -> None:
    for source, name in ((clip, "a.mp4"), (pictures[0], "a.jpg")):
        own = tmp_path / name
        if name == "a.jpg":
            Image.open(source).convert("RGB").save(own)
        else:
            own.write_bytes(source.read_bytes())
        before = own.read_bytes()
        with pytest.raises(UsageError, match=f"{name} would be overwritten"):
            predict(str(small_run), [own], save=tmp_path, device="cpu")
        assert own.read_bytes() == before


def test_without_opencv_the_extra_is_named(
    small_run: Path, clip: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def no_opencv(name: str, *rest: Any) -> Any:
        if name == "cv2":
            raise ModuleNotFoundError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", no_opencv)
    with pytest.raises(MissingDependency, match=r"pip install 'mobilenet\[video\]'"):
        predict(str(small_run), [clip], device="cpu")
    assert predict(str(small_run), pictures[:1], device="cpu").ok
