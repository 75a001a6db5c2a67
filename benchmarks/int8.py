"""What int8 costs in accuracy, by quantiser: measures, and writes the tables of docs/int8.md.

    python benchmarks/int8.py [--subject v2 ...] [--method nncf-mixed ...]

Every quantiser is given the same calibration pictures and measured on the same others: ImageNet's
MobileNetV2 on photographs, six networks trained on Fashion-MNIST, and these again made hostile on
purpose. The quantisers take minutes, the repairs of 13 networks hours. runs/int8.sh makes what is
needed and starts this.

What was measured is kept in .cache/bench/int8, of each network's weights and each method: started
again it goes on. --page writes the tables of what is there; --fresh forgets what it is to measure.
"""

import argparse
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import int8_page
import numpy as np
import torch
from engine import Store
from engine_page import describe_machine
from engine_subjects import versions
from int8_peers import METHODS, Options, cosine
from int8_subjects import Opened, Subject, open_subject, subjects

from mobilenet.errors import MobilenetError
from mobilenet.evaluate import collect_logits
from mobilenet.evaluate.model import Forward
from mobilenet.progress import say
from mobilenet.runtime import Floats

ROOT = Path(__file__).parent.parent
CACHE = ROOT / ".cache" / "bench" / "int8"
PICTURES = 512
FLOAT = "float"
_BATCH, _READERS = 8, 1


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One network by one method, FLOAT among them."""

    subject: Subject
    method: str

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.subject.name}-{self.method}"


def plan(chosen: Iterable[Subject], methods: Iterable[str]) -> list[Cell]:
    """What is measured, the quick before the slow; the float network first."""
    found = []
    subjects, methods = list(chosen), set(methods)
    for late in sorted({method.late for method in METHODS.values()}):
        for subject in subjects:
            found += [Cell(subject=subject, method=FLOAT)] * (late == 0)
            found += [
                Cell(subject=subject, method=name)
                for name, method in METHODS.items()
                if name in methods and method.late == late and subject.part in method.parts
            ]
    return found


class Bench:
    """Cells measured, or found where they were before."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.store = Store(options.cache / "cells", "1")
        self.opened: Opened | None = None

    def open(self, subject: Subject) -> Opened:
        """The subject; that of the last call is kept open."""
        if self.opened is None or self.opened.subject != subject:
            self.opened = open_subject(
                subject, pictures=self.options.pictures, limit=self.options.limit
            )
        return self.opened

    def measure(self, cell: Cell) -> dict[str, Any]:
        """What there is of a cell, else what it gives now. Raises MobilenetError."""
        opened = self.open(cell.subject)
        settings = self.settings(opened)
        found = None if self.options.fresh else self.store.read(cell.name, settings)
        if found is None:
            say(f"{cell.subject.title}: {cell.method}")
            found = self.floats(opened)[1] if cell.method == FLOAT else self.quantised(opened, cell)
            self.store.write(cell.name, settings, found)
        return found

    def settings(self, opened: Opened) -> list[Any]:
        """What a cell's numbers depend on."""
        return [opened.weights, opened.pictures, opened.limit]

    def floats(self, opened: Opened) -> tuple[Floats, dict[str, Any]]:
        """The float network's logits (N, classes), which are kept beside its cell."""
        path = self.options.cache / f"{opened.subject.name}-{opened.weights[:16]}.npz"
        split, labels = opened.measured
        start = time.perf_counter()
        logits = np.load(path)["logits"] if path.exists() else None
        if logits is None or len(logits) != len(split):
            logits = self.answers(opened, opened.model.forward)
            np.savez(path, logits=logits)
        cell = self.described(opened, FLOAT, logits, logits, (0.0, time.perf_counter() - start))
        return logits, {**cell, "labels": None if labels is None else labels.tolist()}

    def quantised(self, opened: Opened, cell: Cell) -> dict[str, Any]:
        """A method's cell."""
        wanted, _ = self.floats(opened)
        options = Options(
            folder=self.options.cache / "int8",
            threads=self.options.threads,
            train_minutes=self.options.train_minutes,
        )
        start = time.perf_counter()
        forward = METHODS[cell.method].make(opened, options)
        made = time.perf_counter()
        logits = self.answers(opened, forward)
        seconds = (made - start, time.perf_counter() - made)
        return self.described(opened, cell.method, logits, wanted, seconds)

    def answers(self, opened: Opened, forward: Forward) -> Floats:
        """Logits of all pictures that are measured on."""
        split, _ = opened.measured
        contract = opened.source.preprocess
        return collect_logits(forward, split, contract, batch_size=_BATCH, workers=_READERS)[0]

    def described(
        self,
        opened: Opened,
        method: str,
        logits: Floats,
        wanted: Floats,
        seconds: tuple[float, float],
    ) -> dict[str, Any]:
        """A cell as JSON."""
        return {
            "subject": opened.subject.name,
            "title": opened.subject.title,
            "part": opened.subject.part,
            "method": method,
            "size": opened.source.preprocess.size,
            "pictures": opened.pictures,
            "first": logits.argmax(axis=1).tolist(),
            "cosine": cosine(logits, wanted),
            "seconds_to_make": round(seconds[0], 1),
            "seconds_to_answer": round(seconds[1], 1),
            "threads": self.options.threads,
            "train_minutes": self.options.train_minutes,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        }


