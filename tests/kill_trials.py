"""Train, kill -9 at a random moment, resume; again and again. Prints the weights' hashes as JSON.

A script, so that torch is imported once and every training is a fork of a process without threads:
kill_trials.py DATA WEIGHTS FOLDER TRIALS
"""

import hashlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

import mobilenet
import mobilenet.train.loop


def train(data: str, weights: str, run: Path) -> None:
    mobilenet.train(
        data,
        out=run,
        model="mobilenet_v1",
        width=0.25,
        size=32,
        weights=weights,
        epochs=4,
        overrides=mobilenet.Overrides(batch_size=8),
        resume=True,
        threads=1,
        workers=0,
    )


def start(data: str, weights: str, run: Path) -> int:
    """Train in a child process and return its number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        train(data, weights, run)
        code = 0
    finally:
        os._exit(code)


def finish(child: int) -> None:
    status = os.waitpid(child, 0)[1]
    if status != 0:
        raise SystemExit(f"a training that nobody killed ended with status {status}")


def weights_sha256(run: Path) -> str:
    return hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()


def main() -> None:
    data, weights, folder, trials = sys.argv[1:]
    torch.set_num_threads(1)
    chance = random.Random(0)
    alone = Path(folder) / "alone"
    train(data, weights, alone)  # here, so that its imports are not repeated in every fork
    again = Path(folder) / "again"
    began = time.perf_counter()
    finish(start(data, weights, again))
    duration = time.perf_counter() - began

    hashes, early = [], 0
    while len(hashes) < int(trials):
        run = Path(folder) / f"trial-{len(hashes):02}-{early}"
        began = time.perf_counter()
        child = start(data, weights, run)
        time.sleep(chance.uniform(0.05, 0.95) * duration)
        os.kill(child, signal.SIGKILL)
        if not os.WIFSIGNALED(os.waitpid(child, 0)[1]):  # it had ended, sooner than the first one
            duration, early = min(duration, time.perf_counter() - began), early + 1
            if early > 2 * int(trials):
                raise SystemExit("most trainings end before they can be killed")
            continue
        finish(start(data, weights, run))
        hashes.append(weights_sha256(run))
    found = {"alone": weights_sha256(alone), "again": weights_sha256(again)}
    print(json.dumps({**found, "resumed": hashes}))


if __name__ == "__main__":
    main()
