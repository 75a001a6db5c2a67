"""`to_onnx`: a classifier as an ONNX file that carries its whole contract."""

import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING

from ..errors import MissingDependency
from .artifact import ExportedFile

if TYPE_CHECKING:
    import onnx
    from torch import nn

    from ..classify import Classifier

OPSET = 20


def to_onnx(classifier: "Classifier", *, size: int, metadata: Mapping[str, str]) -> ExportedFile:
    """Convert to ONNX: input "image" (batch, 3, size, size), output "logits" (batch, classes).

    The batch is free, the batch norms are folded, `metadata` becomes the file's metadata_props,
    and the result has passed onnx's checker. Raises MissingDependency without the extra "onnx".
    """
    _require_onnx()
    from ..layers import folded

    network = folded(classifier)
    model = _converted(network, size=size, outputs=["logits"], metadata=metadata)
    classes = network.head.classifier.out_channels
    return ExportedFile(
        format="onnx",
        file="model.onnx",
        data=model.SerializeToString(),
        input={
            "name": "image",
            "shape": ["batch", 3, size, size],
            "dtype": "float32",
            "layout": "NCHW",
        },
        output={"name": "logits", "shape": ["batch", classes], "dtype": "float32"},
        details={"opset": OPSET},
    )


def onnx_of_maps(network: "nn.Module", *, size: int, metadata: Mapping[str, str]) -> ExportedFile:
    """A network for scenes as ONNX: input "image" (batch, 3, size, size), every map it answers by
    its name, (batch, channels, height, width). Otherwise as `to_onnx`."""
    _require_onnx()
    import torch

    from ..layers import folded
    from ..networks import answers

    class Maps(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = folded(network)

        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(answers(self.network, image).values())

    with torch.inference_mode():
        found = answers(folded(network), torch.zeros(1, 3, size, size))
    model = _converted(Maps().eval(), size=size, outputs=list(found), metadata=metadata)
    outputs = [
        {"name": name, "shape": ["batch", *value.shape[1:]], "dtype": "float32"}
        for name, value in found.items()
    ]
    return ExportedFile(
        format="onnx",
        file="model.onnx",
        data=model.SerializeToString(),
        input={
            "name": "image",
            "shape": ["batch", 3, size, size],
            "dtype": "float32",
            "layout": "NCHW",
        },
        output=outputs[0],
        details={"opset": OPSET, "outputs": outputs},
    )


def _require_onnx() -> None:
    for package in ("onnx", "onnxscript"):
        if find_spec(package) is None:
            raise MissingDependency(package, "onnx", "exporting to ONNX")


def _converted(
    network: "nn.Module", *, size: int, outputs: list[str], metadata: Mapping[str, str]
) -> "onnx.ModelProto":
    """A folded network of one input, checked, its batch free."""
    import onnx
    import torch

    for layer in network.modules():
        if isinstance(layer, torch.nn.ReLU | torch.nn.ReLU6 | torch.nn.Hardswish):
            layer.inplace = False  # torch.export takes in-place operations apart: twice the time
    # two images: an example of one would fix the batch at one
    example = torch.zeros(2, 3, size, size)
    with warnings.catch_warnings():
        # raised by torch.export and onnxscript about each other's and their own older names
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["image"],
            output_names=outputs,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _strip(model)
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    return model


def _strip(model: "onnx.ModelProto") -> None:
    """Remove, in place, what the exporter notes about our sources: stack traces with local paths,
    and a copy of the program's signature; half of a small file otherwise."""
    graph = model.graph
    values = (*graph.input, *graph.output, *graph.value_info, *graph.initializer)
    for part in (model, graph, *graph.node, *values):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
