"""Networks for scenes through the verbs: trained, interrupted, measured, asked."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

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
