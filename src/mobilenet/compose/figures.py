"""Drawn people with COCO's seventeen keypoints and drawn faces with six landmarks.

A person is a puppet of limbs seen from the front: its colours and proportions are its own and stay,
its pose is new each time. Every point is where it was drawn, and hidden where another limb is in
front of it. Left and right are the person's own.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw

from .cutouts import Cutout, Drawing

PERSON_POINTS = (
    *("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder"),
    *("left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip"),
    *("left_knee", "right_knee", "left_ankle", "right_ankle"),
)
# COCO's, counted from 0
PERSON_SKELETON = (
    *((15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8)),
    *((7, 9), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6)),
)
# BlazeFace's six
FACE_POINTS = ("right_eye", "left_eye", "nose", "mouth", "right_ear", "left_ear")
_FINER = 2  # drawn larger, then averaged
_SIDE = 512 * _FINER

Colour = tuple[int, int, int]


def person(index: int, seed: int, label: int) -> Cutout:
    """The person with this number."""
    name = f"person {index}"
    return Cutout(name=name, label=label, group=name, draw=_Person(index, seed))


def face(index: int, seed: int, label: int) -> Cutout:
    """The face with this number."""
    name = f"face {index}"
    return Cutout(name=name, label=label, group=name, draw=_Face(index, seed))


@dataclass
class _Sheet:
    """A picture, and which part each pixel shows, for what hides what."""

    colours: Image.Image = field(default_factory=lambda: Image.new("RGBA", (_SIDE, _SIDE)))
    parts: Image.Image = field(default_factory=lambda: Image.new("L", (_SIDE, _SIDE)))
    names: list[str] = field(default_factory=lambda: [""])

    def oval(self, part: str, centre: np.ndarray, rx: float, ry: float, fill: Colour) -> None:
        box = (*(centre - [rx, ry]), *(_moved(centre, rx, ry)))
        for draw, colour in self._layers(part, fill):
            draw.ellipse(box, fill=colour)

    def limb(
        self, part: str, start: np.ndarray, end: np.ndarray, r0: float, r1: float, fill: Colour
    ) -> None:
        """From one round end to the other."""
        along = end - start
        across = np.array([-along[1], along[0]]) / max(float(np.hypot(*along)), 1e-6)
        corners = [start + across * r0, end + across * r1, end - across * r1, start - across * r0]
        for draw, colour in self._layers(part, fill):
            draw.polygon([tuple(corner) for corner in corners], fill=colour)
            for centre, radius in ((start, r0), (end, r1)):
                draw.ellipse((*(centre - radius), *(centre + radius)), fill=colour)

    def polygon(self, part: str, corners: list[np.ndarray], fill: Colour) -> None:
        for draw, colour in self._layers(part, fill):
            draw.polygon([tuple(corner) for corner in corners], fill=colour)

    def arc(self, part: str, box: tuple[float, ...], ends: tuple[float, float], fill: Colour,
            width: float) -> None:  # fmt: skip
        for draw, colour in self._layers(part, fill):
            draw.arc(box, *ends, fill=colour, width=max(round(width), 1))

    def finish(
        self, points: Mapping[str, tuple[np.ndarray, set[str]]], order: tuple[str, ...],
        rng: np.random.Generator,
    ) -> Drawing:  # fmt: skip
        """The drawing within its extent. `points`: where each is, and the parts that show it."""
        parts = np.asarray(self.parts)
        found = np.zeros((len(order), 3), np.float32)
        for place, name in enumerate(order):
            at, own = points[name]
            column, row = (int(np.clip(value, 0, _SIDE - 1)) for value in at)
            shown = self.names[parts[row, column]] in own
            found[place] = [at[0] / _FINER, at[1] / _FINER, 2 if shown else 1]
        small = self.colours.resize((_SIDE // _FINER, _SIDE // _FINER), Image.Resampling.BOX)
        pixels = np.array(small)
        grain = rng.normal(0, 6, pixels.shape[:2])[..., None]
        slope = np.linspace(-1, 1, pixels.shape[1])[None, :, None] * rng.uniform(-30, 30)
        pixels[..., :3] = np.clip(pixels[..., :3] + grain + slope, 0, 255)
        image = Image.fromarray(pixels)
        box = image.getchannel("A").getbbox()
        assert box is not None
        found[:, :2] -= box[:2]
        return image.crop(box), found

    def _layers(
        self, part: str, fill: Colour
    ) -> Iterator[tuple[ImageDraw.ImageDraw, tuple[int, ...] | int]]:
        if part not in self.names:
            self.names.append(part)
        yield ImageDraw.Draw(self.colours), (*fill, 255)
        yield ImageDraw.Draw(self.parts), self.names.index(part)


@dataclass(frozen=True)
class _Person:
    index: int
    seed: int

    def __call__(self, rng: np.random.Generator) -> Drawing:
        own = np.random.default_rng([self.seed, 17, self.index])
        skin, hair = _skin(own), _hair(own)
        shirt, trousers, shoes = (_colour(own) for _ in range(3))
        sleeves = bool(own.random() < 0.5)
        unit = _SIDE / 9.5  # a head's height
        build, tall = own.uniform(0.8, 1.25), own.uniform(0.88, 1.08)
        wide = unit * 0.78 * build
        torso, thigh, shin = (unit * tall * share for share in (2.25, 1.55, 1.45))
        upper, lower = unit * tall * 1.2, unit * tall * 1.1
        lean = rng.normal(0, 0.12)
        hips = np.array([_SIDE / 2, _SIDE * 0.53])
        up, side = _direction(math.pi + lean), _direction(math.pi / 2 + lean)
        neck = hips + up * torso
        at: dict[str, np.ndarray] = {}
        # the person's left is on the right of the picture
        for name, sign in (("left", 1), ("right", -1)):
            at[f"{name}_shoulder"] = neck + side * sign * wide
            at[f"{name}_hip"] = hips + side * sign * wide * 0.62
            swing = rng.uniform(-0.2, 2.9) if rng.random() < 0.6 else rng.uniform(-0.1, 0.5)
            bend = rng.uniform(-0.3, 2.3)
            at[f"{name}_elbow"] = at[f"{name}_shoulder"] + _direction(sign * swing) * upper
            at[f"{name}_wrist"] = at[f"{name}_elbow"] + _direction(sign * (swing + bend)) * lower
            step = rng.uniform(-0.15, 0.9)
            kneel = -rng.uniform(0, 1.2) * (rng.random() < 0.6)
            at[f"{name}_knee"] = at[f"{name}_hip"] + _direction(sign * step) * thigh
            at[f"{name}_ankle"] = at[f"{name}_knee"] + _direction(sign * (step + kneel)) * shin
        nod = lean + rng.normal(0, 0.12)
        head = neck + _direction(math.pi + nod) * unit * 0.78
        across, down = _direction(math.pi / 2 + nod), _direction(nod)
        turn = rng.uniform(-0.14, 0.14) * unit
        at["nose"] = head + across * turn * 1.5 + down * unit * 0.08
        for name, sign in (("left", 1), ("right", -1)):
            at[f"{name}_eye"] = head + across * (sign * unit * 0.16 + turn) - down * unit * 0.06
            at[f"{name}_ear"] = head + across * sign * unit * 0.4 + down * unit * 0.02
        sheet, thin = _Sheet(), unit * 0.2 * build
        for name in ("right", "left"):
            hip, knee, ankle = (at[f"{name}_{joint}"] for joint in ("hip", "knee", "ankle"))
            sheet.limb(f"{name} shin", knee, ankle, thin, thin * 0.7, trousers)
            sheet.limb(
                f"{name} foot", ankle, _moved(ankle, 0, thin * 0.6), thin * 0.8, thin * 0.7, shoes
            )
            sheet.limb(f"{name} thigh", hip, knee, thin * 1.4, thin, trousers)
        shoulders, bones = wide * 1.05, wide * 0.75
        corners = [neck + side * shoulders, hips + side * bones, hips - side * bones]
        sheet.polygon("torso", [*corners, neck - side * shoulders], shirt)
        sheet.limb("torso", at["left_shoulder"], at["right_shoulder"], thin, thin, shirt)
        sheet.limb("torso", at["left_hip"], at["right_hip"], thin, thin, trousers)
        sheet.limb("neck", neck, head, thin * 0.8, thin * 0.8, skin)
        for name in ("left", "right"):
            sheet.oval(f"{name} ear", at[f"{name}_ear"], unit * 0.1, unit * 0.14, skin)
        sheet.oval("hair", head - down * unit * 0.1, unit * 0.43, unit * 0.48, hair)
        sheet.oval("head", head + down * unit * 0.05, unit * 0.38, unit * 0.45, skin)
        for name in ("left", "right"):
            sheet.oval("head", at[f"{name}_eye"], unit * 0.05, unit * 0.04, (30, 25, 25))
        sheet.oval("head", at["nose"], unit * 0.05, unit * 0.06, _shade(skin, 0.8))
        mouth = head + across * turn + down * unit * 0.26
        sheet.limb(
            "head", mouth - across * unit * 0.1, mouth + across * unit * 0.1, 3, 3, (150, 50, 60)
        )
        for name in ("right", "left"):
            shoulder, elbow, wrist = (
                at[f"{name}_{joint}"] for joint in ("shoulder", "elbow", "wrist")
            )
            fill = shirt if sleeves else skin
            sheet.limb(f"{name} forearm", elbow, wrist, thin * 0.75, thin * 0.6, fill)
            sheet.oval(f"{name} forearm", wrist, thin * 0.75, thin * 0.75, skin)
            sheet.limb(f"{name} arm", shoulder, elbow, thin * 0.95, thin * 0.75, shirt)
        shows = {
            "shoulder": ("arm",), "elbow": ("arm", "forearm"), "wrist": ("forearm",),
            "hip": ("thigh",), "knee": ("thigh", "shin"), "ankle": ("shin", "foot"),
            "ear": ("ear",),
        }  # fmt: skip
        points: dict[str, tuple[np.ndarray, set[str]]] = {}
        for name, where in at.items():
            own_side, _, joint = name.partition("_")
            shown = {f"{own_side} {part}" for part in shows.get(joint, ())}
            shown |= {"torso"} if joint in ("shoulder", "hip") else set()
            shown |= {"head", "hair"} if joint in ("", "eye", "ear") else set()
            points[name] = (where, shown)
        return sheet.finish(points, PERSON_POINTS, rng)


@dataclass(frozen=True)
class _Face:
    index: int
    seed: int

    def __call__(self, rng: np.random.Generator) -> Drawing:
        own = np.random.default_rng([self.seed, 6, self.index])
        skin, hair, iris = _skin(own), _hair(own), _colour(own)
        rx = _SIDE * own.uniform(0.2, 0.24)
        ry = rx * own.uniform(1.15, 1.45)
        apart, brow = rx * own.uniform(0.38, 0.48), own.uniform(0.02, 0.05) * _SIDE
        smile, long_hair = own.uniform(-0.2, 1), bool(own.random() < 0.4)
        bearded, glasses = bool(own.random() < 0.2), bool(own.random() < 0.2)
        centre = np.array([_SIDE / 2, _SIDE / 2])
        yaw = rng.uniform(-0.42, 0.42) * rx  # how far the features move aside
        pitch = rng.uniform(-0.08, 0.08) * ry
        middle = _moved(centre, yaw, pitch)
        at = {
            "left_eye": _moved(middle, apart * (1 - max(yaw, 0) / rx), -0.15 * ry),
            "right_eye": _moved(middle, -apart * (1 + min(yaw, 0) / rx), -0.15 * ry),
            "nose": _moved(middle, yaw * 0.35, 0.18 * ry),
            "mouth": _moved(middle, 0, 0.52 * ry),
            "left_ear": _moved(centre, rx * 1.02 - yaw * 0.35, 0.02 * ry),
            "right_ear": _moved(centre, -rx * 1.02 - yaw * 0.35, 0.02 * ry),
        }
        sheet = _Sheet()
        if long_hair:
            sheet.oval("hair", _moved(centre, 0, 0.25 * ry), rx * 1.25, ry * 1.25, hair)
        for name in ("left", "right"):
            sheet.oval(f"{name} ear", at[f"{name}_ear"], rx * 0.16, ry * 0.2, _shade(skin, 0.92))
        sheet.oval("hair", centre - [0, 0.22 * ry], rx * 1.1, ry * 0.98, hair)
        sheet.oval("head", _moved(centre, 0, 0.06 * ry), rx, ry * 0.98, skin)
        if bearded:
            sheet.oval("head", _moved(middle, -0.3 * yaw, 0.62 * ry), rx * 0.6,
                       ry * 0.36, hair)  # fmt: skip
        for name in ("left", "right"):
            eye = at[f"{name}_eye"]
            squeeze = 1 - 0.5 * abs(yaw) / rx
            sheet.oval("head", eye, rx * 0.17 * squeeze, rx * 0.1, (240, 240, 235))
            sheet.oval("head", eye, rx * 0.085, rx * 0.09, iris)
            sheet.oval("head", eye, rx * 0.04, rx * 0.045, (15, 15, 15))
            start, end = _moved(eye, -rx * 0.18, -brow * 2), _moved(eye, rx * 0.18, -brow * 2)
            sheet.limb("head", start, end, brow * 0.4, brow * 0.3, _shade(hair, 0.8))
            if glasses:
                radius = rx * 0.24
                box = (*(eye - radius), *(eye + radius))
                sheet.arc("head", box, (0, 360), (40, 40, 40), rx * 0.03)
        top = (at["left_eye"] + at["right_eye"]) / 2
        sheet.limb("head", top, at["nose"], rx * 0.05, rx * 0.11, _shade(skin, 0.88))
        width, open_ = rx * 0.34, rx * 0.05 + rx * 0.1 * rng.random()
        lips = (170, 70, 75)
        sheet.oval("head", at["mouth"], width, open_, lips)
        sheet.oval("head", at["mouth"] - [0, smile * open_ * 0.8], width * 0.9, open_ * 0.6, skin)
        points = {name: (where, {"head"}) for name, where in at.items()}
        for name in ("left_ear", "right_ear"):
            points[name] = (at[name], {name.replace("_", " ")})
        return sheet.finish(points, FACE_POINTS, rng)


def _moved(point: np.ndarray, x: float, y: float) -> np.ndarray:
    return point + np.array([x, y])


def _direction(angle: float) -> np.ndarray:
    """Downwards at 0, to the right of the picture at a quarter turn."""
    return np.array([math.sin(angle), math.cos(angle)])


def _colour(rng: np.random.Generator) -> Colour:
    red, green, blue = rng.integers(20, 236, 3).tolist()
    return red, green, blue


def _skin(rng: np.random.Generator) -> Colour:
    light = rng.uniform(0, 1)
    low, high = np.array([70, 45, 35]), np.array([250, 215, 190])
    red, green, blue = (low + (high - low) * light + rng.uniform(-10, 5, 3)).astype(int).tolist()
    return red, green, blue


def _hair(rng: np.random.Generator) -> Colour:
    choices = ((25, 20, 20), (60, 40, 25), (110, 70, 35), (190, 150, 80), (150, 60, 30))
    return _shade((*choices, (190, 190, 190))[int(rng.integers(6))], rng.uniform(0.85, 1.1))


def _shade(colour: Colour, gain: float) -> Colour:
    red, green, blue = (min(int(channel * gain), 255) for channel in colour)
    return red, green, blue
