"""Who is timed: each runtime in its best configuration, if its answers are right."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from ..errors import MobilenetError
from ..runtime import Floats, Precision, Session
from ..runtime.timing import time_in_turns

# how far a runtime may be from float32 PyTorch: the largest error of a logit over the largest
# logit, and where arithmetic is of fewer bits the cosine between all logits. That of int8 finds
# gross errors only: a network with random weights answers much alike to all images, and every
# quantiser's rounding is as large as what is left (0.78 to 0.98 was seen).
FLOAT32_ERROR = 1e-3
COSINES: Mapping[Precision, float] = {"bfloat16": 0.98, "float16": 0.99, "int8": 0.7}

_ROUNDS, _RUNS = 4, 10  # to choose between a runtime's configurations


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A runtime that can be timed. `max_error` of a logit and `cosine` of all are against float32
    PyTorch; `doubt` says what is wrong with them, if anything is. `tried` gives the median of every
    configuration in milliseconds where there was more than one."""

    session: Session
    configuration: str
    max_error: float
    cosine: float
    doubt: str | None
    tried: Mapping[str, float]


class Entry(Protocol):
    """What is timed, of whatever task; see `Subject` and `SceneSubject`."""

    @property
    def batch(self) -> int: ...

    @property
    def inputs(self) -> Floats: ...

    @property
    def expected(self) -> Floats: ...

    def answers(self, session: Session) -> Floats:
        """What a session answers to the inputs, as `expected` is."""
        ...

    def configurations(
        self, runtime: str, precision: Precision
    ) -> Mapping[str, Callable[[int], Session]]:
        """The ways in which a runtime may run this, by name, each with so many threads."""
        ...


class WrongAnswers(MobilenetError):
    """A runtime whose answers are so wrong that its time means nothing."""


def enter(
    subject: Entry, runtime: str, *, threads: int, precision: Precision
) -> tuple[Contender, dict[str, str]]:
    """The fastest of a runtime's configurations, timed for a moment, and why others failed.

    Raises the first one's error where none can be run, WrongAnswers where the answers are no
    logits of this network or, in float32, not the same.
    """
    entrants: dict[str, Contender] = {}
    failures: dict[str, MobilenetError] = {}
    for name, opening in subject.configurations(runtime, precision).items():
        try:
            entrants[name] = judge(subject, opening(threads), name, precision)
        except MobilenetError as error:
            failures[name] = error
    if not entrants:
        raise next(iter(failures.values()))
    skipped = {f"{runtime}, {name}": str(error) for name, error in failures.items()}
    if len(entrants) == 1:
        return next(iter(entrants.values())), skipped
    sessions = {name: entrant.session for name, entrant in entrants.items()}
    runs = max(1, _RUNS // subject.batch)
    taken = time_in_turns(sessions, subject.inputs, rounds=_ROUNDS, runs=runs)
    tried = {name: float(np.median(times)) for name, times in taken.items()}
    return replace(entrants[min(tried, key=tried.__getitem__)], tried=tried), skipped


def judge(subject: Entry, session: Session, configuration: str, precision: Precision) -> Contender:
    """A session that has answered the subject's images. Raises WrongAnswers."""
    found, expected = subject.answers(session), subject.expected
    if found.shape != expected.shape:
        raise WrongAnswers(f"shape {found.shape}, expected {expected.shape}")
    if not np.isfinite(found).all():
        raise WrongAnswers("answers that are no finite numbers")
    error, largest = float(np.abs(found - expected).max()), float(np.abs(expected).max())
    cosine = _cosine(found, expected)
    doubt = None
    if precision != "float32":
        if cosine < COSINES[precision]:
            doubt = f"cosine {cosine:.4f} with the reference, expected {COSINES[precision]}"
    elif error > FLOAT32_ERROR * largest:
        raise WrongAnswers(f"answers differ by up to {error:.3g}, the largest being {largest:.3g}")
    return Contender(
        session=session,
        configuration=configuration,
        max_error=error,
        cosine=cosine,
        doubt=doubt,
        tried={},
    )


def _cosine(found: Floats, expected: Floats) -> float:
    lengths = float(np.linalg.norm(found) * np.linalg.norm(expected))
    return float((found * expected).sum() / lengths) if lengths else 1.0
