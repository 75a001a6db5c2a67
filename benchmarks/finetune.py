"""Accuracy at time: MobileNetV2 from ImageNet weights on all of Fashion-MNIST at 96 pixels.

Prints the test accuracy after each budget of minutes with its interval, and the conditions.
"""

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path

import mobilenet
from mobilenet.runtime import inspect_machine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, nargs="+", default=[2.5, 5.0])
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    rows = []
    for minutes in options.minutes:
        with tempfile.TemporaryDirectory() as folder:
            result = mobilenet.train(
                "fashion-mnist",
                out=Path(folder) / "run",
                model="mobilenet_v2",
                size=96,
                minutes=minutes,
                threads=options.threads,
                seed=options.seed,
            )
        top1 = result.evaluation.metrics.top1
        rows.append(
            {
                "minutes": minutes,
                "seconds_learning": round(result.seconds, 1),
                "top1": top1.value,
                "low": top1.low,
                "high": top1.high,
                "n": result.evaluation.metrics.n,
            }
        )
    conditions = {"seed": options.seed, "threads": options.threads, **asdict(inspect_machine())}
    if options.json:
        print(json.dumps({"conditions": conditions, "results": rows}, indent=2))
        return
    for row in rows:
        print(
            f"{row['minutes']:g} minutes: {100 * row['top1']:.2f} % of {row['n']} test pictures "
            f"({100 * row['low']:.2f} to {100 * row['high']:.2f} with 95 % confidence), "
            f"{row['seconds_learning']} s of learning"
        )
    print(f"{conditions['cpu']}, {len(conditions['affinity'])} cores, load {conditions['load']}")


if __name__ == "__main__":
    main()
