"""A picture to the network's input and its logits to labels, as model.json says.

Needs numpy and pillow >= 10.1.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

FOLDER = Path(__file__).resolve().parent
CONTRACT = json.loads((FOLDER / "model.json").read_text(encoding="utf-8"))
RULES = CONTRACT["preprocess"]
FILTER = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}[RULES["interpolation"]]


def decode(path: str) -> Image.Image:
    """The first frame, upright, RGB; transparency on white, sixteen bits cut to the high eight."""
    image = Image.open(path)
    upright = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8)).convert("RGB")
    if upright.has_transparency_data:
        rgba = upright.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        white.alpha_composite(rgba)
        return white.convert("RGB")
    return upright.convert("RGB")


def resize(image: Image.Image) -> Image.Image:
    """RGB to the network's square of pixels."""
    size, (width, height) = RULES["size"], image.size
    if RULES["resize_mode"] == "stretch":
        return image.resize((size, size), FILTER)
    if RULES["resize_mode"] == "crop_fraction":
        left = int((width - width * RULES["crop_fraction"]) / 2)
        top = int((height - height * RULES["crop_fraction"]) / 2)
        return image.crop((left, top, width - left, height - top)).resize((size, size), FILTER)
    shorter = RULES["resize"]
    if width <= height:
        image = image.resize((shorter, int(shorter * height / width)), FILTER)
    else:
        image = image.resize((int(shorter * width / height), shorter), FILTER)
    left, top = (
        round((length - size) / 2) if length >= size else -((size - length) // 2)
        for length in image.size
    )
    return image.crop((left, top, left + size, top + size))


def preprocess(path: str) -> np.ndarray:
    """A picture to the file's input: float32, normalised, or uint8; (1, 3, size, size), or with
    the channels last where the file has it so."""
    found = np.asarray(resize(decode(path)))
    if CONTRACT["artifact"]["input"]["dtype"] != "uint8":
        unit = found.astype(np.float32) / np.float32(255)
        found = (unit - np.array(RULES["mean"], np.float32)) / np.array(RULES["std"], np.float32)
    if CONTRACT["artifact"]["input"]["layout"] != "NHWC":
        found = found.transpose(2, 0, 1)
    return np.ascontiguousarray(found[None])


def answer(path: str, logits: np.ndarray) -> str:
    """One line of JSON: the likeliest five classes of logits (1, classes)."""
    (logits,) = np.asarray(logits, np.float64)
    scores = np.exp(logits - logits.max())
    scores /= scores.sum()
    best = np.argsort(-scores, kind="stable")[:5]
    predictions = [
        {"label": CONTRACT["labels"][index], "score": float(scores[index])} for index in best
    ]
    return json.dumps({"path": path, "predictions": predictions}, ensure_ascii=False)
