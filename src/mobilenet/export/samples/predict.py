"""Predict with the model in this folder: python predict.py IMAGE ...

Needs numpy, pillow >= 10.1 and onnxruntime. Follows model.json, which says how a picture becomes
the network's input; prints one line of JSON an image.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
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
    """A picture to float32 (1, 3, size, size)."""
    pixels = np.asarray(resize(decode(path)), np.float32) / np.float32(255)
    normal = (pixels - np.array(RULES["mean"], np.float32)) / np.array(RULES["std"], np.float32)
    return np.ascontiguousarray(normal.transpose(2, 0, 1)[None])


def main() -> None:
    options = onnxruntime.SessionOptions()
    # int8 on a CPU without VNNI: exact sums instead of saturating ones
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(
        FOLDER / CONTRACT["artifact"]["file"], options, providers=["CPUExecutionProvider"]
    )
    name = CONTRACT["artifact"]["input"]["name"]
    for path in sys.argv[1:]:
        (logits,) = np.asarray(session.run(None, {name: preprocess(path)})[0], np.float64)
        scores = np.exp(logits - logits.max())
        scores /= scores.sum()
        best = np.argsort(-scores, kind="stable")[:5]
        predictions = [
            {"label": CONTRACT["labels"][index], "score": float(scores[index])} for index in best
        ]
        print(json.dumps({"path": path, "predictions": predictions}, ensure_ascii=False))


if __name__ == "__main__":
    main()
