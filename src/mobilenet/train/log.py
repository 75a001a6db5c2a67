"""What training writes down: metrics.jsonl, TensorBoard events, and lines or a bar for people."""

import json
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..durable import write_atomically
from ..progress import say

_STEP_SECONDS = 5.0  # between two records of single steps


class MetricsLog:
    """`metrics.jsonl`, rewritten whole and durably, and the same figures for TensorBoard."""

    def __init__(self, run: Path, *, step: int) -> None:
        """Keeps what was written up to `step`; later records are of steps that a crash undid."""
        self._path = run / "metrics.jsonl"
        self._records = [r for r in _read(self._path) if r.get("step", 0) <= step]
        self._last_step_record = time.monotonic()
        self._events = _tensorboard(run, step)

    def epoch(self, record: dict[str, Any]) -> None:
        """Write down an epoch and save the file."""
        self._add({"kind": "epoch", **record})
        self.save()

    def step(self, record: dict[str, Any]) -> None:
        """Write down a step, if the last one was long enough ago; saved with the next epoch."""
        now = time.monotonic()
        if now - self._last_step_record >= _STEP_SECONDS:
            self._last_step_record = now
            self._add({"kind": "step", **record})

    def save(self) -> None:
        """Write the file. Raises CheckpointError where the disk refuses."""
        lines = "".join(json.dumps(record) + "\n" for record in self._records)
        write_atomically(self._path, lines.encode())
        if self._events is not None:
            self._events.flush()

    def close(self) -> None:
        """Close the event file."""
        if self._events is not None:
            self._events.close()

    def _add(self, record: dict[str, Any]) -> None:
        self._records.append(record)
        if self._events is None:
            return
        for name, value in record.items():
            if isinstance(value, float):
                self._events.add_scalar(f"{record['kind']}/{name}", value, record["step"])


def _read(path: Path) -> list[dict[str, Any]]:
    """Whole records; a line that is none is dropped."""
    records: list[dict[str, Any]] = []
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError):
                record = json.loads(line)
                if isinstance(record, dict):
                    records.append(record)
    return records


def _tensorboard(run: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        say("TensorBoard events are not written: pip install tensorboard")
        return None
    return SummaryWriter(str(run), purge_step=step + 1 if step else None)


class Bar:
    """A bar on a terminal with the time left, and figures; else nothing."""

    def __init__(self, description: str, *, done: float) -> None:
        self._bar: Any = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                total=1000,
                initial=int(1000 * done),
                desc=description,
                bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining} {postfix}",
                file=sys.stderr,
                leave=False,
            )

    def update(self, progress: float, said: str) -> None:
        """`progress` 0 to 1, and what is said beside it."""
        if self._bar is not None:
            self._bar.n = min(int(1000 * progress), 1000)
            self._bar.set_postfix_str(said, refresh=False)
            self._bar.update(0)
            self._bar.refresh()

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
