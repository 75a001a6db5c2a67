"""`to_executorch`: a classifier as a .pte file whose whole graph XNNPACK runs."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ..errors import ExportError, MissingDependency
from ..progress import quietly
from .artifact import ExportedFile, Job, Reference
from .pixels import described, normalising

if TYPE_CHECKING:
    import torch

FILE = "model.pte"
CONTRACT = "contract"  # the method that gives the text of model.json


def to_executorch(job: Job) -> ExportedFile:
    """Convert: input float32 (1, 3, size, size), output float32 (1, classes), one image at a time;
    or from uint8 pixels (1, size, size, 3).

    int8 has the network's own whole numbers, and float32 at both ends. The method "contract" gives
    the text of model.json. Raises MissingDependency without the extra "executorch", ExportError for
    what the format cannot say.
    """
    if find_spec("executorch") is None:
        raise MissingDependency("executorch", "executorch", "exporting to ExecuTorch")
    rules, size = job.preprocess, job.preprocess.size
    network, reference = _network(job)
    image: Mapping[str, Any] = {
        "name": "image",
        "shape": [1, 3, size, size],
        "dtype": "float32",
        "layout": "NCHW",
    }
    if job.input == "pixels":
        network, image = normalising(network, rules, whole=True), described(rules, 1)
    data, outside = _converted(network, image, job.metadata()["model.json"])
    return ExportedFile(
        format="executorch",
        file=FILE,
        data=data,
        precision=job.precision,
        input=image,
        output={"name": "logits", "shape": [1, len(job.contract["labels"])], "dtype": "float32"},
        details={"outside_xnnpack": outside},
        reference=reference,
    )


def _network(job: Job) -> tuple["torch.nn.Module", Reference | None]:
    """What is converted, and what it must answer where that is not what the classifier answers."""
    from ..layers import folded
    from .quantised_torch import QuantisedClassifier, reference_of

    if job.quantised is None:
        return folded(job.classifier), None
    network = QuantisedClassifier(job.quantised, job.ranges, gated=False)
    return network.eval(), reference_of(network)


def _converted(
    network: "torch.nn.Module", image: Mapping[str, Any], contract: str
) -> tuple[bytes, int]:
    """The file, and how many operators XNNPACK does not run: copies into other layouts."""
    import torch

    example = torch.zeros(image["shape"], dtype=getattr(torch, image["dtype"]))
    with quietly():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import (  # pyright: ignore[reportMissingImports]
            XnnpackPartitioner,
        )
        from executorch.exir import (  # pyright: ignore[reportMissingImports]
            to_edge_transform_and_lower,
        )

        try:
            with torch.no_grad():
                program = torch.export.export(network, (example,))
                lowered = to_edge_transform_and_lower(
                    program,
                    partitioner=[XnnpackPartitioner()],
                    constant_methods={CONTRACT: contract},
                )
                nodes = lowered.exported_program().graph.nodes
                outside = sum("dim_order" in str(node.target) for node in nodes)
                return bytes(lowered.to_executorch().buffer), outside
        except Exception as error:  # of many kinds, from torch.export to XNNPACK's own passes
            raise ExportError(f"ExecuTorch cannot convert the network: {error}") from error
