"""Networks for scenes as files: raw maps out, which `SceneTask.decode` makes boxes, masks or
keypoints of, behind the network and outside of what is rounded."""

import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checkpoint import load_network, read_model_json
from ..errors import ExportError, MissingDependency, MissingEngine, UsageError
from ..flat import EngineFile, write_engine
from ..integer import QuantisedProgram, run_integer
from ..integer.store import quantised_of
from ..networks import network_program
from ..preprocess import Preprocess
from ..program import Floats, Program, evaluate_float
from ..progress import say
from ..runtime import ENGINE_HEADER, FORMATS, RUNTIMES, ArtifactFile, Precision
from .artifact import Artifact, ExportedFile, Proof, contract_metadata
from .engine import card_of, rounded
from .folder import Written, sample_source, write_folder
from .golden import Image8, golden_images, golden_inputs, read_golden_file
from .onnx import onnx_of_maps
from .openvino import openvino_of
from .proof import BFLOAT16_TOLERANCE, TOLERANCE, cosine
from .qdq import to_qdq

if TYPE_CHECKING:
    from torch import nn

Maps = Mapping[str, Floats]
PRECISIONS: Mapping[str, tuple[Precision, ...]] = {
    "engine": ("float32", "bfloat16", "int8"),
    "onnx": ("float32", "int8"),
    "openvino": ("float32", "int8"),
}
_SAMPLE = "predict_scene.py"
_TIES = 3.0  # times what the least of roundings does to the maps
_ULPS = 2.0**-20


@dataclass(frozen=True, kw_only=True)
class SceneGolden:
    """`images`: uint8 (H, W, 3) RGB each; `inputs`: float32 (N, 3, H, W) as the contract makes them
    of the images; `maps`: what the file must answer, float32 (N, C, H, W) by name."""

    images: tuple[Image8, ...]
    inputs: Floats
    maps: Maps

    def to_bytes(self) -> bytes:
        """An .npz file: arrays "image_0" ..., "inputs", and "map.NAME" of every output."""
        arrays: dict[str, Any] = {f"image_{i}": image for i, image in enumerate(self.images)}
        arrays |= {f"map.{name}": value for name, value in self.maps.items()}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, inputs=self.inputs, **arrays)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> "SceneGolden":
        """The inverse of `to_bytes`."""
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            count = sum(name.startswith("image_") for name in file.files)
            names = [name for name in file.files if name.startswith("map.")]
            return cls(
                images=tuple(file[f"image_{index}"] for index in range(count)),
                inputs=file["inputs"],
                maps={name.removeprefix("map."): file[name] for name in names},
            )


def read_scene_golden(file: ArtifactFile) -> SceneGolden:
    """The golden images of an exported folder. Raises CheckpointError where they are missing or
    not those that were exported."""
    return read_golden_file(file, SceneGolden.from_bytes)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Job:
    """What is converted."""

    module: "nn.Module"
    contract: Mapping[str, Any]
    preprocess: Preprocess
    precision: Precision
    network: Program | QuantisedProgram
    shapes: Mapping[str, tuple[int, ...]]  # of its maps, for one image


def export_scenes(run: Path, *, to: str, out: Path, precision: Precision | None) -> Artifact:
    """`export` for a network for scenes."""
    if to not in EXPORTERS:
        raise UsageError(f"format {to!r}: networks for scenes have {sorted(EXPORTERS)}")
    contract = read_model_json(run)
    loaded = load_network(run)
    if precision is None:
        precision = "float32" if loaded.quantised is None else "int8"
    if precision not in PRECISIONS[to]:
        raise UsageError(f"precision {precision!r}: --to {to} has {', '.join(PRECISIONS[to])}")
    if precision == "int8" and loaded.quantised is None:
        raise UsageError(f"{run}: a float run; mobilenet quantize {run} DATA makes an int8 one")
    module = loaded.module()
    network: Program | QuantisedProgram
    if precision == "int8":
        network = quantised_of(run, loaded)
    else:
        network = network_program(module)
        network = rounded(network) if precision == "bfloat16" else network
    preprocess = Preprocess.from_dict(loaded.preprocess)
    images = golden_images()
    inputs = golden_inputs(preprocess, images)
    reference = _in_torch(module)(inputs)
    job = _Job(
        module=module,
        contract=contract,
        preprocess=preprocess,
        precision=precision,
        network=network,
        shapes={name: value.shape for name, value in reference.items()},
    )
    exact = _exact(module, network, precision)
    golden = SceneGolden(images=images, inputs=inputs, maps=exact(inputs))
    made = EXPORTERS[to](job)
    tolerance = _tolerance(made, network, golden)
    proof = _prove(made, golden, reference, tolerance)
    fallback = _fallback(job, golden, reference) if to == "engine" else None
    written = Written(
        golden=golden.to_bytes(),
        tolerance=tolerance,
        proof=proof,
        samples={"predict.py": sample_source(_SAMPLE)},
    )
    return write_folder(out, run, contract, made, written, fallback)


def _engine(job: _Job) -> ExportedFile:
    side = job.preprocess.size
    data = write_engine(
        EngineFile(
            network=job.network,
            precision=job.precision,
            height=side,
            width=side,
            card=card_of(job.contract, job.preprocess),
        )
    )
    outputs = [
        {"name": name, "shape": ["batch", *shape[1:]], "dtype": "float32"}
        for name, shape in job.shapes.items()
    ]
    return ExportedFile(
        format="engine",
        file="model.mbn",
        data=data,
        precision=job.precision,
        input={
            "name": "image",
            "shape": ["batch", 3, side, side],
            "dtype": "float32",
            "layout": "NCHW",
        },
        output=outputs[0],
        details={
            "outputs": outputs,
            "header_sha256": hashlib.sha256(data[:ENGINE_HEADER]).hexdigest(),
        },
    )


