"""mobilenet: a folder of images in; a small, fast, proven vision model out.

Every verb of the command line is a function of the same name here, with the same options.
"""

from .benchmark import benchmark
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
from .info import info
from .models import MODELS, ModelSpec, create
from .predict import predict
from .preprocess import Preprocess, preprocess
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
    "create",
    "doctor",
    "evaluate",
    "export",
    "info",
    "load",
    "predict",
    "preprocess",
    "train",
    "verify",
]
