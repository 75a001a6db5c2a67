"""A trained network as a file for other runtimes: `export`, and its folder of model, contract,
golden images and a usage sample."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from ..checkpoint import load_model, read_model_json
from ..errors import MissingDependency, UsageError
from ..integer.store import load_quantised
from ..preprocess import Preprocess
from ..program import program_of
from ..progress import say, track
from ..quantize import quantise_program
from ..runtime import Floats, Precision, usable_cores
from .artifact import Artifact, ExportedFile, Input, Job, Proof, Storage
from .compact import STORAGES
from .coreml import to_coreml
from .engine import to_engine
from .executorch import to_executorch
from .folder import Written, sample_source, write_folder
from .golden import Golden, golden_inputs, read_golden
from .isolated import export_isolated
from .litert import to_litert
from .litert_int8 import litert_ranges
from .ncnn import to_ncnn
from .onnx_file import to_onnx_file
from .openvino import to_openvino
from .proof import disagreement, golden_answers, prove, tolerance_of
from .usage import usage
from .web import to_web

__all__ = [
    "EXPORTERS",
    "Artifact",
    "ExportedFile",
    "Golden",
    "Job",
    "Proof",
    "disagreement",
    "export",
    "golden_inputs",
    "read_golden",
]


Exporter = Callable[[Job], ExportedFile]

EXPORTERS: Mapping[str, Exporter] = {
    "onnx": to_onnx_file,
    "engine": to_engine,
    "openvino": to_openvino,
    "litert": to_litert,
    "executorch": to_executorch,
    "ncnn": to_ncnn,
    "coreml": to_coreml,
    "web": to_web,
}
PRECISIONS: Mapping[str, tuple[Precision, ...]] = {
    "onnx": ("float32", "int8"),
    "engine": ("float32", "bfloat16", "int8"),
    "openvino": ("float32", "int8"),
    "litert": ("float32", "int8"),
    "executorch": ("float32", "int8"),
    "ncnn": ("float32",),
    "coreml": ("float32", "float16", "int8"),
    "web": ("float32", "bfloat16", "int8"),
}
FURTHER_RANGES = ("litert", "executorch", "coreml")  # whose int8 rounds more tensors than ours

WEIGHTS: Mapping[str, tuple[Storage, ...]] = {  # beside float32
    "onnx": ("float16", "bfloat16", "int8"),
    "openvino": ("float16", "bfloat16", "int8"),
    "litert": ("float16",),
}
PIXELS = ("onnx", "openvino", "litert", "executorch", "coreml")  # whose files can take them
SAMPLES: Mapping[str, tuple[str, ...]] = {  # of use, by format: predict.py, and what it imports
    "onnx": ("predict_onnx.py", "picture.py"),
    "engine": ("predict_engine.py",),
    "openvino": ("predict_openvino.py", "picture.py"),
    "litert": ("predict_litert.py", "picture.py"),
    "executorch": ("predict_executorch.py", "picture.py"),
    "ncnn": ("predict_ncnn.py", "picture.py"),
    "coreml": ("predict_coreml.py", "picture.py"),
    "web": ("predict_engine.py",),
}


def export(
    run: Path,
    *,
    to: str,
    out: Path,
    precision: Precision | None = None,
    weights: Storage = "float32",
    input: Input = "tensor",
    calibrate: str | None = None,
    isolated: bool = False,
) -> Artifact:
    """Convert a trained run to a model file that other runtimes read, and prove it.

    The file is run by its own runtime on ten golden images and compared with the network in torch,
    or with the exact arithmetic of its precision, before anything is written.

    Args:
        run: Run folder that `train` or `quantize` wrote.
        to: Format of the file: onnx, openvino, litert, executorch, coreml, ncnn, engine for
            mobilenet's own native engine, or web for a page that runs offline from any static host.
        out: Folder for the model file, model.json, golden.npz and programs that use them.
        precision: What the file computes in; without it int8 for what `quantize` wrote, else
            float32. bfloat16 is the engine's and the page's, float16 Core ML's.
        weights: What a float32 file stores its weights in, to be smaller: float16 or bfloat16
            (half the size), int8 (a quarter; a scale for each channel). No faster.
        input: What the file takes: a normalised tensor, or the uint8 pixels of a picture that is
            resized and cropped already, which it normalises by itself.
        calibrate: Dataset whose training pictures int8 takes its ranges from, for a run that
            `quantize` did not write; LiteRT, ExecuTorch and Core ML take further ranges
            from it always.
        isolated: Convert in a virtual environment of its own in the cache, made on first use, where
            the converter's packages clash with none of yours. MOBILENET_PIP has options for pip.
    """
    if to not in EXPORTERS:
        raise UsageError(f"format {to!r}: expected one of {sorted(EXPORTERS)}")
    if isolated:
        given = {
            "--to": to,
            "--out": str(out),
            "--precision": precision,
            "--weights": weights,
            "--input": input,
            "--calibrate": calibrate,
        }
        options = [(name, value) for name, value in given.items() if value is not None]
        return export_isolated(to, [str(run), *(text for option in options for text in option)])
    out = Path(out)
    if (out / "model.json").exists() and "artifact" not in read_model_json(out):
        raise UsageError(f"{out}: a run, whose model.json would be lost; choose another folder")
    contract = read_model_json(run)
    if contract["task"] != "classify":
        if weights != "float32" or input != "tensor" or calibrate is not None:
            raise UsageError(
                "--weights, --input and --calibrate are of classifiers; mobilenet quantize makes "
                "an int8 run of a network for scenes"
            )
        from .scenes import export_scenes

        return export_scenes(Path(run), to=to, out=out, precision=precision)
    loaded = load_model(run)
    if precision is None:
        precision = "float32" if loaded.quantised is None else "int8"
    _check_options(to, precision, weights, input, calibrate, quantised=loaded.quantised is not None)
    job = Job(
        classifier=loaded.module(),
        contract=contract,
        preprocess=Preprocess.from_dict(loaded.preprocess),
        precision=precision,
        weights=weights,
        input=input,
    )
    if precision == "int8":
        job = _quantised(job, run, to, calibrate, quantised=loaded.quantised is not None)
    float_golden = golden_answers(job.classifier, job.preprocess)
    made = EXPORTERS[to](job)
    logits = float_golden.logits if made.reference is None else made.reference(float_golden.inputs)
    tolerance = tolerance_of(made, job.quantised, replace(float_golden, logits=logits))
    proof = prove(made, float_golden, expected=logits, tolerance=tolerance)
    golden = replace(float_golden, logits=logits)
    fallback = _fallback(job, float_golden, golden) if to == "engine" else None
    sample, *imported = SAMPLES[made.format]
    names = (("predict.py", sample), *((each, each) for each in imported))
    samples = {name: sample_source(source) for name, source in names}
    written = Written(golden=golden.to_bytes(), tolerance=tolerance, proof=proof, samples=samples)
    return write_folder(out, run, contract, made, written, fallback, usage=usage)


def _check_options(
    to: str,
    precision: str,
    weights: str,
    input: str,
    calibrate: str | None,
    *,
    quantised: bool,
) -> None:
    if precision not in PRECISIONS[to]:
        raise UsageError(f"precision {precision!r}: --to {to} has {', '.join(PRECISIONS[to])}")
    if weights not in ("float32", *STORAGES):
        raise UsageError(f"weights {weights!r}: expected float32, {', '.join(STORAGES)}")
    if weights != "float32" and (precision != "float32" or weights not in WEIGHTS.get(to, ())):
        able = ", ".join(name for name, kinds in WEIGHTS.items() if weights in kinds)
        raise UsageError(f"--weights {weights}: goes with --precision float32 and --to {able}")
    if input == "pixels" and to not in PIXELS:
        raise UsageError(f"--input pixels: goes with --to {', '.join(PIXELS)}")
    further = precision == "int8" and to in FURTHER_RANGES
    if further and calibrate is None:
        raise UsageError(
            f"--to {to} in int8 needs --calibrate DATA: it rounds more tensors than an int8 run "
            "has ranges for; theirs are found on the training pictures of DATA"
        )
    if quantised and calibrate is not None and not further:
        raise UsageError("--calibrate: the run is int8 already, with ranges of its own")
    if not quantised and (precision == "int8") != (calibrate is not None):
        raise UsageError(
            "--precision int8 and --calibrate DATA go together: the ranges of the activations are "
            "found on the training pictures of DATA; mobilenet quantize also repairs what is lost"
        )


def _quantised(job: Job, run: Path, to: str, data: str | None, *, quantised: bool) -> Job:
    """The job with the run's int8 network; or with one calibrated, to the extremes that are met, on
    training pictures of `data`, none of which the run was measured on."""
    network = load_quantised(run) if quantised else None
    if network is None:
        assert data is not None
        network = quantise_program(program_of(job.classifier), _pictures(run, data))
    if to not in FURTHER_RANGES:
        return replace(job, quantised=network)
    assert data is not None
    ranges = litert_ranges(network.program, _pictures(run, data))
    return replace(job, quantised=network, ranges=ranges)


def _pictures(run: Path, data: str) -> Iterable[Floats]:
    """Training pictures of a dataset, evenly over the classes, in batches (N, 3, size, size)."""
    from ..evaluate import open_model, open_split
    from ..quantize.pictures import BATCH, PICTURES, calibration_batches

    opened = open_model(run, threads=None, device="cpu")
    dataset, name = open_split(opened, data, "train", limit=None)
    split = dataset.splits[name]
    count = min(PICTURES, len(split))
    found = calibration_batches(split, opened.preprocess, count=count, workers=usable_cores())
    return track(found, total=-(-count // BATCH), desc="calibrating")


def _fallback(job: Job, float_golden: Golden, golden: Golden) -> ExportedFile | None:
    """The same network for ONNX Runtime, for machines without the native engine: in int8 with the
    same whole numbers, else in float32. None where this machine cannot make it."""
    same = job.precision == "int8"
    expected = golden if same else float_golden
    try:
        made = to_onnx_file(job if same else replace(job, precision="float32"))
        tolerance = tolerance_of(made, job.quantised, expected)
        prove(made, float_golden, expected=expected.logits, tolerance=tolerance)
    except MissingDependency as error:
        say(f"{error}; without it the folder has no fallback for machines without the engine")
        return None
    own = tolerance_of(replace(made, precision=job.precision), job.quantised, golden)
    return replace(made, details={**made.details, "tolerance": max(tolerance, own)})
