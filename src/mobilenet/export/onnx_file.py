"""`to_onnx_file`: what a job asks for as ONNX, whichever way it is written."""

from .artifact import ExportedFile, Job
from .compact import with_stored_weights
from .onnx import to_onnx
from .pixels import onnx_of_pixels
from .qdq import to_qdq


def to_onnx_file(job: Job) -> ExportedFile:
    """A float32 network, one whose weights are stored in fewer bits, or an int8 one as QDQ."""
    size, metadata = job.preprocess.size, job.metadata()
    if job.quantised is not None:
        made = to_qdq(job.quantised, size=size, metadata=metadata)
    else:
        made = to_onnx(job.classifier, size=size, metadata=metadata)
    if job.weights != "float32":
        made = with_stored_weights(made, job.classifier, job.weights)
    return onnx_of_pixels(made, job.preprocess) if job.input == "pixels" else made
