"""Ctrl-C and SIGTERM during training: what was learned is saved first."""

import signal
import threading
from typing import Any

from ..progress import say


class PoliteStop:
    """The first Ctrl-C or SIGTERM ends training behind the current step, the second at once."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: object) -> None:
        if self._stop.is_set():
            raise KeyboardInterrupt
        say("stopping behind this step; again to stop at once")
        self._stop.set()
