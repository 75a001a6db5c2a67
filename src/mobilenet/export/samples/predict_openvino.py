"""Predict with the model in this folder: python predict.py IMAGE ...

Needs numpy, pillow >= 10.1 and openvino. picture.py beside this file makes a picture the
network's input as model.json says; prints one line of JSON an image.
"""

import sys
from pathlib import Path

import openvino
from picture import CONTRACT, FOLDER, answer, preprocess


def settings() -> dict[str, str]:
    """For the CPU: else it computes in bfloat16 where it can and, in int8 without VNNI, with sums
    that saturate at 16 bits."""
    chosen = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    cpu = Path("/proc/cpuinfo")
    flags = cpu.read_text() if cpu.exists() else ""
    if "avx" in flags and "vnni" not in flags:
        chosen["LP_TRANSFORMS_MODE"] = "NO"
    return chosen


def main() -> None:
    model = openvino.Core().compile_model(FOLDER / CONTRACT["artifact"]["file"], "CPU", settings())
    for path in sys.argv[1:]:
        print(answer(path, model(preprocess(path))[0]))


if __name__ == "__main__":
    main()
