"""One model file opened by one runtime: the `RUNTIMES`, each a function of the file's bytes.

The file is handed over as the bytes whose hash was checked, never as a path to be read again.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckpointError, MissingDependency, UsageError

Floats = NDArray[np.float32]
Precision = Literal["float32", "bfloat16"]
Layout = Literal["NCHW", "NHWC"]


@dataclass(frozen=True, kw_only=True)
class Session:
    """A model ready to run: `run` takes float32 images in `layout` and gives float32 logits.

    One call at a time. `precision` is the one that the convolutions really use.
    """

    runtime: str
    version: str
    precision: str
    layout: Layout
    threads: int
    run: Callable[[Floats], Floats]

    def laid_out(self, images: Floats) -> Floats:
        """Images (N, 3, H, W) as `run` takes them."""
        if self.layout == "NHWC":
            images = images.transpose(0, 2, 3, 1)
        return np.ascontiguousarray(images)


class Opener(Protocol):
    """Opens the bytes of a model file. `batch` fixes the batch, where the file leaves it open."""

    def __call__(
        self, data: bytes, *, threads: int, precision: Precision, batch: int | None
    ) -> Session: ...


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def open_onnxruntime(
    data: bytes, *, threads: int, precision: Precision, batch: int | None
) -> Session:
    """Open an ONNX file with ONNX Runtime on the CPU. Raises UsageError for another precision than
    float32, CheckpointError for bytes that are no ONNX model."""
    try:
        import onnxruntime
    except ImportError:
        raise MissingDependency("onnxruntime", "run", "running an ONNX file") from None
    if precision != "float32":
        raise UsageError(f"onnxruntime: its CPU kernels have no {precision} convolution")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if batch is not None:
        options.add_free_dimension_override_by_name("batch", batch)
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors derive from Exception itself
        raise CheckpointError(f"onnxruntime cannot open the model: {_brief(error)}") from error
    name = session.get_inputs()[0].name

    def run(images: Floats) -> Floats:
        logits = session.run(None, {name: images})[0]
        assert isinstance(logits, np.ndarray)
        return logits

    return Session(
        runtime="onnxruntime",
        version=onnxruntime.__version__,
        precision="float32",
        layout="NCHW",
        threads=threads,
        run=run,
    )


def open_openvino(data: bytes, *, threads: int, precision: Precision, batch: int | None) -> Session:
    """Open an ONNX file with OpenVINO on the CPU, at `precision` and no other.

    Raises UsageError where the CPU has no such precision, CheckpointError for bytes that are no
    ONNX model.
    """
    try:
        import openvino
    except ImportError:
        raise MissingDependency("openvino", "openvino", "running with OpenVINO") from None
    core = openvino.Core()
    if precision == "bfloat16" and "BF16" not in core.get_property(
        "CPU", "OPTIMIZATION_CAPABILITIES"
    ):
        raise UsageError("openvino: this CPU has no bfloat16 instructions")
    # left to itself it computes in bfloat16 wherever the CPU can
    hint = {"float32": "f32", "bfloat16": "bf16"}[precision]
    settings = {
        "INFERENCE_PRECISION_HINT": hint,
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        # else every process binds its threads to the same first cores
        "ENABLE_CPU_PINNING": False,
    }
    try:
        model = core.read_model(data)
        if batch is not None:
            _, *fixed = model.input(0).partial_shape
            model.reshape([batch, *(size.get_length() for size in fixed)])
        compiled = core.compile_model(model, "CPU", settings)
    except RuntimeError as error:
        raise CheckpointError(f"openvino cannot open the model: {_brief(error)}") from error
    request = compiled.create_infer_request()

    def run(images: Floats) -> Floats:
        # shared: the tensor reads `images` in place, which lives as long as this call
        return request.infer({0: images}, share_inputs=True)[0]

    return Session(
        runtime="openvino",
        version=openvino.__version__.partition("-")[0],
        precision=_openvino_precision(compiled),
        layout="NCHW",
        threads=threads,
        run=run,
    )


def _openvino_precision(compiled: Any) -> str:
    """The precisions of the compiled convolutions, several joined by "+"."""
    found: set[str] = set()
    for operation in compiled.get_runtime_model().get_ordered_ops():
        info = operation.get_rt_info()
        if "Convolution" in info["layerType"].astype(str):
            found.add(info["runtimePrecision"].astype(str))
    names = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}
    return "+".join(sorted(names.get(name, name) for name in found))


def open_litert(data: bytes, *, threads: int, precision: Precision, batch: int | None) -> Session:
    """Open a .tflite file with LiteRT (XNNPACK). Images are NHWC.

    Raises UsageError for another precision than float32 or a batch that the file does not take,
    CheckpointError for bytes that are no such model.
    """
    from importlib.metadata import version

    try:
        from ai_edge_litert.interpreter import (  # pyright: ignore[reportMissingImports]
            Interpreter,
        )
    except ImportError:
        raise MissingDependency("ai-edge-litert", "litert", "running a .tflite file") from None
    if precision != "float32":
        raise UsageError(f"litert: {precision} is not offered, only float32")
    try:
        interpreter = Interpreter(model_content=data, num_threads=threads)
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(f"litert cannot open the model: {_brief(error)}") from error
    source = interpreter.get_input_details()[0]
    target = interpreter.get_output_details()[0]["index"]
    opened = [int(source["shape"][0])]

    def run(images: Floats) -> Floats:
        if len(images) != opened[0]:
            _resize(interpreter, source["index"], images.shape)
            opened[0] = len(images)
        interpreter.set_tensor(source["index"], images)
        interpreter.invoke()
        return interpreter.get_tensor(target)

    if batch is not None and batch != opened[0]:
        run(np.zeros((batch, *source["shape"][1:]), np.float32))
    return Session(
        runtime="litert",
        version=version("ai-edge-litert"),
        precision="float32",
        layout="NHWC",
        threads=threads,
        run=run,
    )


def _resize(interpreter: Any, index: int, shape: tuple[int, ...]) -> None:
    try:
        interpreter.resize_tensor_input(index, shape)
        interpreter.allocate_tensors()
    except RuntimeError as error:
        raise UsageError(f"litert: the file takes no batch of {shape[0]}: {error}") from error


def _brief(error: Exception) -> str:
    """The last line that says something: runtimes put their call stack before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


RUNTIMES: Mapping[str, Opener] = {
    "onnxruntime": open_onnxruntime,
    "openvino": open_openvino,
    "litert": open_litert,
}
FORMATS: Mapping[str, tuple[str, ...]] = {
    "onnx": ("onnxruntime", "openvino"),
    "litert": ("litert",),
}
