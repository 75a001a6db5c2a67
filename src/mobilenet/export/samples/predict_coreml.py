"""Predict with the model in this folder, on a Mac: python predict.py IMAGE ...

Needs macOS, numpy, pillow >= 10.1 and coremltools. picture.py beside this file makes a picture the
network's input as model.json says; prints one line of JSON an image.
"""

import sys

import coremltools
import numpy as np
from picture import CONTRACT, FOLDER, answer, preprocess
from PIL import Image


def main() -> None:
    model = coremltools.models.MLModel(str(FOLDER / CONTRACT["artifact"]["package"]))
    for path in sys.argv[1:]:
        given = preprocess(path)
        if given.dtype == np.uint8:  # the file is an image classifier with labels of its own
            picture = Image.fromarray(np.ascontiguousarray(given[0].transpose(1, 2, 0)))
            scores = model.predict({"image": picture})["classLabel_probs"]
            found = np.log([[max(scores[label], 1e-38) for label in CONTRACT["labels"]]])
        else:
            found = model.predict({"image": given})["logits"]
        print(answer(path, found))


if __name__ == "__main__":
    main()
