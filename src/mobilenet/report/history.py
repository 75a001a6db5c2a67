"""What training wrote down: the epochs of `metrics.jsonl`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CheckpointError


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One epoch; losses are means (nats), accuracies fractions, None where not measured."""

    phase: str
    epoch: int
    seconds: float
    lr: float
    train_loss: float | None
    train_top1: float | None
    val_loss: float | None
    val_top1: float | None


def read_epochs(path: Path) -> tuple[Epoch, ...]:
    """The epochs in `path`, in order; none if there is no such file.

    Lines of other kinds are passed over, and so is a line that a crash cut short. An epoch written
    twice counts as last written, since a resumed run may repeat one. Raises CheckpointError, with
    the line, for an epoch whose fields are missing or of another type.
    """
    if not path.exists():
        return ()
    epochs: dict[int, Epoch] = {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if not isinstance(record, dict) or record.get("kind") != "epoch":
            continue
        try:
            epoch = _epoch(record)
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{path}, line {number}: not an epoch of training ({error!r}); "
                "delete the line to go on without it"
            ) from None
        epochs[epoch.epoch] = epoch
    return tuple(epochs[number] for number in sorted(epochs))


def best_epoch(epochs: tuple[Epoch, ...]) -> int | None:
    """The place of the first epoch of the highest validation accuracy; None if never measured."""
    measured = [(e.val_top1, -place) for place, e in enumerate(epochs) if e.val_top1 is not None]
    return -max(measured)[1] if measured else None


def _epoch(record: dict[str, Any]) -> Epoch:
    def optional(name: str) -> float | None:
        return None if record[name] is None else float(record[name])

    return Epoch(
        phase=str(record["phase"]),
        epoch=int(record["epoch"]),
        seconds=float(record["seconds"]),
        lr=float(record["lr"]),
        train_loss=optional("train_loss"),
        train_top1=optional("train_top1"),
        val_loss=optional("val_loss"),
        val_top1=optional("val_top1"),
    )
