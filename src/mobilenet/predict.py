"""What is on a picture: `predict`, with a run, an exported artifact or a model's name."""

import glob
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
        ranked = [{"label": p.label, "score": p.score} for p in self.predictions]
        return {"path": self.path, "predictions": ranked}

    def __str__(self) -> str:
        """One line for people."""
        ranked = ", ".join(f"{p.label} {100 * p.score:.1f} %" for p in self.predictions)
        return f"{self.path}: {self.error or ranked}"


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """One answer a picture, in the order of the pictures."""

    answers: tuple[Answer, ...]

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
) -> "Predictions | ScenePredictions":
    """Name what is on pictures, or find it: boxes, masks, keypoints.

    One that cannot be read is named on stderr and has an `error`; the others go on.

    Raises UsageError for what is no model, CheckpointError for a damaged one.

    Args:
        model: Run folder, folder of an exported artifact (which needs no torch), or the name of a
            model such as mobilenet_v2, which answers with its ImageNet weights.
        images: Pictures, folders that are searched for pictures at any depth, or patterns such as
            'shots/**/*.jpg'.
        top: How many of the likeliest classes, of a classifier.
        save: Folder to draw the pictures into, each with its classes, boxes, masks or keypoints.
        threads: CPU threads of the network; without it all cores.
        device: Where a run computes; an artifact computes on the CPU.
    """
    if top < 1:
        raise UsageError(f"top {top}: expected at least 1")
    paths = list(find_pictures(images))
    if not paths:
        raise UsageError("no images given")
    targets = _targets(save, paths) if save is not None else [None] * len(paths)
    if task_in(model) != "classify":
        return _predict_scenes(
            open_scene_model(model, threads=threads, device=device), paths, targets
        )
    opened = open_model(model, threads=threads, device=device)
    answers = []
    for path, target in track(
        zip(paths, targets, strict=True), total=len(paths), desc="predicting"
    ):
        answers.append(_answer(opened, path, top=top, target=target))
    return Predictions(answers=tuple(answers))


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
class ScenePredictions:
    """One answer a picture, in the order of the pictures."""

    answers: tuple[SceneAnswer, ...]

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


def _predict_scenes(
    model: SceneModel, paths: Sequence[Path], targets: Sequence[Path | None]
) -> ScenePredictions:
    answers = []
    for path, target in track(
        zip(paths, targets, strict=True), total=len(paths), desc="predicting"
    ):
        try:
            picture = decode(path)
        except ImageError as error:
            say(f"error: {path}: {error.reason}")
            answers.append(SceneAnswer(path=str(path), found={}, described="", error=error.reason))
            continue
        found = model.find(picture)
        if target is not None:
            _save(model.task.draw(picture, found, model.labels, model.rules), target)
        answers.append(
            SceneAnswer(
                path=str(path),
                found=model.task.to_json(found, model.labels, model.rules),
                described=model.task.describe(found, model.labels),
            )
        )
    return ScenePredictions(answers=tuple(answers))


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


def _answer(model: OpenModel, path: Path, *, top: int, target: Path | None) -> Answer:
    try:
        image = decode(path)
    except ImageError as error:
        say(f"error: {path}: {error.reason}")
        return Answer(path=str(path), error=error.reason)
    pixels = crop_and_resize(image, model.preprocess)[None]
    logits = model.forward(normalise(pixels, model.preprocess))
    if not np.isfinite(logits).all():
        raise not_a_number(model.name, str(path))
    scores = np.exp(log_softmax(logits)[0])
    best = np.argsort(-scores, kind="stable")[:top]
    predictions = tuple(
        Prediction(label=model.labels[index], score=float(scores[index])) for index in best
    )
    if target is not None:
        _save(draw(image, predictions), target)
    return Answer(path=str(path), predictions=predictions)


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
    """A file in `folder` for each picture: its own name, with a number where that is taken."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"save {folder}: cannot be made a folder: {error.strerror}") from None
    taken: set[str] = set()
    targets = []
    for path in paths:
        name, number = path.stem, 2
        while name.casefold() in taken:
            name, number = f"{path.stem}-{number}", number + 1
        taken.add(name.casefold())
        targets.append(folder / f"{name}.jpg")
    return targets
