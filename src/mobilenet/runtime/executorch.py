"""ExecuTorch: a .pte file as a session, with XNNPACK."""

import warnings
from importlib.metadata import version
from typing import Any

from ..errors import CheckpointError, MissingDependency, UsageError
from .pixels import to_pixels
from .sessions import Data, Floats, Precision, Session, one_by_one


def open_file(data: Data, *, threads: int, precision: Precision, batch: int | None) -> Session:
    """Open a .pte file, which takes one image at a time; `run` takes any number.

    There is one pool of threads a process: the last file that was opened sets their number. Raises
    UsageError for another batch than 1, CheckpointError for bytes that are no program.
    """
    if batch not in (None, 1):
        raise UsageError(f"executorch: the file takes no batch of {batch}")
    if precision not in ("float32", "int8"):
        raise UsageError(f"executorch: XNNPACK has no {precision} convolution here")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that its interface may change
        try:
            import torch
            from executorch.extension.pybindings import (  # pyright: ignore[reportMissingImports]
                portable_lib,
            )
            from executorch.runtime import Runtime  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise MissingDependency("executorch", "executorch", "running a .pte file") from None
        portable_lib._unsafe_reset_threadpool(threads)
        kept = bytes(data)  # the program reads it in place
        try:
            program: Any = Runtime.get().load_program(kept)
            method = program.load_method("forward")
            contract = None
            if "contract" in program.method_names:
                (contract,) = program.load_method("contract").execute([])
        except RuntimeError as error:
            raise CheckpointError(f"executorch cannot open the model: {error}") from error

    whole = method.metadata.input_tensor_meta(0).dtype() == 0  # Byte, of torch's ScalarType

    def run(image: Floats) -> Floats:
        assert kept
        (logits,) = method.execute([torch.from_numpy(image)])
        return logits.numpy().copy()

    return Session(
        runtime="executorch",
        version=version("executorch"),
        precision=precision,
        layout="NHWC" if whole else "NCHW",
        threads=threads,
        run=one_by_one(run),
        contract=contract,
        pixels=to_pixels(contract) if whole else None,
    )
