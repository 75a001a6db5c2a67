"""LiteRT computing in float16, which is as near to bfloat16 as it comes."""

from collections.abc import Callable
from importlib.metadata import version

import numpy as np

from ..errors import MissingDependency, UsageError
from ..runtime import Floats, Session, inspect_machine

_FORCE_FP16 = 4  # XNNPACK's flag; without it float32 files are computed in float32
_INSTRUCTIONS = {"avx512_fp16", "asimdhp"}  # without them XNNPACK converts to float32 and back


def open_litert_float16(file: Callable[[], bytes], *, threads: int) -> Session:
    """Open a float32 .tflite file with LiteRT, computing in float16. Images are NHWC.

    Raises UsageError where the CPU has no float16 arithmetic; `file` is not called then.
    """
    try:
        from ai_edge_litert.compiled_model import (  # pyright: ignore[reportMissingImports]
            CompiledModel,
        )
        from ai_edge_litert.cpu_options import (  # pyright: ignore[reportMissingImports]
            CpuOptions,
        )
        from ai_edge_litert.options import Options  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise MissingDependency("ai-edge-litert", "litert", "running a .tflite file") from None
    if not _INSTRUCTIONS & set(inspect_machine().instruction_sets):
        raise UsageError("litert: XNNPACK has no bfloat16 convolution, and this CPU no float16")
    data = file()
    model = CompiledModel.from_buffer(
        data,
        options=Options(cpu_options=CpuOptions(num_threads=threads, xnnpack_flags=_FORCE_FP16)),
    )
    (source,), (target,) = model.create_input_buffers(0), model.create_output_buffers(0)
    shape = target.get_tensor_details()["shape"]
    size = int(np.prod(shape))

    def run(images: Floats) -> Floats:
        source.write(images)
        model.run_by_index(0, [source], [target])
        return target.read(size, np.float32).reshape(shape)

    return Session(
        runtime="litert",
        version=version("ai-edge-litert"),
        precision="float16",
        layout="NHWC",
        threads=threads,
        run=run,
    )
