"""What is on a picture or a video: `predict`, with a run, an artifact or a model's name."""

import contextlib
import functools
import glob
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from .data.folders import PICTURES
from .errors import UsageError
from .evaluate.metrics import log_softmax
from .evaluate.model import Device, OpenModel, not_a_number, open_model
from .evaluate.scene_model import SceneModel, open_scene_model, task_in
from .preprocess import ImageError, crop_and_resize, decode, normalise
from .progress import say, track
from .runtime import Prediction
from .video import FrameAnswer, Told, VideoError, answer_video, check_video, is_video, name_of_video

_WIDTH = (320, 1280)  # pixels of a drawn picture, at least and at most; so is its height
_BAR = (90, 140, 220)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The likeliest classes of one picture, likeliest first; none and an `error` where it cannot
    be read."""

    path: str
    predictions: tuple[Prediction, ...] = ()
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON object, without the error."""
        return {"path": self.path, "predictions": _ranked(self.predictions)}

    def __str__(self) -> str:
        """One line for people."""
        return f"{self.path}: {self.error or _in_words(self.predictions)}"


@dataclass(frozen=True, kw_only=True)
class SceneAnswer:
    """What was found on one picture: as `predict --json` prints it, and in words; an `error` where
    it cannot be read."""

    path: str
    found: Mapping[str, Any]
    described: str
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON object, without the error."""
        return {"path": self.path, **self.found}

    def __str__(self) -> str:
        """One line for people."""
        return f"{self.path}: {self.error or self.described}"


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """One answer a picture, in the order of the pictures."""

    answers: tuple[Answer | SceneAnswer, ...]

    @property
    def ok(self) -> bool:
        """Whether every picture could be read."""
        return all(answer.error is None for answer in self.answers)

    def json_lines(self) -> Iterator[dict[str, Any]]:
        """A JSON object for every picture that could be read."""
        return (answer.to_json() for answer in self.answers if answer.error is None)

    def __str__(self) -> str:
        """A line for every picture that could be read."""
        return "\n".join(str(answer) for answer in self.answers if answer.error is None)


def predict(
    model: str,
    images: list[Path],
    /,
    *,
    top: int = 5,
    save: Path | None = None,
    threads: int | None = None,
    device: Device = "auto",
) -> "Predictions | VideoPredictions":
    """Name what is on pictures, or find it: boxes, masks, keypoints.

    One that cannot be read is named on stderr and has an `error`; the others go on. Videos and
    cameras are answered frame by frame while the result is iterated; Ctrl-C ends a camera, and
    keeps what was drawn.

    Raises UsageError for what is no model, CheckpointError for a damaged one, MissingDependency
    for a video without OpenCV.

    Args:
        model: Run folder, folder of an exported artifact (which needs no torch), or the name of a
            model such as mobilenet_v2, which answers with its ImageNet weights.
        images: Pictures, folders that are searched for pictures at any depth, patterns such as
            'shots/**/*.jpg', videos, or camera:0 for the first camera.
        top: How many of the likeliest classes, of a classifier.
        save: Folder to draw pictures and videos into, with classes, boxes, masks or keypoints.
        threads: CPU threads of the network; without it all cores.
        device: Where a run computes; an artifact computes on the CPU.
    """
    if top < 1:
        raise UsageError(f"top {top}: expected at least 1")
    paths = list(find_pictures(images))
    if not paths:
        raise UsageError("no images given")
    for path in paths:
        if is_video(path):
            check_video(path)
    targets = _targets(save, paths) if save is not None else [None] * len(paths)
    if task_in(model) != "classify":
        scenes = open_scene_model(model, threads=threads, device=device)
        tell = functools.partial(_tell_scene, scenes)
        answer = functools.partial(_answer_scene, scenes)
        if any(map(is_video, paths)):
            return VideoPredictions(paths, targets, tell, answer)
        return Predictions(answers=tuple(_each(answer, paths, targets)))
    opened = open_model(model, threads=threads, device=device)
    tell = functools.partial(_tell, opened, top=top)
    answer = functools.partial(_answer, opened, top=top)
    if any(map(is_video, paths)):
        return VideoPredictions(paths, targets, tell, answer)
    return Predictions(answers=tuple(_each(answer, paths, targets)))


T = TypeVar("T")


def _each(
    answer: Callable[[Path, Path | None], T], paths: Sequence[Path], targets: Sequence[Path | None]
) -> Iterator[T]:
    pairs = zip(paths, targets, strict=True)
    for path, target in track(pairs, total=len(paths), desc="predicting"):
        yield answer(path, target)


class VideoPredictions:
    """Answers to every frame of videos and cameras, and to pictures among them, in their order.
    They are made while this is iterated, which is possible once."""

    def __init__(
        self,
        paths: Sequence[Path],
        targets: Sequence[Path | None],
        tell: Callable[[Image.Image, str], Told],
        answer: Callable[[Path, Path | None], Answer | SceneAnswer],
    ) -> None:
        """`tell` answers a frame of the video of that name, `answer` a picture's file."""
        self._paths, self._targets = paths, targets
        self._tell, self._answer = tell, answer
        self._failed = False

    @property
    def ok(self) -> bool:
        """Whether all that was iterated so far could be read."""
        return not self._failed

    def __iter__(self) -> Iterator[Answer | SceneAnswer | FrameAnswer]:
        """The answers, without those to what cannot be read, which is named on stderr. Closing the
        iterator closes the videos; what was drawn so far is kept."""
        for path, target in zip(self._paths, self._targets, strict=True):
            if not is_video(path):
                answer = self._answer(path, target)
                self._failed |= answer.error is not None
                if answer.error is None:
                    yield answer
                continue
            frames = answer_video(path, self._tell, target=target, bar=not sys.stdout.isatty())
            try:
                with contextlib.closing(frames):
                    yield from frames
            except VideoError as error:
                say(f"error: {path}: {error}")
                self._failed = True

    def json_lines(self) -> Iterator[dict[str, Any]]:
        """A JSON object for every picture and frame."""
        return (answer.to_json() for answer in self)

    def lines(self) -> Iterator[str]:
        """A line for every picture and frame."""
        return (str(answer) for answer in self)

    def __str__(self) -> str:
        return "\n".join(self.lines())


