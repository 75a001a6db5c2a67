"""Detection and segmentation in the same minutes: `mobilenet train` beside torchvision's modules.

    python benchmarks/scenes.py DATA [--task detect] [--minutes 25] [--seeds 0 1 2]

Both begin from the same ImageNet MobileNetV2, see the same training scenes, and are measured by the
same metric on the same held-out objects. They learn at the same time, each with half of the cores,
so that whatever else the machine does slows both. What was measured is kept in .cache/bench/scenes;
--page writes the table and the curves into docs/tasks.md and docs/tasks.svg.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import scenes_page
from scenes_peers import NETWORKS

from mobilenet.runtime import inspect_machine, usable_cores

ROOT = Path(__file__).parent.parent
SIZE = 320


def ours(run: Path, task: str, minutes: float, seed: int) -> dict[str, object]:
    """The result of a finished run, as `scenes_peers.train` gives it."""
    contract = json.loads((run / "model.json").read_text())
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    epochs = [record for record in records if record["kind"] == "epoch"]
    evaluation = json.loads((run / "evaluation.json").read_text())
    primary = evaluation["primary"]
    figures = {
        name: value
        for name, value in evaluation.items()
        if name not in ("task", "n", "per_class", "primary", "interval", "conditions")
    }
    return {
        "side": "mobilenet",
        "task": task,
        "minutes": minutes,
        "seed": seed,
        "pictures": contract["provenance"]["steps"]
        * contract["provenance"]["options"]["recipe"]["batch_size"],
        "figures": figures,
        "interval": evaluation["interval"],
        "curve": [
            [record["seconds"] / 60, record[f"val_{primary}"]]
            for record in epochs
            if f"val_{primary}" in record
        ],
        "n": evaluation["n"],
    }


def pair(data: str, task: str, minutes: float, seed: int, cache: Path) -> None:
    """Train both at the same time and keep both results."""
    name = f"{task}-{minutes:g}min-seed{seed}"
    threads = max(usable_cores() // 2, 1)
    results = {side: cache / f"{name}-{side}.json" for side in ("mobilenet", "torchvision")}
    if all(path.exists() for path in results.values()):
        return
    run = cache / f"{name}-run"
    log = (cache / f"{name}.log").open("w")
    shared = [str(minutes), str(SIZE), str(seed), str(threads)]
    peer = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("scenes_peers.py")), task, data, *shared,
         str(results["torchvision"])],
        stderr=log,
    )  # fmt: skip
    verb = [sys.executable, "-m", "mobilenet.cli"]
    options = ["--minutes", shared[0], "--size", shared[1], "--seed", shared[2]]
    try:
        subprocess.run(
            [*verb, "train", data, "--model", NETWORKS[task], "--out", str(run), *options,
             "--threads", shared[3], "--workers", shared[3]],
            check=True,
            stderr=log,
            stdout=log,
        )  # fmt: skip
        found = subprocess.run(
            [*verb, "evaluate", str(run), data, "--json"], check=True, capture_output=True
        )
        (run / "evaluation.json").write_bytes(found.stdout)
        if peer.wait() != 0:
            raise SystemExit(f"torchvision's side failed: see {log.name}")
    finally:
        peer.terminate()
    conditions = {"threads_each": threads, **asdict(inspect_machine())}
    for side, path in results.items():
        result = (
            ours(run, task, minutes, seed) if side == "mobilenet" else json.loads(path.read_text())
        )
        path.write_text(json.dumps({**result, "conditions": conditions}, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="?")
    parser.add_argument("--task", choices=sorted(NETWORKS), action="append")
    parser.add_argument("--minutes", type=float, default=25.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "bench" / "scenes")
    parser.add_argument("--page", action="store_true")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    if options.data is not None:
        for seed in options.seeds:
            for task in options.task or sorted(NETWORKS):
                pair(options.data, task, options.minutes, seed, options.cache)
    elif not options.page:
        parser.error("give DATA, or --page")
    if options.page:
        scenes_page.write(options.cache, ROOT / "docs")


if __name__ == "__main__":
    main()
