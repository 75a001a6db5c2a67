"""`to_coreml`: a classifier as an .mlpackage, an ML program for iOS 15 and later."""

import json
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

from ..errors import ExportError, MissingDependency
from ..progress import quietly
from ..runtime import Floats, pack
from .artifact import ExportedFile, Job, Reference
from .pixels import normalising

if TYPE_CHECKING:
    import torch

PACKAGE = "model.mlpackage"
_SPACE = UUID("5d0f3f8e-6a55-4c0e-9b8e-6d6f62696c65")  # of the identifiers in a package's manifest


def to_coreml(job: Job) -> ExportedFile:
    """Convert: input "image" float32 (1, 3, size, size), output "logits" (1, classes).

    float16 is what the Neural Engine computes in; int8 has the network's own whole numbers, and
    needs iOS 17. From pixels: "image" is an image, and the file a classifier with its labels, whose
    output "classLabel_probs" has softmax behind it. The metadata has the contract. Raises
    MissingDependency without the extra "coreml", ExportError for what cannot be converted.
    """
    with quietly():
        if find_spec("coremltools") is None:
            raise MissingDependency("coremltools", "coreml", "exporting to Core ML")
    size, pixels = job.preprocess.size, job.input == "pixels"
    network, reference = _network(job)
    if pixels:
        reference = _log_softmax(reference or _in_torch(network))
        network = _with_softmax(normalising(network, job.preprocess, whole=False))
    classes = len(job.contract["labels"])
    output = {"name": "logits", "shape": [1, classes], "dtype": "float32"}
    if pixels:
        output = {"name": "classLabel_probs", "shape": [classes], "dtype": "float32"}
    return ExportedFile(
        format="coreml",
        file=PACKAGE,
        data=pack(_converted(job, network)),
        packed=True,
        precision=job.precision,
        input={
            "name": "image",
            "shape": [1, 3, size, size],
            "dtype": "uint8" if pixels else "float32",
            "layout": "NCHW",
        },
        output=output,
        details={"package": PACKAGE, "deployment": "iOS17" if job.quantised else "iOS15"},
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


def _in_torch(network: "torch.nn.Module") -> Reference:
    import torch

    def reference(images: Floats) -> Floats:
        with torch.inference_mode():
            return network(torch.from_numpy(images)).numpy()

    return reference


def _log_softmax(reference: Reference) -> Reference:
    import torch

    return lambda images: torch.from_numpy(reference(images)).log_softmax(1).numpy()


def _with_softmax(network: "torch.nn.Module") -> "torch.nn.Module":
    import torch

    return torch.nn.Sequential(network, torch.nn.Softmax(1)).eval()


def _converted(job: Job, network: "torch.nn.Module") -> dict[str, bytes]:
    """The files of the package by their paths."""
    import torch

    size, int8 = job.preprocess.size, job.quantised is not None
    with quietly(), tempfile.TemporaryDirectory() as folder:
        import coremltools as ct  # pyright: ignore[reportMissingImports]

        shape = (1, 3, size, size)
        image: Any = ct.TensorType("image", shape=shape)
        options: dict[str, Any] = {"outputs": [ct.TensorType("logits")]}
        if job.input == "pixels":
            image = ct.ImageType("image", shape=shape, color_layout=ct.colorlayout.RGB)
            config = ct.ClassifierConfig(list(job.contract["labels"]))
            options = {"classifier_config": config}
        precision = ct.precision.FLOAT16 if job.precision == "float16" else ct.precision.FLOAT32
        try:
            with torch.no_grad():
                made: Any = (
                    torch.export.export(network, (torch.zeros(shape),)).run_decompositions({})
                    if int8
                    else torch.jit.trace(network, torch.zeros(shape))
                )
            model = ct.convert(
                made,
                inputs=[image],
                convert_to="mlprogram",
                compute_precision=precision,
                minimum_deployment_target=ct.target.iOS17 if int8 else ct.target.iOS15,
                skip_model_load=True,
                **options,
            )
        except Exception as error:  # of many kinds, from tracing to its own passes
            raise ExportError(f"coremltools cannot convert the network: {error}") from error
        model.short_description = f"{job.contract['model']['name']}, by mobilenet"
        model.user_defined_metadata.clear()  # its own has the day in it
        model.user_defined_metadata.update(job.metadata())
        path = Path(folder) / PACKAGE
        model.save(str(path))
        kept = [path / "Manifest.json", *sorted((path / "Data").rglob("*"))]
        files = {
            file.relative_to(folder).as_posix(): file.read_bytes()
            for file in kept
            if file.is_file()
        }
    manifest = f"{PACKAGE}/Manifest.json"
    return {**files, manifest: _named_anew(files[manifest])}


def _named_anew(manifest: bytes) -> bytes:
    """The manifest with identifiers that are the same every time."""
    content = json.loads(manifest)
    names = {old: str(uuid5(_SPACE, item["path"])) for old, item in _items(content).items()}
    entries = {names[old]: item for old, item in sorted(_items(content).items(), key=_path)}
    root = names[content["rootModelIdentifier"]]
    changed = {**content, "itemInfoEntries": entries, "rootModelIdentifier": root}
    return json.dumps(changed, indent=2).encode()


def _items(content: dict[str, Any]) -> dict[str, dict[str, str]]:
    return content["itemInfoEntries"]


def _path(item: tuple[str, dict[str, str]]) -> str:
    return item[1]["path"]
