"""`to_openvino`: a classifier as OpenVINO's IR, which says itself how it must compute."""

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from ..errors import ExportError, MissingDependency
from ..runtime import PINNED, pack
from .artifact import ExportedFile, Job
from .onnx_file import to_onnx_file

FILE = "model.xml"


def to_openvino(job: Job) -> ExportedFile:
    """Convert by way of our ONNX: model.xml and model.bin, with the input and output of that file.

    Weights stay as they are stored there, an int8 network keeps its whole numbers. The section
    "mobilenet" of rt_info carries the contract, and "inference_precision": what must be asked for
    when the file is compiled, as OpenVINO computes in bfloat16 unasked where the CPU can. Raises
    MissingDependency without the extra "openvino".
    """
    if find_spec("openvino") is None:
        raise MissingDependency("openvino", "openvino", "exporting to OpenVINO")
    return openvino_of(to_onnx_file(job), job.metadata())


def openvino_of(source: ExportedFile, metadata: Mapping[str, str]) -> ExportedFile:
    """An ONNX file as IR; `metadata` becomes its rt_info. Raises ExportError where OpenVINO cannot
    read it, MissingDependency without it."""
    if find_spec("openvino") is None:
        raise MissingDependency("openvino", "openvino", "exporting to OpenVINO")
    import openvino

    try:
        model = openvino.Core().read_model(source.data)
    except RuntimeError as error:
        raise ExportError(f"OpenVINO cannot read the network: {error}") from error
    del model.rt_info["framework"]  # what the ONNX file carried: it is written below
    for name, text in metadata.items():
        model.set_rt_info(text, ["mobilenet", name])
    model.set_rt_info("f32", PINNED)
    model.inputs[0].get_node().set_layout(openvino.Layout(source.input["layout"]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FILE
        openvino.save_model(model, path, compress_to_fp16=False)
        data = pack({file.name: file.read_bytes() for file in (path, path.with_suffix(".bin"))})
    return replace(source, format="openvino", file=FILE, data=data, packed=True)