def _onnx(job: _Job) -> ExportedFile:
    size, metadata = job.preprocess.size, contract_metadata(job.contract)
    if isinstance(job.network, QuantisedProgram):
        return to_qdq(job.network, size=size, metadata=metadata)
    return onnx_of_maps(job.module, size=size, metadata=metadata)


def _openvino(job: _Job) -> ExportedFile:
    return openvino_of(_onnx(job), contract_metadata(job.contract))


EXPORTERS: Mapping[str, Callable[[_Job], ExportedFile]] = {
    "engine": _engine,
    "onnx": _onnx,
    "openvino": _openvino,
}


def _in_torch(module: "nn.Module") -> Callable[[Floats], Maps]:
    import torch

    from ..networks import answers

    def maps(images: Floats) -> Maps:
        with torch.inference_mode():
            found = answers(module, torch.from_numpy(images))
            return {name: value.numpy() for name, value in found.items()}

    return maps


def _exact(
    module: "nn.Module", network: Program | QuantisedProgram, precision: Precision
) -> Callable[[Floats], Maps]:
    """What the file must answer: torch's network, that with rounded weights, whole numbers."""
    if isinstance(network, QuantisedProgram):
        from ..integer.simulate import simulate

        return lambda images: simulate(network, images)
    if precision == "bfloat16":
        from ..quantize.trace import run_float

        return lambda images: run_float(network, images)
    return _in_torch(module)


def largest_error(found: Maps, expected: Maps) -> float:
    """The largest absolute difference of two answers, NaN where one is none; infinite where they
    are of other maps."""
    if found.keys() != expected.keys():
        return float("inf")
    if any(found[name].shape != value.shape for name, value in expected.items()):
        return float("inf")
    # of an array: NaN is the largest there, and lost by Python's max
    return float(np.max([np.abs(found[name] - value).max() for name, value in expected.items()]))


def _largest(maps: Maps) -> float:
    return max(float(np.abs(value).max()) for value in maps.values())


def _tolerance(
    made: ExportedFile, network: Program | QuantisedProgram, golden: SceneGolden
) -> float:
    """How far a number of the maps may be from what it must be; 0 for int8 in the engine. Elsewhere
    int8 rounds in float32, where two numbers may tie: as far as the maps move when every scale is
    off by a few units of float32's last place."""
    unit = max(_largest(golden.maps), 1.0)
    if made.precision == "bfloat16":
        return BFLOAT16_TOLERANCE * unit
    if not isinstance(network, QuantisedProgram):
        return TOLERANCE * unit
    if made.format == "engine":
        return 0.0
    moved = max(_moved(network, golden, seed) for seed in range(3))
    return TOLERANCE * unit + _TIES * moved


def _moved(network: QuantisedProgram, golden: SceneGolden, seed: int) -> float:
    from ..integer.simulate import simulate
    from .proof import jittered

    return largest_error(simulate(jittered(network, seed, _ULPS), golden.inputs), golden.maps)


def _prove(made: ExportedFile, golden: SceneGolden, reference: Maps, tolerance: float) -> Proof:
    """Run the file on the golden images. Raises ExportError where it does not answer as it must."""
    runtime, found = _run(made, golden.inputs)
    error = largest_error(found, golden.maps)
    if not error <= tolerance:
        raise ExportError(
            f"{made.file}: {runtime} does not answer as it must to the golden images: maps differ "
            f"by up to {error:.3g}, more than {tolerance:.3g}; nothing was written"
        )
    names = list(reference)
    flat = np.concatenate([found[name].reshape(-1) for name in names])
    wanted = np.concatenate([reference[name].reshape(-1) for name in names])
    return Proof(
        runtime=runtime,
        max_error=error,
        float_cosine=cosine(flat, wanted),
        float_agreement=None,
    )


def _run(made: ExportedFile, images: Floats) -> tuple[str, Maps]:
    for name in FORMATS[made.format]:
        try:
            session = RUNTIMES[name](made.data, threads=1, precision=made.precision, batch=None)
        except MissingEngine as error:
            say(f"{made.file} is not checked by {name}: {error}")
            continue
        # one by one: what most devices do
        parts = [session.maps(session.laid_out(image[None])) for image in images]
        found = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        return f"{session.runtime} {session.version}", found
    say(f"{made.file} is checked by NumPy")
    return f"numpy {np.__version__}", maps_of_file(made.data, images)


def maps_of_file(data: bytes, images: Floats) -> Maps:
    """What an engine file answers, by NumPy: slow, where there is no native engine."""
    from ..flat import read_engine

    network = read_engine(data).network
    if isinstance(network, QuantisedProgram):
        return run_integer(network, images)
    return {name: m.astype(np.float32) for name, m in evaluate_float(network, images).items()}


def _fallback(job: _Job, golden: SceneGolden, reference: Maps) -> ExportedFile | None:
    """The same network for ONNX Runtime, for machines without the native engine: in int8 with the
    same whole numbers, else in float32. None where this machine cannot make it."""
    int8 = job.precision == "int8"
    plain = job if int8 else replace(job, precision="float32", network=network_program(job.module))
    expected = golden if int8 else replace(golden, maps=reference)
    try:
        made = _onnx(plain)
        tolerance = _tolerance(made, plain.network, expected)
        _prove(made, expected, reference, tolerance)
    except MissingDependency as error:
        say(f"{error}; without it the folder has no fallback for machines without the engine")
        return None
    if job.precision == "bfloat16":
        tolerance = max(tolerance, BFLOAT16_TOLERANCE * max(_largest(golden.maps), 1.0))
    return replace(made, details={**made.details, "tolerance": tolerance})
