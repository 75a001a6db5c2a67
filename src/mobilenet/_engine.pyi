"""The native engine: engine/include/mobilenet.h on NumPy arrays. Built by pip where it can be."""

from typing import Final

import numpy as np
from _typeshed import ReadableBuffer
from numpy.typing import NDArray

__version__: str
BAD_FILE: Final[int]
BAD_ARGUMENT: Final[int]
NO_MEMORY: Final[int]
IO: Final[int]

class EngineError(Exception):
    """A call that failed: `args` are its status, one of the numbers above, and what was wrong."""

    args: tuple[int, str]

class Model:
    """A model file, checked: the path of one, which is mapped, or the bytes of one."""

    def __init__(self, source: str | ReadableBuffer) -> None: ...
    @property
    def precision(self) -> str: ...
    @property
    def contract(self) -> str: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...

class Engine:
    """A model planned for one input size; 0 is the size of the file, None the best there is."""

    def __init__(
        self,
        model: Model,
        height: int = 0,
        width: int = 0,
        threads: int = 1,
        isa: str | None = None,
    ) -> None: ...
    def run(self, images: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Images (N, 3, H, W), C-contiguous, to every output (N, C, H, W)."""

    def profile(
        self, images: NDArray[np.float32], runs: int
    ) -> list[tuple[int, str, float, float, float]]: ...
    def peak(self) -> float: ...
    @property
    def arena_bytes(self) -> int: ...
    @property
    def isa(self) -> str: ...
    @property
    def outputs(self) -> dict[str, tuple[int, int, int]]:
        """Channels, height and width by name."""

def isas() -> tuple[str, ...]:
    """The instruction sets that this machine runs, best first."""

def isa() -> str:
    """The one of them that an engine uses: the best, or as MOBILENET_ENGINE_ISA says."""

def checksum(data: bytes) -> int:
    """XXH64 with seed 0."""

def prepare(engine: Engine, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """An RGB picture (H, W, 3) to one image (3, H, W) of the engine's input."""