def measure_all(bench: Bench, cells: list[Cell]) -> dict[str, str]:
    """Measure what is not there yet. Gives what failed, and why."""
    failures = {}
    for index, cell in enumerate(cells):
        try:
            bench.measure(cell)
        except (MobilenetError, ValueError, RuntimeError) as error:
            failures[cell.name] = str(error)
            say(f"{index + 1} of {len(cells)}, {cell.name}: {error}")
    return failures


def kept(bench: Bench, cells: list[Cell]) -> Iterator[dict[str, Any]]:
    """Cells that were measured before, on what the float network was last measured on."""
    for cell in cells:
        real = Cell(subject=cell.subject, method=FLOAT)
        paths = [bench.store.folder / f"{one.name}.json" for one in (cell, real)]
        if not all(path.exists() for path in paths):
            continue
        of, wanted = (int8_page.read_settings(path) for path in paths)
        if of == wanted:
            yield {**int8_page.read_cell(paths[0]), "weights": of[0][:16]}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--subject", action="append", help="one of them; without it all")
    parser.add_argument("--method", action="append", choices=METHODS, help="without it all")
    parser.add_argument("--pictures", type=int, default=PICTURES, help="to calibrate with")
    parser.add_argument("--limit", type=int, default=None, help="measure on so many only")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--train-minutes", type=float, default=5.0, help="of distillation")
    parser.add_argument("--runs", type=Path, default=CACHE / "runs", help="trained networks")
    parser.add_argument("--photographs", type=Path, default=CACHE / "photographs")
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "int8.md")
    parser.add_argument("--page", action="store_true", help="measure nothing")
    parser.add_argument("--fresh", action="store_true", help="use nothing measured earlier")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    there = subjects(options.runs, options.photographs)
    if unknown := set(options.subject or ()) - {one.name for one in there}:
        say(f"{', '.join(sorted(unknown))}: expected of {', '.join(one.name for one in there)}")
        return 2
    bench = Bench(options)
    failures: dict[str, str] = {}
    chosen = [one for one in there if options.subject is None or one.name in options.subject]
    complete = options.page
    if not options.page:
        try:
            failures = measure_all(bench, plan(chosen, options.method or METHODS))
            complete = True
        except KeyboardInterrupt:
            say("interrupted: started again it goes on from here")
    # the page is of all that was ever measured, what this call was not asked for included
    earlier = int8_page.read_rows(options.out.with_suffix(".json"))
    now = int8_page.rows_of(kept(bench, plan(there, METHODS)))
    if rows := int8_page.merged(earlier, now):
        int8_page.write(
            int8_page.Results(
                rows=rows, failures=failures, machine=describe_machine(), versions=versions()
            ),
            options.out,
        )
        say(f"wrote {options.out}")
    return int(bool(failures)) if complete else 130


if __name__ == "__main__":
    sys.exit(main())
