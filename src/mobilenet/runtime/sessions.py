"""One model file opened by one runtime: the `RUNTIMES`, each a function of the file's bytes.

The file is handed over as the bytes whose hash was checked, read or mapped, never as a path to be
read again.
"""

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from mmap import mmap
from typing import Any, Literal, Protocol
from zipfile import BadZipFile

import numpy as np

from ..errors import CheckpointError, MissingDependency, UsageError
from .pack import unpack

Floats = np.ndarray[Any, np.dtype[np.float32]]  # NDArray[np.float32], whose import takes a while
Data = bytes | mmap
Precision = Literal["float32", "bfloat16", "float16", "int8"]
Layout = Literal["NCHW", "NHWC"]

LOGITS = "logits"  # of an engine file's outputs
_SATURATES = (
    "the integer kernels of OpenVINO: without VNNI their sums saturate at 16 bits on this CPU, so "
    "that the file's whole numbers were computed in float32"
)
PINNED = ["mobilenet", "inference_precision"]  # where an OpenVINO file says how it must compute


@dataclass(frozen=True, kw_only=True, eq=False)
class Session:
    """A model ready to run: `run` takes float32 images in `layout` and gives float32 logits.

    One call at a time. `maps`, where the runtime is one for scenes too, gives every output by its
    name, (N, C, H, W). `precision` is the one that the convolutions really use, `convolutions` how
    many use which, empty where the runtime does not tell. `contract` is the text of model.json that
    the file itself carries. A file that normalises by itself has `pixels`, which makes its input of
    normalised images; `probabilities`: it gives their logarithms in place of logits. `note` says
    what of the machine that the file is meant for was not involved; `lacks` what a classifier's has
    and this file has not.
    """

    runtime: str
    version: str
    precision: str
    layout: Layout
    threads: int
    run: Callable[[Floats], Floats]
    maps: Callable[[Floats], Mapping[str, Floats]] = field(default=lambda images: _no_maps())
    convolutions: Mapping[str, int] = field(default_factory=dict)
    contract: str | None = None
    pixels: Callable[[Floats], np.ndarray] | None = None
    probabilities: bool = False
    note: str | None = None
    lacks: str | None = None

    def laid_out(self, images: Floats) -> np.ndarray:
        """Images (N, 3, H, W) as `run` takes them."""
        if self.pixels is not None:
            images = self.pixels(images)
        if self.layout == "NHWC":
            images = images.transpose(0, 2, 3, 1)
        return np.ascontiguousarray(images)

    def comparable(self, logits: Floats) -> Floats:
        """Logits (N, classes) or what the session gives, less what probabilities do not tell."""
        return logits - logits.mean(1, keepdims=True) if self.probabilities else logits


def _no_maps() -> Mapping[str, Floats]:
    raise UsageError("this runtime has classifiers only here; export with --to engine or onnx")


class Opener(Protocol):
    """Opens the bytes of a model file. `batch` fixes the batch, where the file leaves it open.

    int8 is for files that are quantised: no opener quantises.
    """

    def __call__(
        self, data: Data, *, threads: int, precision: Precision, batch: int | None
    ) -> Session: ...


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def open_engine(data: Data, *, threads: int, precision: Precision, batch: int | None) -> Session:
    """Open an engine file with the native engine, which takes any batch.

    Raises MissingEngine where that was not built, UsageError for another precision than the
    file's, CheckpointError for a file that is none or whose logits are no vector.
    """
    from .engine import open_model, plan, require_engine

    model = open_model(data)
    if model.precision != precision:
        raise UsageError(f"engine: the file is {model.precision}, not {precision}")
    engine = plan(model, threads=threads)
    if engine.outputs.get(LOGITS, (0, 1, 1))[1:] != (1, 1):
        raise CheckpointError(f"engine: {LOGITS!r} is no vector among the outputs {engine.outputs}")

    there = LOGITS in engine.outputs
    lacks = None if there else f"engine: no {LOGITS!r} among the outputs {engine.outputs}"

    def run(images: Floats) -> Floats:
        if lacks is not None:
            raise CheckpointError(lacks)
        return engine.run(images)[LOGITS][:, :, 0, 0]

    return Session(
        runtime="engine",
        version=f"{require_engine().__version__} {engine.isa}",
        precision=precision,
        layout="NCHW",
        threads=threads,
        run=run,
        maps=engine.run,
        lacks=lacks,
    )


def open_web(data: Data, *, threads: int, precision: Precision, batch: int | None) -> Session:
    """Open an engine file with this package's engine for browsers; see `wasm.open_wasm`."""
    from .wasm import open_wasm

    return open_wasm(data, threads=threads, precision=precision, batch=batch)


