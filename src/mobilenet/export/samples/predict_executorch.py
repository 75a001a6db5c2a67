"""Predict with the model in this folder: python predict.py IMAGE ...

Needs numpy, pillow >= 10.1, torch and executorch. picture.py beside this file makes a picture the
network's input as model.json says; prints one line of JSON an image.
"""

import sys

import torch
from executorch.runtime import Runtime
from picture import CONTRACT, FOLDER, answer, preprocess


def main() -> None:
    program = Runtime.get().load_program(FOLDER / CONTRACT["artifact"]["file"])
    method = program.load_method("forward")
    for path in sys.argv[1:]:
        (logits,) = method.execute([torch.from_numpy(preprocess(path))])
        print(answer(path, logits.numpy()))


if __name__ == "__main__":
    main()