def _answer_scene(model: SceneModel, path: Path, target: Path | None) -> SceneAnswer:
    try:
        picture = decode(path)
    except ImageError as error:
        say(f"error: {path}: {error.reason}")
        return SceneAnswer(path=str(path), found={}, described="", error=error.reason)
    told = _tell_scene(model, picture, str(path))
    if target is not None:
        _save(told.draw(), target)
    return SceneAnswer(path=str(path), found=told.found, described=told.described)


def _tell_scene(model: SceneModel, picture: Image.Image, name: str) -> Told:
    found = model.find(picture)
    return Told(
        found=model.task.to_json(found, model.labels, model.rules),
        described=model.task.describe(found, model.labels),
        draw=lambda: model.task.draw(picture, found, model.labels, model.rules),
    )


def _save(picture: Image.Image, target: Path) -> None:
    try:
        picture.save(target, quality=90)
    except OSError as error:
        raise UsageError(f"{target}: cannot be written: {error.strerror or error}") from None


def find_pictures(images: Sequence[Path]) -> Iterator[Path]:
    """The pictures meant by paths, folders and patterns, in this order, a folder's by name.

    What does not exist, or holds none, is handed on, to be reported under its name.
    """
    for given in images:
        if given.is_dir():
            inside = sorted(
                path
                for path in given.rglob("*")
                if path.suffix.lower() in PICTURES and path.name[0] != "." and path.is_file()
            )
            yield from inside or [given]
        elif not given.exists() and glob.has_magic(str(given)):
            # Path.glob takes no pattern such as "a**"
            found = {Path(path) for path in glob.glob(str(given), recursive=True)}  # noqa: PTH207
            yield from sorted(path for path in found if path.is_file()) or [given]
        else:
            yield given