def open_onnxruntime(
    data: Data, *, threads: int, precision: Precision, batch: int | None
) -> Session:
    """Open an ONNX file with ONNX Runtime on the CPU. Raises UsageError for bfloat16,
    CheckpointError for bytes that are no ONNX model."""
    try:
        import onnxruntime
    except ImportError:
        raise MissingDependency("onnxruntime", "run", "running an ONNX file") from None
    if precision in ("bfloat16", "float16"):
        raise UsageError(f"onnxruntime: its CPU kernels have no {precision} convolution")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if precision == "int8":
        # without VNNI its sums of products with int8 weights saturate at 16 bits else
        options.add_session_config_entry("session.x64quantprecision", "1")
    if batch is not None:
        options.add_free_dimension_override_by_name("batch", batch)
    try:
        session = onnxruntime.InferenceSession(
            bytes(data), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # its errors derive from Exception itself
        raise CheckpointError(f"onnxruntime cannot open the model: {_brief(error)}") from error
    source = session.get_inputs()[0]
    names = [output.name for output in session.get_outputs()]
    contract = session.get_modelmeta().custom_metadata_map.get("model.json")
    whole = source.type == "tensor(uint8)"

    def run(images: Floats) -> Floats:
        logits = session.run(None, {source.name: images})[0]
        assert isinstance(logits, np.ndarray)
        return logits

    def maps(images: Floats) -> Mapping[str, Floats]:
        found: Any = session.run(names, {source.name: images})
        return dict(zip(names, found, strict=True))

    return Session(
        runtime="onnxruntime",
        version=onnxruntime.__version__,
        precision=precision,
        layout="NHWC" if whole else "NCHW",
        threads=threads,
        run=run,
        maps=maps,
        contract=contract,
        pixels=_pixels(contract) if whole else None,
    )


def _pixels(contract: str | None) -> Callable[[Floats], np.ndarray]:
    from .pixels import to_pixels

    return to_pixels(contract)


def open_openvino(data: Data, *, threads: int, precision: Precision, batch: int | None) -> Session:
    """Open an ONNX file with OpenVINO on the CPU, at `precision` and no other; or its own format:
    the `pack` of XML and weights.

    What an int8 file leaves in floating point is computed in float32 where the file says so, as
    those that `export` writes, else as OpenVINO prefers. Raises UsageError where the CPU has no
    such precision, CheckpointError for bytes that are no model.
    """
    try:
        import openvino
    except ImportError:
        raise MissingDependency("openvino", "openvino", "running with OpenVINO") from None
    if precision == "float16":
        raise UsageError("openvino: its CPU kernels have no float16; it is for GPUs")
    core = openvino.Core()
    if precision == "bfloat16" and "BF16" not in core.get_property(
        "CPU", "OPTIMIZATION_CAPABILITIES"
    ):
        raise UsageError("openvino: this CPU has no bfloat16 instructions")
    note = contract = None
    whole = False
    settings: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        # else every process binds its threads to the same first cores
        "ENABLE_CPU_PINNING": False,
    }
    if precision != "int8":
        # left to itself it computes in bfloat16 wherever the CPU can
        hint = {"float32": "f32", "bfloat16": "bf16"}[precision]
        settings["INFERENCE_PRECISION_HINT"] = hint
    try:
        model = _read_openvino(core, bytes(data))
        if model.has_rt_info(PINNED):
            settings["INFERENCE_PRECISION_HINT"] = model.get_rt_info(PINNED).astype(str)
            contract = model.get_rt_info(["mobilenet", "model.json"]).astype(str)
            whole = model.input(0).element_type == openvino.Type.u8
            if precision == "int8" and not _adds_exactly():
                settings["LP_TRANSFORMS_MODE"], note = "NO", _SATURATES
        if batch is not None:
            _, *fixed = model.input(0).partial_shape
            model.reshape([batch, *(size.get_length() for size in fixed)])
        # compiled, an output also has the names of what was fused into it
        names = [output.get_any_name() for output in model.outputs]
        compiled = core.compile_model(model, "CPU", settings)
    except (RuntimeError, BadZipFile, KeyError) as error:
        raise CheckpointError(f"openvino cannot open the model: {_brief(error)}") from error
    found = _openvino_convolutions(compiled)
    request = compiled.create_infer_request()

    def run(images: Floats) -> Floats:
        # shared: the tensor reads `images` in place, which lives as long as this call
        return request.infer({0: images}, share_inputs=True)[0]

    def maps(images: Floats) -> Mapping[str, Floats]:
        answer = request.infer({0: images}, share_inputs=True)
        return {name: answer[index] for index, name in enumerate(names)}

    return Session(
        runtime="openvino",
        version=openvino.__version__.partition("-")[0],
        precision="+".join(sorted(found)),
        layout="NHWC" if whole else "NCHW",
        threads=threads,
        run=run,
        maps=maps,
        convolutions=found,
        contract=contract,
        pixels=_pixels(contract) if whole else None,
        note=note,
    )


def _adds_exactly() -> bool:
    """Whether OpenVINO's sums of eight-bit products are exact on this CPU: those of AVX2 and
    AVX-512 without VNNI saturate at 16 bits."""
    from .machine import inspect_machine

    machine = inspect_machine()
    if machine.architecture not in ("x86_64", "AMD64", "i686"):
        return True
    return any("vnni" in name or name == "amx_int8" for name in machine.instruction_sets)


