"""Progress and plain messages: always on stderr, bars on a terminal, nothing on stdout."""

import sys
from collections.abc import Iterable, Iterator
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
