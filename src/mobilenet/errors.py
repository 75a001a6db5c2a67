"""The errors a user can cause: each says what was wrong, where, and the mend."""


class MobilenetError(Exception):
    """Base of every error that this package raises on purpose."""


class UsageError(MobilenetError, ValueError):
    """An option or argument that can never work; the command line exits with 2."""


class MissingDependency(MobilenetError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed: "
            f"pip install 'mobilenet[{extra}]'"
        )


class MissingEngine(MissingDependency):
    """The native engine, a compiled part of this package, is not there; `reason` says why."""

    def __init__(self, reason: str) -> None:
        ImportError.__init__(
            self,
            f"the native engine is missing: {reason}; install a C++ compiler, then run "
            "pip install --no-cache-dir --force-reinstall --no-deps mobilenet",
        )
        self.reason = reason


class DataError(MobilenetError):
    """A dataset, or files in it, that cannot be used as they are."""


class WeightsError(MobilenetError):
    """Pretrained weights that cannot be found, fetched, trusted or fitted to the network."""


class CheckpointError(MobilenetError):
    """A run folder or checkpoint that is missing, damaged or of another kind."""


class TrainingError(MobilenetError):
    """Training that cannot go on, such as a loss that is no longer a number."""


class ExportError(MobilenetError):
    """An export that failed, or whose file does not answer as the network does."""
