"""Videos and cameras through OpenCV: frames in, each answered, an annotated video out."""

import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .errors import MissingDependency, MobilenetError, UsageError
from .progress import say, track

VIDEOS = frozenset((".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv"))
_CAMERA = "camera:"
_USUAL_RATE = 25.0  # frames a second, of a source that does not say
_FASTEST = 240.0


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a model says of one picture: as JSON, in words, and drawn on it when asked."""

    found: Mapping[str, Any]
    described: str
    draw: Callable[[], Image.Image]


Tell = Callable[[Image.Image, str], Told]  # of a picture and its name


class VideoError(MobilenetError):
    """A video or camera that cannot be read, in words."""


@dataclass(frozen=True, kw_only=True)
class FrameAnswer:
    """What is on one frame. `seconds` from the first one on; `frame` counts from 0."""

    path: str
    frame: int
    seconds: float
    found: Mapping[str, Any]
    described: str

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        place = {"path": self.path, "frame": self.frame, "seconds": round(self.seconds, 3)}
        return {**place, **self.found}

    def __str__(self) -> str:
        """One line for people."""
        return f"{self.path}, {self.seconds:.2f} s: {self.described}"


def is_video(given: Path) -> bool:
    """Whether this is asked for frame by frame: camera:0, or a file by its ending."""
    return str(given).startswith(_CAMERA) or given.suffix.lower() in VIDEOS


def is_camera(given: Path) -> bool:
    return str(given).startswith(_CAMERA)


def check_video(given: Path) -> None:
    """Raise UsageError for a camera without a number, MissingDependency without OpenCV."""
    if is_camera(given) and not str(given).removeprefix(_CAMERA).isdecimal():
        raise UsageError(f"{given}: expected a camera's number, as in camera:0")
    _opencv()


def answer_video(
    given: Path, tell: Tell, *, target: Path | None, bar: bool
) -> Generator[FrameAnswer]:
    """Frame by frame what is on a video, or before a camera until Ctrl-C; drawn into the video
    `target`. Closing the iterator, or an interruption, keeps what was written. At the end the rate
    is said on stderr; until then there is a progress bar, with `bar` and on a terminal.

    Raises VideoError for a video that cannot be opened or has no frame.
    """
    source = _Source(given)
    start, answered = time.perf_counter(), 0
    with contextlib.ExitStack() as stack:
        stack.callback(source.close)
        drawn = stack.enter_context(_Drawn(target, source)) if target is not None else None
        frames = source.frames()
        if bar:
            frames = track(frames, total=source.count, desc="predicting", unit="frame")
        try:
            for index, seconds, picture in frames:
                told = tell(picture, f"{given}, frame {index}")
                if drawn is not None:
                    drawn.add(told.draw(), seconds)
                answered = index + 1
                yield FrameAnswer(
                    path=str(given),
                    frame=index,
                    seconds=seconds,
                    found=told.found,
                    described=told.described,
                )
        except KeyboardInterrupt:
            if not source.camera:
                raise
            # the only way in which a camera ends
        finally:
            took = time.perf_counter() - start
            rate = answered / took if took > 0 else 0.0
            say(f"{given}: {answered} frames in {took:.1f} s, {rate:.1f} a second")
    if not answered:
        raise VideoError("no frame that can be read")
    if source.count is not None and answered < source.count:
        say(f"{given}: its head says {source.count} frames; the rest cannot be read")


class _Source:
    """Frames of a file or a camera, as RGB pictures."""

    def __init__(self, given: Path) -> None:
        cv2 = _opencv()
        self.camera = is_camera(given)
        if not self.camera and not given.is_file():
            raise VideoError("no such file")
        name = int(str(given).removeprefix(_CAMERA)) if self.camera else str(given)
        self._cv2, self._capture = cv2, cv2.VideoCapture(name)
        if not self._capture.isOpened():
            self.close()
            kind = "camera that can be opened" if self.camera else "video that OpenCV can read"
            raise VideoError(f"no {kind}")
        if self.camera:  # the newest frame, not one that waited while the last was answered
            self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if 0 < rate <= _FASTEST else _USUAL_RATE
        count = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.count = count if count > 0 and not self.camera else None

    def frames(self) -> Iterator[tuple[int, float, Image.Image]]:
        """Number, seconds since the first, and picture of each."""
        index, first = 0, time.perf_counter()
        while True:
            good, frame = self._capture.read()
            if not good:
                return
            if self.camera:
                first = time.perf_counter() if index == 0 else first
                seconds = time.perf_counter() - first
            else:  # 0 where the container has no times
                stated = self._capture.get(self._cv2.CAP_PROP_POS_MSEC) / 1000
                seconds = stated if stated > 0 else index / self.rate
            yield index, seconds, Image.fromarray(np.ascontiguousarray(frame[..., ::-1]))
            index += 1

    def close(self) -> None:
        self._capture.release()


class _Drawn:
    """A video that appears under its name when it is whole, however the work on it ends."""

    def __init__(self, target: Path, source: _Source) -> None:
        self._target, self._source = target, source
        self._hidden = target.with_name(f".{target.stem}.part{target.suffix}")
        self._writer: Any = None
        self._size = (0, 0)
        self._written = 0

    def __enter__(self) -> "_Drawn":
        return self

    def add(self, picture: Image.Image, seconds: float) -> None:
        """One more frame; before a camera as often, or not at all, as keeps its time."""
        cv2 = _opencv()
        if self._writer is None:
            width, height = picture.size  # codecs take whole pairs
            self._size = (max(width - width % 2, 2), max(height - height % 2, 2))
            code = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self._hidden), code, self._source.rate, self._size)
            if not self._writer.isOpened():
                raise UsageError(f"{self._target}: cannot be written")
        shown = np.asarray(picture.convert("RGB").crop((0, 0, self._size[0], self._size[1])))
        frame = np.ascontiguousarray(shown[..., ::-1])
        due = int(seconds * self._source.rate) + 1 if self._source.camera else self._written + 1
        for _ in range(due - self._written):
            self._writer.write(frame)
        self._written = max(due, self._written)

    def __exit__(self, *_: object) -> None:
        if self._writer is None:
            return
        self._writer.release()
        if self._written and self._hidden.exists():
            self._hidden.replace(self._target)


def name_of_video(given: Path) -> str:
    """What its drawing is called, without an ending."""
    return str(given).replace(":", "-") if is_camera(given) else given.stem


def _opencv() -> Any:
    try:
        import cv2
    except ImportError:
        raise MissingDependency("opencv-python-headless", "video", "reading videos") from None
    return cv2
