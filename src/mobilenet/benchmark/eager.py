"""The network in eager PyTorch, as a session among the others (needs torch)."""

from contextlib import AbstractContextManager, nullcontext

import torch

from ..classify import Classifier
from ..errors import UsageError
from ..runtime import Floats, Precision, Session


def open_torch(network: Classifier, *, threads: int, precision: Precision) -> Session:
    """A session of a classifier in evaluation mode on the CPU, channels-last, NumPy in and out.

    bfloat16 is autocast's. PyTorch has one number of threads a process: it is set here. Raises
    UsageError for int8.
    """
    if precision == "int8":
        raise UsageError("torch: eager PyTorch has no int8 network of this kind")
    torch.set_num_threads(threads)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def casting() -> AbstractContextManager[object]:
        if precision == "bfloat16":
            return torch.autocast("cpu", torch.bfloat16)
        return nullcontext()

    def run(images: Floats) -> Floats:
        with torch.inference_mode(), casting():
            given = torch.from_numpy(images).contiguous(memory_format=torch.channels_last)
            return network(given).float().numpy()

    return Session(
        runtime="torch",
        version=torch.__version__,
        precision=precision,
        layout="NCHW",
        threads=threads,
        run=run,
    )