def _read_openvino(core: Any, data: bytes) -> Any:
    if not data.startswith(b"PK"):
        return core.read_model(data)
    files = unpack(data)
    return core.read_model(files["model.xml"], files["model.bin"])


def _openvino_convolutions(compiled: Any) -> dict[str, int]:
    """How many of the compiled convolutions have which precision."""
    found: Counter[str] = Counter()
    for operation in compiled.get_runtime_model().get_ordered_ops():
        info = operation.get_rt_info()
        if "Convolution" in info["layerType"].astype(str):
            found[info["runtimePrecision"].astype(str)] += 1
    names = {"f32": "float32", "bf16": "bfloat16", "f16": "float16", "u8": "int8", "i8": "int8"}
    totals: Counter[str] = Counter()
    for name, count in found.items():
        totals[names.get(name, name)] += count
    return dict(sorted(totals.items()))


def open_litert(data: Data, *, threads: int, precision: Precision, batch: int | None) -> Session:
    """Open a .tflite file with LiteRT (XNNPACK). Images are NHWC.

    Raises UsageError for bfloat16 or a batch that the file does not take, CheckpointError for
    bytes that are no such model.
    """
    from importlib.metadata import version

    try:
        from ai_edge_litert.interpreter import (  # pyright: ignore[reportMissingImports]
            Interpreter,
        )
    except ImportError:
        raise MissingDependency("ai-edge-litert", "litert", "running a .tflite file") from None
    if precision in ("bfloat16", "float16"):
        raise UsageError(f"litert: XNNPACK has no {precision} convolution here")
    try:
        interpreter = Interpreter(model_content=bytes(data), num_threads=threads)
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
        run(np.zeros((batch, *source["shape"][1:]), source["dtype"]))
    contract = _litert_contract(bytes(data))
    return Session(
        runtime="litert",
        version=version("ai-edge-litert"),
        precision=precision,
        layout="NHWC",
        threads=threads,
        run=run,
        convolutions=_litert_convolutions(interpreter),
        contract=contract,
        pixels=_pixels(contract) if source["dtype"] is np.uint8 else None,
    )


def _litert_contract(data: bytes) -> str | None:
    from ai_edge_litert import schema_py_generated  # pyright: ignore[reportMissingImports]

    model: Any = schema_py_generated.Model.GetRootAs(data, 0)
    for index in range(model.MetadataLength()):
        entry = model.Metadata(index)
        if entry.Name() == b"model.json":
            return model.Buffers(entry.Buffer()).DataAsNumpy().tobytes().decode()
    return None


def _litert_convolutions(interpreter: Any) -> dict[str, int]:
    """How many of the file's convolutions have which precision; no delegate changes it."""
    kinds = {detail["index"]: detail["dtype"] for detail in interpreter.get_tensor_details()}
    found = Counter(
        np.dtype(kinds[operator["inputs"][0]]).name
        for operator in interpreter._get_ops_details()
        if operator["op_name"] in ("CONV_2D", "DEPTHWISE_CONV_2D")
    )
    return dict(sorted(found.items()))


def open_executorch(
    data: Data, *, threads: int, precision: Precision, batch: int | None
) -> Session:
    """Open a .pte file with ExecuTorch (XNNPACK), one image at a time."""
    from .executorch import open_file

    return open_file(data, threads=threads, precision=precision, batch=batch)


def open_ncnn(data: Data, *, threads: int, precision: Precision, batch: int | None) -> Session:
    """Open a `pack` of ncnn's two files, one image at a time."""
    from .ncnn import open_files

    return open_files(data, threads=threads, precision=precision, batch=batch)


def open_coreml(data: Data, *, threads: int, precision: Precision, batch: int | None) -> Session:
    """Open a `pack` of an .mlpackage: with Core ML on macOS, else operator by operator."""
    from .coreml import open_package

    return open_package(data, threads=threads, precision=precision, batch=batch)


def one_by_one(run: Callable[[Floats], Floats]) -> Callable[[Floats], Floats]:
    """For files of one image: `run` takes (1, ...) and gives (1, classes)."""
    return lambda images: np.concatenate([run(image[None]) for image in images])


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
    "engine": open_engine,
    "onnxruntime": open_onnxruntime,
    "openvino": open_openvino,
    "litert": open_litert,
    "executorch": open_executorch,
    "ncnn": open_ncnn,
    "coreml": open_coreml,
    "wasm": open_web,
}
FORMATS: Mapping[str, tuple[str, ...]] = {
    "engine": ("engine",),
    "onnx": ("onnxruntime", "openvino"),
    "openvino": ("openvino",),
    "litert": ("litert",),
    "executorch": ("executorch",),
    "ncnn": ("ncnn",),
    "coreml": ("coreml",),
    "web": ("wasm", "engine"),
}
