"""What runs in a browser: the page, its scripts, and the engine compiled to WebAssembly.

`make engine-wasm` puts `mobilenet.wasm` beside this file; it is built, never a part of the sources.
"""

import os
from importlib.resources import files
from pathlib import Path

from ..errors import MissingEngine

ENGINE = "mobilenet.wasm"
PAGE = ("index.html", "app.js", "mobilenet.js", "check.mjs")
VARIABLE = "MOBILENET_WASM"


def asset(name: str) -> bytes:
    """One of the page's files, as it is."""
    return (files(__name__) / name).read_bytes()


def web_engine() -> bytes:
    """The engine for browsers: the file that $MOBILENET_WASM names, or the one that was built here.

    Raises MissingWebEngine where there is none.
    """
    named = os.environ.get(VARIABLE)
    path = Path(named) if named else Path(str(files(__name__) / ENGINE))
    try:
        data = path.read_bytes()
    except OSError:
        raise MissingWebEngine(path) from None
    if not data.startswith(b"\0asm"):
        raise MissingWebEngine(path)
    return data


class MissingWebEngine(MissingEngine):
    """`mobilenet.wasm` was not built."""

    def __init__(self, path: Path) -> None:
        ImportError.__init__(
            self,
            f"the engine for browsers is missing: there is no {path}; build it in the sources of "
            f"this package (apt install emscripten, then make engine-wasm), or name a built "
            f"{ENGINE} in the environment variable {VARIABLE}",
        )
        self.reason = "it was not built"
