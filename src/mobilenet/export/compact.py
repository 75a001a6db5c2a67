"""Weights stored in fewer bits than they are computed in: for the size of the file, not for speed.

Every convolution's weight becomes a constant of fewer bits and a node that makes it float32 again,
which runtimes do once, when they open the file. Biases and activations stay float32.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..flat import from_bfloat16, to_bfloat16
from ..integer import LARGEST_WEIGHT
from ..program import Floats
from .artifact import ExportedFile, Reference

if TYPE_CHECKING:
    import onnx

    from ..classify import Classifier


@dataclass(frozen=True, kw_only=True, eq=False)
class Stored:
    """A weight (O, I, k, k) as it is kept: the constants, the node that makes it float32 and what
    that gives. `kind` is onnx's type of the first constant."""

    operator: str
    attributes: Mapping[str, Any]
    constants: tuple[np.ndarray, ...]
    kind: str
    real: Floats


def _float16(weight: Floats) -> Stored:
    kept = weight.astype(np.float16)
    return Stored(
        operator="Cast",
        attributes={"to": 1},  # TensorProto.FLOAT
        constants=(kept,),
        kind="FLOAT16",
        real=kept.astype(np.float32),
    )


def _bfloat16(weight: Floats) -> Stored:
    kept = to_bfloat16(weight)
    return Stored(
        operator="Cast",
        attributes={"to": 1},
        constants=(kept,),
        kind="BFLOAT16",
        real=from_bfloat16(kept).reshape(weight.shape),
    )


def _int8(weight: Floats) -> Stored:
    """A scale for each output channel."""
    largest = np.abs(weight).max((1, 2, 3))
    scale = np.where(largest > 0, largest / LARGEST_WEIGHT, 1).astype(np.float32)
    kept = np.rint(weight / scale[:, None, None, None]).astype(np.int8)
    return Stored(
        operator="DequantizeLinear",
        attributes={"axis": 0},
        constants=(kept, scale),
        kind="INT8",
        real=kept.astype(np.float32) * scale[:, None, None, None],
    )


STORAGES: Mapping[str, Callable[[Floats], Stored]] = {
    "float16": _float16,
    "bfloat16": _bfloat16,
    "int8": _int8,
}


def with_stored_weights(made: ExportedFile, classifier: "Classifier", storage: str) -> ExportedFile:
    """An ONNX file of a classifier with its weights stored as one of `STORAGES`. It must answer as
    the network in torch with weights rounded so."""
    import onnx

    model = onnx.load_model_from_string(made.data)
    _store(model, STORAGES[storage])
    onnx.checker.check_model(model, full_check=True)
    return replace(
        made,
        data=model.SerializeToString(),
        details={**made.details, "weights": storage},
        reference=rounded_network(classifier, STORAGES[storage]),
    )


def _store(model: "onnx.ModelProto", store: Callable[[Floats], Stored]) -> None:
    """In place."""
    from onnx import TensorProto
    from onnx.helper import make_node, make_tensor
    from onnx.numpy_helper import to_array

    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for conv in [node for node in graph.node if node.op_type == "Conv"]:
        tensor = constants[conv.input[1]]
        stored = store(to_array(tensor))
        names = [f"{tensor.name}.{part}" for part in range(len(stored.constants))]
        kinds = [getattr(TensorProto, stored.kind), TensorProto.FLOAT]
        for name, array, kind in zip(names, stored.constants, kinds, strict=False):
            shape = tensor.dims if name == names[0] else array.shape
            graph.initializer.append(make_tensor(name, kind, shape, array.tobytes(), raw=True))
        graph.initializer.remove(tensor)
        nodes.append(make_node(stored.operator, names, [tensor.name], **stored.attributes))
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])


def rounded_network(classifier: "Classifier", store: Callable[[Floats], Stored]) -> Reference:
    """What a classifier answers in torch whose convolutions' weights were stored and read again."""
    import torch

    from ..layers import folded

    network = folded(classifier)
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, torch.nn.Conv2d):
                layer.weight.copy_(torch.from_numpy(store(layer.weight.numpy()).real))

    def reference(images: Floats) -> Floats:
        with torch.inference_mode():
            return network(torch.from_numpy(images)).numpy()

    return reference
