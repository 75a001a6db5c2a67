"""Predict with the model in this folder: python predict.py IMAGE ...

Needs numpy, pillow >= 10.1 and ncnn. picture.py beside this file makes a picture the network's
input as model.json says; prints one line of JSON an image.
"""

import sys

import ncnn
import numpy as np
from picture import FOLDER, answer, preprocess


def main() -> None:
    net = ncnn.Net()
    for option in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
        setattr(net.opt, f"use_{option}", False)  # else half precision on ARM
    net.load_param(str(FOLDER / "model.param"))
    net.load_model(str(FOLDER / "model.bin"))
    for path in sys.argv[1:]:
        image = preprocess(path)[0]  # the tensor reads it in place
        extractor = net.create_extractor()
        extractor.input("in0", ncnn.Mat(image))
        _, logits = extractor.extract("out0")
        print(answer(path, np.array(logits)[None]))


if __name__ == "__main__":
    main()
