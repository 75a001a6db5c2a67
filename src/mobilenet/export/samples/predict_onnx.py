"""Predict with the model in this folder: python predict.py IMAGE ...

Needs numpy, pillow >= 10.1 and onnxruntime. picture.py beside this file makes a picture the
network's input as model.json says; prints one line of JSON an image.
"""

import sys

import onnxruntime
from picture import CONTRACT, FOLDER, answer, preprocess


def main() -> None:
    options = onnxruntime.SessionOptions()
    # int8 on a CPU without VNNI: exact sums instead of saturating ones
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(
        FOLDER / CONTRACT["artifact"]["file"], options, providers=["CPUExecutionProvider"]
    )
    name = CONTRACT["artifact"]["input"]["name"]
    for path in sys.argv[1:]:
        print(answer(path, session.run(None, {name: preprocess(path)})[0]))


if __name__ == "__main__":
    main()
