"""Progress and plain messages: always on stderr, bars on a terminal, nothing on stdout."""

import io
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr
from typing import TypeVar

T = TypeVar("T")


def say(message: str) -> None:
    """Print one line to stderr."""
    print(message, file=sys.stderr, flush=True)


def track(
    items: Iterable[T], *, total: int | None = None, desc: str, unit: str = "img"
) -> Iterator[T]:
    """Iterate with a progress bar on a terminal, silently otherwise. Needs no package where tqdm
    is missing: then nothing is drawn."""
    if not sys.stderr.isatty():
        yield from items
        return
    try:
        from tqdm import tqdm
    except ImportError:
        yield from items
        return
    yield from tqdm(items, total=total, desc=desc, unit=unit, file=sys.stderr, leave=False)


@contextmanager
def quietly() -> Iterator[None]:
    """Without the remarks of other packages on their own parts: warnings, logs, stderr."""
    import logging  # here: it takes longer to import than all else

    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
