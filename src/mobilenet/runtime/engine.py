"""The native engine: opened, and its failures as this package's errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from ..errors import CheckpointError, MissingEngine, UsageError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    from .._engine import Engine, Model


def require_engine() -> ModuleType:
    """The compiled module `mobilenet._engine`. Raises MissingEngine where there is none."""
    try:
        return import_module("mobilenet._engine")
    except ModuleNotFoundError:
        raise MissingEngine(
            "it was not built, as there is no wheel for this machine and no working compiler was "
            "found at installation"
        ) from None
    except ImportError as error:  # built for another system
        raise MissingEngine(f"it cannot be loaded: {error}") from None


def open_model(source: "str | ReadableBuffer") -> "Model":
    """The model in a file, which is mapped, or in memory. Raises CheckpointError for what is no
    engine file or is damaged, MissingEngine."""
    native = require_engine()
    with _errors(native):
        return native.Model(source)


def plan(
    model: "Model",
    *,
    height: int = 0,
    width: int = 0,
    threads: int = 1,
    isa: str | None = None,
) -> "Engine":
    """A model planned for one input size (0: its own) and number of threads.

    `isa` is the highest instruction set to use; None: MOBILENET_ENGINE_ISA of the environment, or
    the best of this machine. Raises UsageError for what cannot be.
    """
    native = require_engine()
    with _errors(native):
        return native.Engine(model, height, width, threads, isa)


def instruction_sets() -> tuple[str, ...]:
    """Those of this machine that the engine knows, best first. Raises MissingEngine."""
    return require_engine().isas()


def instruction_set() -> str:
    """The one of them that is used. Raises UsageError for an unknown MOBILENET_ENGINE_ISA of the
    environment, MissingEngine."""
    native = require_engine()
    with _errors(native):
        return native.isa()


@contextmanager
def _errors(native: ModuleType) -> Iterator[None]:
    try:
        yield
    except native.EngineError as error:
        status, text = error.args
        if status in (native.BAD_FILE, native.IO):
            raise CheckpointError(text) from None
        if status == native.BAD_ARGUMENT:
            raise UsageError(text) from None
        raise MemoryError(text) from None
