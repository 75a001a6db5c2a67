"""int8 files for the other runtimes, each made by that runtime's own quantiser.

All take the float32 file and `calibration`, float32 images (N, 3, H, W); all leave the file's
inputs and outputs float32. Unless it says otherwise, activations are affine with ranges that are
the extremes of the calibration images, and weights are rounded channel by channel.
"""

import logging
import math
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import ExportError, MissingDependency
from ..runtime import Floats, pack

# What keeps its speed in eight bits everywhere; hard-swish and the gates of squeeze-excite do not
CONVOLUTIONS = ("Conv", "Gemm", "MatMul", "Add", "Clip", "Relu")
_AT_ONCE = 16  # images


Calibrator = Literal["MinMax", "Percentile", "Entropy"]
Preset = Literal["PERFORMANCE", "MIXED"]


def qdq(
    model: bytes,
    calibration: Floats,
    *,
    convolutions_only: bool,
    calibrator: Calibrator = "MinMax",
) -> bytes:
    """An ONNX file quantised by ONNX Runtime: uint8 activations, int8 weights, QDQ format.

    With `convolutions_only` hard-swish and gates stay float32. Ranges are by ONNX Runtime's
    `calibrator` of that name: the extremes, the 99.999th percentile, or least divergence of the
    histograms. Raises MissingDependency.
    """
    _require_onnxruntime()
    from onnxruntime.quantization import CalibrationMethod, QuantType

    settings = {
        "calibrate_method": CalibrationMethod[calibrator],
        "per_channel": True,
        "activation_type": QuantType.QUInt8,
        "weight_type": QuantType.QInt8,
        "op_types_to_quantize": list(CONVOLUTIONS) if convolutions_only else None,
    }
    return _quantised_statically(model, calibration, settings)


def qdq_default(model: bytes, calibration: Floats) -> bytes:
    """An ONNX file quantised by ONNX Runtime as it does unless told otherwise: QDQ format, int8
    throughout, one scale for all weights of a layer. Raises MissingDependency."""
    _require_onnxruntime()
    return _quantised_statically(model, calibration, {})


def _require_onnxruntime() -> None:
    for module in ("onnxruntime", "onnx"):
        _require(module, "onnx", "quantising an ONNX file")


def _quantised_statically(model: bytes, calibration: Floats, settings: dict[str, Any]) -> bytes:
    from onnxruntime.quantization import CalibrationDataReader, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            self._images = iter(calibration)

        def __len__(self) -> int:
            return len(calibration)

        def set_range(self, start_index: int, end_index: int) -> None:
            self._images = iter(calibration[start_index:end_index])

        def get_next(self) -> dict[str, Floats] | None:  # type: ignore[override]
            image = next(self._images, None)
            return None if image is None else {"image": image[None]}

    # as many images at once as divide them: it keeps every tensor of all of them in memory
    stride = math.gcd(len(calibration), _AT_ONCE)
    with _quietly(), tempfile.TemporaryDirectory() as folder:
        given, prepared, made = (Path(folder) / name for name in ("f", "p", "q"))
        given.write_bytes(model)
        quant_pre_process(given, prepared)
        quantize_static(
            prepared, made, Images(), extra_options={"CalibStridedMinMax": stride}, **settings
        )
        return made.read_bytes()


def nncf_performance(model: bytes, calibration: Floats) -> bytes:
    """`nncf` with its preset PERFORMANCE."""
    return nncf(model, calibration, preset="PERFORMANCE")


def nncf(
    model: bytes, calibration: Floats, *, preset: Preset, fast_bias_correction: bool = True
) -> bytes:
    """An ONNX file quantised by NNCF for OpenVINO, in OpenVINO's format as `open_openvino` takes
    it. The preset MIXED has affine activations, PERFORMANCE symmetric ones. Raises
    MissingDependency."""
    _require("openvino", "openvino", "quantising for OpenVINO")
    _require("nncf", "peers", "quantising for OpenVINO with NNCF")
    with _quietly(), tempfile.TemporaryDirectory() as folder:
        import nncf  # pyright: ignore[reportMissingImports]
        import openvino

        made = nncf.quantize(
            openvino.Core().read_model(model),
            nncf.Dataset([image[None] for image in calibration]),
            preset=nncf.QuantizationPreset[preset],
            subset_size=len(calibration),
            fast_bias_correction=fast_bias_correction,
        )
        path = Path(folder) / "model.xml"
        openvino.save_model(made, path, compress_to_fp16=False)
        return pack({file.name: file.read_bytes() for file in (path, path.with_suffix(".bin"))})


def litert_int8(model: bytes, calibration: Floats, *, batch: int, convolutions_only: bool) -> bytes:
    """A .tflite file that takes `batch` images, quantised by AI Edge Quantizer.

    With `convolutions_only` hard-swish stays float32: XNNPACK has none in eight bits. Raises
    MissingDependency.
    """
    _require("ai_edge_quantizer", "litert", "quantising a .tflite file")
    from ai_edge_litert.interpreter import (  # pyright: ignore[reportMissingImports]
        Interpreter,
    )
    from ai_edge_quantizer import (  # pyright: ignore[reportMissingImports]
        algorithm_manager,
        qtyping,
        quantizer,
        recipe,
    )

    names = qtyping.TFLOperationName
    left = [names.INPUT, names.OUTPUT] + [names.HARD_SWISH] * convolutions_only
    chosen = np.arange(-(-len(calibration) // batch) * batch) % len(calibration)
    images = np.ascontiguousarray(calibration[chosen].transpose(0, 2, 3, 1))
    ((signature, ends),) = Interpreter(model_content=model).get_signature_list().items()
    with _quietly():
        maker = quantizer.Quantizer(model, recipe.static_wi8_ai8())
        for name in left:
            maker.update_quantization_recipe(
                ".*", name, algorithm_key=algorithm_manager.AlgorithmName.NO_QUANTIZE
            )
        ranges = maker.calibrate(
            {signature: [{ends["inputs"][0]: x} for x in np.split(images, len(images) // batch)]},
            num_threads=1,
        )
        made = maker.quantize(ranges, enable_progress_report=False).quantized_model
    if made is None:
        raise ExportError("ai-edge-quantizer made no model")
    return bytes(made)


def _require(module: str, extra: str, purpose: str) -> None:
    if find_spec(module) is None:
        raise MissingDependency(module.replace("_", "-"), extra, purpose)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the quantisers' progress bars, advice and warnings about their own internals."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            redirect_stdout(StringIO()),
            redirect_stderr(StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
