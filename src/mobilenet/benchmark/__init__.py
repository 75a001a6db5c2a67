"""How fast a model is: `benchmark`, several runtimes timed in turns in one run."""

import os
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import get_args

from ..errors import MobilenetError, UsageError
from ..progress import say
from ..runtime import RUNTIMES, Precision, inspect_machine
from ..runtime.timing import WARM_UP, time_in_turns
from .contest import Contender, WrongAnswers, enter
from .on_device import time_on_device
from .result import Benchmark, Timing, summarise
from .scenes import SceneSubject, find_scene_subject, for_scenes
from .subject import TORCH, find_subject

__all__ = ["CAPS", "NAMES", "Benchmark", "Timing", "benchmark"]

NAMES = (TORCH, *RUNTIMES)
# by which a runtime's instruction sets can be capped, to be set before the process starts:
# oneDNN's is OpenVINO's and PyTorch's
CAPS = ("ONEDNN_MAX_CPU_ISA", "MOBILENET_ENGINE_ISA")


def benchmark(
    target: str,
    *,
    runtime: tuple[str, ...] = (),
    precision: Precision | None = None,
    threads: int = 1,
    size: int | None = None,
    width: float | None = None,
    batch: int = 1,
    rounds: int = 5,
    runs: int = 30,
    device: str | None = None,
    cores: str | None = None,
) -> Benchmark:
    """Time a model with several runtimes, in turns, NumPy arrays in and out.

    Each runtime runs its best configuration, and its answers are first compared with those of
    PyTorch in float32 (for an exported folder those that lie in it). Of a network for scenes the
    decoding to boxes, masks or keypoints is timed with it.

    Args:
        target: Model name (random weights), run folder or exported folder.
        runtime: Which of torch, engine, onnxruntime, openvino, litert, or what runs an exported
            folder's own file; without it all that are installed. Or wasm, the engine for browsers,
            in node on one thread.
        precision: Arithmetic of the convolutions; without it that of the exported folder, else
            float32. float32 never becomes less on the quiet, int8 is calibrated on random images,
            or on those of the exported folder.
        threads: CPU threads of one inference.
        size: Input pixels; without it those of the run or name, or 224.
        width: Width multiplier, with a model's name.
        batch: Images in one inference.
        rounds: How often each runtime has its turn.
        runs: Timed inferences in a turn.
        device: Time the engine there: ssh:[USER@]HOST[:PORT] or adb:SERIAL.
        cores: Cores of the device that it may use, such as 4,5.
    """
    _check_options(runtime, precision, threads=threads, batch=batch, rounds=rounds, runs=runs)
    if cores is not None and device is None:
        raise UsageError("--cores are those of a --device")
    if device is not None and (runtime not in ((), ("engine",)) or batch != 1):
        raise UsageError("on a device the engine is timed, with one image at a time")
    find = find_scene_subject if for_scenes(target) else find_subject
    subject = find(target, size=size, width=width, batch=batch)
    precision = precision or (subject.own.precision if subject.own is not None else "float32")
    if device is not None:
        if isinstance(subject, SceneSubject):
            raise UsageError("--device: of classifiers so far; networks for scenes are timed here")
        return time_on_device(
            subject, device, precision=precision, threads=threads, cores=cores, runs=rounds * runs
        )
    torch = sys.modules.get("torch")  # there if the subject has a network
    torch_threads = torch.get_num_threads() if torch else 1
    contenders: dict[str, Contender] = {}
    skipped: dict[str, str] = {}
    wrong: dict[str, str] = {}
    try:
        for name in runtime or [name for name in NAMES if subject.suits(name)]:
            try:
                contenders[name], failed = enter(
                    subject, name, threads=threads, precision=precision
                )
            except WrongAnswers as error:
                wrong[name] = str(error)
                say(f"{name}: answers otherwise than the reference: {error}; not timed")
                continue
            except MobilenetError as error:
                if runtime:
                    raise
                skipped[name] = str(error)
                continue
            skipped |= failed
            if doubt := contenders[name].doubt:
                wrong[name] = doubt
                say(f"{name}: answers otherwise than the reference: {doubt}")
        if not contenders:
            reasons = "; ".join(f"{name}: {why}" for name, why in {**skipped, **wrong}.items())
            raise MobilenetError(f"{target}: no runtime to time ({reasons})")
        machine = inspect_machine()
        sessions = {name: contender.session for name, contender in contenders.items()}
        taken = time_in_turns(sessions, subject.inputs, rounds=rounds, runs=runs)
    finally:
        if torch:
            torch.set_num_threads(torch_threads)
    conditions = {
        **subject.conditions(),
        "precision": precision,
        "threads": threads,
        "rounds": rounds,
        "runs": runs,
        "warm_up": WARM_UP,
        "tried": {name: dict(c.tried) for name, c in contenders.items() if c.tried},
        "caps": {name: os.environ.get(name) for name in CAPS},
        "machine": asdict(machine),
        "load_after": inspect_machine().load,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return Benchmark(
        conditions=conditions,
        results=summarise(contenders, taken, batch=batch),
        skipped=skipped,
        wrong=wrong,
    )


def _check_options(
    runtime: tuple[str, ...],
    precision: str | None,
    *,
    threads: int,
    batch: int,
    rounds: int,
    runs: int,
) -> None:
    if unknown := sorted(set(runtime) - set(NAMES)):
        raise UsageError(f"runtime {unknown[0]!r}: expected some of {list(NAMES)}")
    if precision not in (None, *get_args(Precision)):
        raise UsageError(f"precision {precision!r}: expected one of {list(get_args(Precision))}")
    for name, value in (
        ("threads", threads),
        ("batch", batch),
        ("rounds", rounds),
        ("runs", runs),
    ):
        if value < 1:
            raise UsageError(f"{name} {value}: expected at least 1")
