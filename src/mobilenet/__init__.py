"""mobilenet: a folder of images in; a small, fast, proven vision model out.

Every verb of the command line is a function of the same name here, with the same options (`import`,
a name that Python keeps for itself, is `import_model`). Names are imported when they are first
used, so that importing the package costs next to nothing.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .benchmark import benchmark
    from .compose import compose
    from .doctor import doctor
    from .errors import (
        CheckpointError,
        DataError,
        ExportError,
        MissingDependency,
        MobilenetError,
        TrainingError,
        UsageError,
        WeightsError,
    )
    from .evaluate import evaluate
    from .export import export
    from .import_model import import_model
    from .info import info
    from .models import MODELS, ModelSpec, create
    from .predict import predict
    from .preprocess import Preprocess, preprocess
    from .quantize import quantize
    from .recipes import RECIPES, Overrides, Recipe
    from .runtime import load
    from .train import train
    from .verify import verify

__version__ = "0.1.0"

__all__ = [
    "MODELS",
    "RECIPES",
    "CheckpointError",
    "DataError",
    "ExportError",
    "MissingDependency",
    "MobilenetError",
    "ModelSpec",
    "Overrides",
    "Preprocess",
    "Recipe",
    "TrainingError",
    "UsageError",
    "WeightsError",
    "benchmark",
    "compose",
    "create",
    "doctor",
    "evaluate",
    "export",
    "import_model",
    "info",
    "load",
    "predict",
    "preprocess",
    "quantize",
    "train",
    "verify",
]

# Functions that live in a module of the same name
_VERBS = frozenset(
    [
        "benchmark",
        "compose",
        "doctor",
        "evaluate",
        "export",
        "import_model",
        "info",
        "predict",
        "preprocess",
        "quantize",
        "train",
        "verify",
    ]
)
_HOMES = {
    **{name: name for name in _VERBS},
    **{name: "errors" for name in __all__ if name.endswith(("Error", "Dependency"))},
    "MODELS": "models",
    "ModelSpec": "models",
    "create": "models",
    "Preprocess": "preprocess",
    "RECIPES": "recipes",
    "Overrides": "recipes",
    "Recipe": "recipes",
    "load": "runtime",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """This package: whoever imports `mobilenet.train`, `mobilenet.train` is the function."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _VERBS and isinstance(value, ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
