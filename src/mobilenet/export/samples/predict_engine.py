"""Predict with the model in this folder: python predict.py IMAGE ...

Needs mobilenet (pip install mobilenet), which brings the native engine; torch is not needed.
Prints one line of JSON an image.
"""

import json
import sys
from pathlib import Path

from mobilenet import load


def main() -> None:
    model = load(Path(__file__).resolve().parent, threads=1)
    for path in sys.argv[1:]:
        (found,) = model.predict([path], top=5)
        predictions = [{"label": best.label, "score": best.score} for best in found]
        print(json.dumps({"path": path, "predictions": predictions}, ensure_ascii=False))


if __name__ == "__main__":
    main()
