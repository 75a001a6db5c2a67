"""Files that take a picture's pixels and normalise them by themselves: for torch's converters a
network that does, for ONNX files nodes before it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..preprocess import Preprocess
from .artifact import ExportedFile

if TYPE_CHECKING:
    from torch import nn


def normalising(network: "nn.Module", rules: Preprocess, *, whole: bool) -> "nn.Module":
    """The network before which pixels, resized and cropped already, are normalised as the contract
    says, each channel by its own mean and std; borders are padded after that, as in training.

    It takes uint8 (N, size, size, 3) where `whole`, else numbers of 0 to 255, (N, 3, size, size).
    """
    import torch

    class Normalising(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network
            for name, values in (("mean", rules.mean), ("std", rules.std)):
                self.register_buffer(name, torch.tensor(values)[:, None, None])

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            x = pixels.permute(0, 3, 1, 2).float() if whole else pixels
            return self.network((x / 255 - self.get_buffer("mean")) / self.get_buffer("std"))

    return Normalising().eval()


def described(rules: Preprocess, batch: int | str) -> Mapping[str, Any]:
    """The section "input" of model.json for such a file."""
    shape = [batch, rules.size, rules.size, 3]
    return {"name": "image", "shape": shape, "dtype": "uint8", "layout": "NHWC"}


def onnx_of_pixels(made: ExportedFile, rules: Preprocess) -> ExportedFile:
    """An ONNX file whose input "image" is uint8 (batch, size, size, 3)."""
    import onnx
    from onnx.helper import make_node, make_tensor_value_info
    from onnx.numpy_helper import from_array

    model = onnx.load_model_from_string(made.data)
    graph = model.graph
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == "image":
                node.input[index] = "normalised"
    batch = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    shape = described(rules, batch)["shape"]
    graph.input[0].CopyFrom(make_tensor_value_info("image", onnx.TensorProto.UINT8, shape))
    numbers = {"levels": np.float32(255), "mean": rules.mean, "std": rules.std}
    for name, value in numbers.items():
        array = np.asarray(value, np.float32).reshape(-1, 1, 1)
        graph.initializer.append(from_array(array, f"pixels_{name}"))
    before = [
        make_node("Transpose", ["image"], ["pixels_planes"], "pixels_planes", perm=[0, 3, 1, 2]),
        make_node("Cast", ["pixels_planes"], ["pixels_real"], "pixels_real", to=1),
        make_node("Div", ["pixels_real", "pixels_levels"], ["pixels_unit"], "pixels_unit"),
        make_node("Sub", ["pixels_unit", "pixels_mean"], ["pixels_centred"], "pixels_centred"),
        make_node("Div", ["pixels_centred", "pixels_std"], ["normalised"], "normalised"),
    ]
    nodes = [*before, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model, full_check=True)
    return replace(made, data=model.SerializeToString(), input=described(rules, batch))
