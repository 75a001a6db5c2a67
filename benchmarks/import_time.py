"""How long it takes to start: `import mobilenet` and `mobilenet --help`, as whole processes.

    python benchmarks/import_time.py

Each command is run once to warm the disk cache, then in turn with the others. A bare interpreter
and one that imports what the package cannot do without are timed beside it: the rest is ours.
Prints medians in milliseconds as JSON; exits with 1 where one is over its limit.
"""

import json
import statistics
import subprocess
import sys
import time

RUNS = 15
COMMANDS = {
    "python": ("-c", "pass"),
    "import numpy, PIL.Image": ("-c", "import numpy, PIL.Image"),
    "import mobilenet": ("-c", "import mobilenet"),
    "mobilenet --help": ("-m", "mobilenet.cli", "--help"),
}
LIMITS = {"import mobilenet": 300.0, "mobilenet --help": 500.0}  # ms


def milliseconds(arguments: tuple[str, ...]) -> float:
    """The wall time of one process."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return 1e3 * (time.perf_counter() - start)


def main() -> int:
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for turn in range(RUNS + 1):
        for name, arguments in COMMANDS.items():
            time_taken = milliseconds(arguments)
            if turn:
                taken[name].append(time_taken)
    medians = {name: round(statistics.median(times), 1) for name, times in taken.items()}
    print(json.dumps({"runs": RUNS, "median_ms": medians, "limit_ms": LIMITS}, indent=2))
    return int(any(medians[name] > limit for name, limit in LIMITS.items()))


if __name__ == "__main__":
    sys.exit(main())
