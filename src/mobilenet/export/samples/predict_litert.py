"""Predict with the model in this folder: python predict.py IMAGE ...

Needs numpy, pillow >= 10.1 and ai-edge-litert. picture.py beside this file makes a picture the
network's input as model.json says; prints one line of JSON an image.
"""

import sys

from ai_edge_litert.interpreter import Interpreter
from picture import CONTRACT, FOLDER, answer, preprocess


def main() -> None:
    interpreter = Interpreter(str(FOLDER / CONTRACT["artifact"]["file"]), num_threads=1)
    run = interpreter.get_signature_runner("serving_default")
    for path in sys.argv[1:]:
        print(answer(path, run(image=preprocess(path))["logits"]))


if __name__ == "__main__":
    main()
