"""Every way to int8 that is measured: the peers' quantisers and ours, each as a function that makes
a network, opened so that its own arithmetic is what is measured.

On CPUs without VNNI the peers' int8 kernels save time by saturating sums of products at 16 bits.
That is the CPU's loss, not the quantiser's: ONNX Runtime is told to be exact
(session.x64quantprecision), and OpenVINO, which has no such setting, runs NNCF's fake quantisation
as it is written, in float32 (LP_TRANSFORMS_MODE=NO).
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from int8_subjects import Opened, Part

import mobilenet
from mobilenet.benchmark.quantised import nncf, qdq, qdq_default
from mobilenet.evaluate.model import Forward
from mobilenet.flat import Card, EngineFile, write_engine
from mobilenet.integer.store import load_quantised
from mobilenet.runtime import Floats, unpack
from mobilenet.runtime.sessions import open_engine, open_onnxruntime

EVERYWHERE: tuple[Part, ...] = ("photographs", "trained", "hostile")
LABELLED: tuple[Part, ...] = ("trained", "hostile")
EIGHT_BITS = "equalise,ranges,bias,round"
REPAIR = "wide,maps,equalise,ranges,bias,round"
_GATE = 200  # pictures of the verb's own gate, which decides nothing where the steps are given
_MAX_DROP = 0.1  # points, where the verb chooses the steps itself


@dataclass(frozen=True, kw_only=True)
class Options:
    """`folder` keeps what is made; `train_minutes` are of distillation."""

    folder: Path
    threads: int
    train_minutes: float


@dataclass(frozen=True, kw_only=True)
class Method:
    """`make` gives the network, ready to answer; what takes longest has its turn `late`."""

    title: str
    short: str
    make: Callable[[Opened, Options], Forward]
    parts: tuple[Part, ...] = EVERYWHERE
    late: int = 0


def _onnxruntime(
    quantise: Callable[[bytes, Floats], bytes],
) -> Callable[[Opened, Options], Forward]:
    def make(opened: Opened, options: Options) -> Forward:
        made = quantise(opened.onnx, opened.calibration)
        session = open_onnxruntime(made, threads=options.threads, precision="int8", batch=None)
        return session.run

    return make


def _openvino(quantise: Callable[[bytes, Floats], bytes]) -> Callable[[Opened, Options], Forward]:
    def make(opened: Opened, options: Options) -> Forward:
        return _open_exactly(quantise(opened.onnx, opened.calibration), options.threads)

    return make


def _open_exactly(data: bytes, threads: int) -> Forward:
    import openvino

    core = openvino.Core()
    files = unpack(data)
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": "f32",
        "LP_TRANSFORMS_MODE": "NO",
    }
    read = core.read_model(files["model.xml"], files["model.bin"])
    model = core.compile_model(read, "CPU", settings)
    request = model.create_infer_request()

    def run(images: Floats) -> Floats:
        return request.infer({0: images}, share_inputs=True)[0].copy()

    return run


def _ours(
    steps: str | None, *, portable: bool = False, weight_bits: int = 8
) -> Callable[[Opened, Options], Forward]:
    """`mobilenet quantize`, and what it wrote in the engine. Without `steps` it takes those that it
    needs for a small drop on all pictures of its own validation split."""

    def make(opened: Opened, options: Options) -> Forward:
        subject = opened.subject
        name = (steps or "ladder").replace(",", "-") + ("-portable" if portable else "")
        name += f"-{weight_bits}" if weight_bits != 8 else ""
        out = options.folder / f"{subject.name}-{name}-{opened.weights[:16]}"
        if not (out / "quantisation.html").exists():
            shutil.rmtree(out, ignore_errors=True)
            mobilenet.quantize(
                Path(subject.model),
                subject.data,
                out=out,
                steps=steps,
                max_drop=_MAX_DROP,
                portable=portable,
                weight_bits=weight_bits,
                pictures=opened.pictures,
                train_minutes=options.train_minutes,
                limit=_GATE if steps else None,
                threads=options.threads,
            )
        size = opened.source.preprocess.size
        network = EngineFile(
            network=load_quantised(out), precision="int8", height=size, width=size, card=Card()
        )
        data = write_engine(network)
        return open_engine(data, threads=options.threads, precision="int8", batch=None).run

    return make


_CHANNELS = partial(qdq, convolutions_only=False)

METHODS: Mapping[str, Method] = {
    "ort": Method(
        title="ONNX Runtime, default (S8S8, a scale a tensor)",
        short="ONNX Runtime, default",
        make=_onnxruntime(qdq_default),
    ),
    "ort-minmax": Method(
        title="ONNX Runtime, U8S8, a scale a channel, MinMax",
        short="ONNX Runtime, channels, MinMax",
        make=_onnxruntime(_CHANNELS),
    ),
    "ort-percentile": Method(
        title="ONNX Runtime, U8S8, a scale a channel, Percentile 99.999",
        short="ONNX Runtime, channels, Percentile",
        make=_onnxruntime(partial(_CHANNELS, calibrator="Percentile")),
    ),
    "ort-entropy": Method(
        title="ONNX Runtime, U8S8, a scale a channel, Entropy",
        short="ONNX Runtime, channels, Entropy",
        make=_onnxruntime(partial(_CHANNELS, calibrator="Entropy")),
        parts=("photographs",),
    ),
    "nncf": Method(
        title="NNCF PERFORMANCE (its default), OpenVINO",
        short="NNCF PERFORMANCE",
        make=_openvino(partial(nncf, preset="PERFORMANCE")),
    ),
    "nncf-mixed": Method(
        title="NNCF MIXED, OpenVINO",
        short="NNCF MIXED",
        make=_openvino(partial(nncf, preset="MIXED")),
    ),
    "nncf-full": Method(
        title="NNCF MIXED with full bias correction, OpenVINO",
        short="NNCF MIXED, full correction",
        make=_openvino(partial(nncf, preset="MIXED", fast_bias_correction=False)),
        parts=("photographs",),
    ),
    "calibrated": Method(
        title="mobilenet, calibration alone",
        short="mobilenet, calibration alone",
        make=_ours("none"),
    ),
    "repaired": Method(
        title="mobilenet, post-training repair",
        short="mobilenet, repaired",
        make=_ours(REPAIR),
        late=2,
    ),
    "portable": Method(
        title="mobilenet, post-training repair, eight bits throughout",
        short="mobilenet, eight bits",
        make=_ours(EIGHT_BITS),
        parts=("photographs",),
        late=2,
    ),
    "ladder": Method(
        title=f"mobilenet quantize --max-drop {_MAX_DROP}",
        short="mobilenet",
        make=_ours(None),
        parts=LABELLED,
        late=1,
    ),
    "ladder-portable": Method(
        title=f"mobilenet quantize --max-drop {_MAX_DROP} --portable",
        short="mobilenet, eight bits",
        make=_ours(None, portable=True),
        parts=LABELLED,
        late=2,
    ),
    "four-bits": Method(
        title="mobilenet, weights of four bits, post-training repair",
        short="mobilenet, four bits",
        make=_ours(REPAIR, weight_bits=4),
        parts=("photographs", "trained"),
        late=3,
    ),
    "distilled": Method(
        title="mobilenet, repair and distillation",
        short="mobilenet, distilled",
        make=_ours(f"{REPAIR},train"),
        parts=("photographs",),
        late=3,
    ),
}


def cosine(found: np.ndarray, wanted: np.ndarray) -> float:
    """The mean cosine of logits (N, classes) with others."""
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
    return float(((found * wanted).sum(axis=1) / np.maximum(norms, 1e-30)).mean())