def _answer(model: OpenModel, path: Path, target: Path | None, *, top: int) -> Answer:
    try:
        image = decode(path)
    except ImageError as error:
        say(f"error: {path}: {error.reason}")
        return Answer(path=str(path), error=error.reason)
    predictions = _classify(model, image, str(path), top)
    if target is not None:
        _save(draw(image, predictions), target)
    return Answer(path=str(path), predictions=predictions)


def _tell(model: OpenModel, picture: Image.Image, name: str, *, top: int) -> Told:
    predictions = _classify(model, picture, name, top)
    return Told(
        found={"predictions": _ranked(predictions)},
        described=_in_words(predictions),
        draw=lambda: draw(picture, predictions),
    )


def _classify(model: OpenModel, image: Image.Image, name: str, top: int) -> tuple[Prediction, ...]:
    pixels = crop_and_resize(image, model.preprocess)[None]
    logits = model.forward(normalise(pixels, model.preprocess))
    if not np.isfinite(logits).all():
        raise not_a_number(model.name, name)
    scores = np.exp(log_softmax(logits)[0])
    best = np.argsort(-scores, kind="stable")[:top]
    return tuple(
        Prediction(label=model.labels[index], score=float(scores[index])) for index in best
    )


def _ranked(predictions: Sequence[Prediction]) -> list[dict[str, Any]]:
    return [{"label": p.label, "score": p.score} for p in predictions]


def _in_words(predictions: Sequence[Prediction]) -> str:
    return ", ".join(f"{p.label} {100 * p.score:.1f} %" for p in predictions)


def draw(image: Image.Image, predictions: Sequence[Prediction]) -> Image.Image:
    """The picture with a bar for each prediction below it."""
    low, high = _WIDTH
    width = min(max(image.width, low), high)
    shown = ImageOps.contain(image, (width, high), Image.Resampling.BICUBIC)
    size = max(width // 28, 14)
    line = round(size * 1.7)
    canvas = Image.new("RGB", (width, shown.height + line * len(predictions) + size), "white")
    canvas.paste(shown, ((width - shown.width) // 2, 0))
    pen = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size)
    for row, prediction in enumerate(predictions):
        top = shown.height + size // 2 + row * line
        full = width - 2 * size
        pen.rectangle((size, top + line - 5, size + full, top + line - 3), fill=(228, 230, 234))
        pen.rectangle(
            (size, top + line - 5, size + round(full * prediction.score), top + line - 3), fill=_BAR
        )
        number = f"{100 * prediction.score:.1f} %"
        pen.text((width - size, top), number, fill="black", font=font, anchor="ra")
        label = prediction.label
        room = width - 3 * size - font.getlength(number)
        while font.getlength(label) > room:
            label = label[:-2] + "…"
        pen.text((size, top), label, fill="black", font=font)
    return canvas


def _targets(folder: Path, paths: Sequence[Path]) -> list[Path]:
    """A file in `folder` for each picture or video: its own name, with a number where that is
    taken. Raises UsageError where that is the very file that is read."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"save {folder}: cannot be made a folder: {error.strerror}") from None
    taken: set[str] = set()
    targets = []
    for path in paths:
        stem = name_of_video(path) if is_video(path) else path.stem
        name, number = stem, 2
        while name.casefold() in taken:
            name, number = f"{stem}-{number}", number + 1
        taken.add(name.casefold())
        targets.append(folder / f"{name}{'.mp4' if is_video(path) else '.jpg'}")
    for target in targets:
        if any(target.exists() and path.exists() and target.samefile(path) for path in paths):
            raise UsageError(f"save {folder}: {target} would be overwritten; name another folder")
    return targets
