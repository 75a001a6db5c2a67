"""All that `quantize` does, once its options are checked."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..checkpoint import save_model
from ..durable import write_atomically
from ..errors import DataError, MissingEngine
from ..evaluate import answer
from ..evaluate.metrics import wilson
from ..evaluate.model import Forward, torch_forward
from ..evaluate.paired import compare_answers
from ..flat import Card, EngineFile, write_engine
from ..integer import Place, QuantisedProgram
from ..integer.scheme import LARGEST_FOUR_BITS
from ..integer.simulate import Simulation, simulate
from ..integer.store import encode_quantised
from ..layers import folded
from ..models import ModelSpec
from ..networks import network_program
from ..preprocess import ImageError
from ..program import LOGITS, Program
from ..progress import say
from ..runtime import Precision, Session, inspect_machine
from ..runtime.sessions import open_engine
from ..runtime.timing import time_in_turns
from ..train.allocator import keep_freed_memory
from .forecast import forecast_ms
from .harm import harms
from .ladder import Workshop, climb, decibels
from .page import quantisation_page
from .result import FILE, PAGE, Flip, Gate, Latency, LayerNoise, Quantisation
from .scenes import SceneJudge, open_examples
from .source import Pictures, Source, open_pictures, open_source
from .trace import run_float

_LISTED = 1000  # flipped pictures that are named
_COMPARED = 16  # pictures for the noise and the harm of each tensor
_ROUNDS, _RUNS = 5, 5  # of one image, timed
_BATCH, _READERS = 16, 2


@dataclass(frozen=True, kw_only=True)
class Options:
    """See `quantize`."""

    max_drop: float
    steps: tuple[str, ...] | None
    pictures: int
    train_seconds: float
    portable: bool
    weight_bits: int
    limit: int | None
    skip_bad: bool
    threads: int | None
    seed: int


def quantise_run(run: Path, data: str, out: Path, options: Options) -> Quantisation:
    """`quantize`, with options that make sense."""
    start = time.perf_counter()
    keep_freed_memory()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    source = open_source(run)
    choice = {"count": options.pictures, "limit": options.limit, "skip_bad": options.skip_bad}
    judge: _Judge | SceneJudge
    if isinstance(source.spec, ModelSpec):
        found = open_pictures(source, data, **choice)
        judge = _Judge(source, found)
    else:
        found = open_examples(source, data, **choice)
        judge = SceneJudge(source, found)
    say(
        f"{source.name}: calibrating with {len(found.calibration)} pictures of {data}, measuring "
        f"on {len(found.measured)} of {found.split}"
    )
    shop = Workshop(
        images=found.calibration,
        train_seconds=options.train_seconds,
        seed=options.seed,
        four_bits=options.weight_bits == 4,
    )
    program = network_program(source.network)
    draft, rungs = climb(
        program,
        shop,
        judge.gate,
        steps=options.steps,
        max_drop=options.max_drop,
        portable=options.portable,
    )
    gate = next(rung.gate for rung in reversed(rungs) if rung.gate is not None)
    result = Quantisation(
        ok=gate.drop.points <= options.max_drop,
        max_drop=options.max_drop,
        path=out,
        model=source.name,
        data=data,
        split=found.split,
        n=len(found.measured),
        calibrated_on=len(found.calibration),
        labelled=found.labelled,
        gate=gate,
        rungs=rungs,
        layers=tuple(layer_noise(draft.program, draft.quantised, shop.images[:_COMPARED])),
        harms=tuple(harms(draft.program, draft.quantised, shop.images[:_COMPARED])),
        flips=judge.flips(),
        notes=found.notes,
        float_bytes=_weight_bytes(program),
        int8_bytes=_integer_bytes(draft.quantised),
        latency=latency(program, draft.quantised, source.preprocess.size),
        seconds=round(time.perf_counter() - start, 1),
    )
    _write(result, source, draft.quantised)
    return result


def layer_noise(
    program: Program, quantised: QuantisedProgram, images: np.ndarray
) -> Iterator[LayerNoise]:
    """The signal-to-noise ratio of every tensor, where it is in its network's run."""
    real: dict[Place, Tensor] = {}
    run_float(program, images, observe=lambda place, x: real.__setitem__(place, x))
    noise: dict[Place, tuple[float, float]] = {}

    def compare(place: Place, centred: Tensor) -> None:
        wanted = real[place].double()
        error = centred.double() * quantised.ranges[place].scale - wanted
        noise[place] = (float((wanted**2).sum()), float((error**2).sum()))

    with torch.inference_mode():
        x = torch.from_numpy(images).contiguous(memory_format=torch.channels_last)
        Simulation.of(quantised)(x, observe=compare)
    for place, (signal, error) in noise.items():
        name = "image" if place.step < 0 else f"{place.step} {place.name}"
        yield LayerNoise(tensor=name, snr_db=round(decibels(signal, error), 2))


def latency(program: Program, quantised: QuantisedProgram, size: int) -> Latency | None:
    """Both networks timed in the native engine; None where that was not built."""
    try:
        sessions = {
            "float32": _in_engine(program, "float32", size, threads=1),
            "int8": _in_engine(quantised, "int8", size, threads=1),
        }
    except MissingEngine:
        return None
    if LOGITS not in dict(program.outputs):
        sessions = {name: _of_maps(session) for name, session in sessions.items()}
    image = np.random.default_rng(0).standard_normal((1, 3, size, size), np.float32)
    taken = time_in_turns(sessions, image, rounds=_ROUNDS, runs=_RUNS)
    return Latency(
        float32_ms=round(float(np.median(taken["float32"])), 4),
        int8_ms=round(float(np.median(taken["int8"])), 4),
        predicted_float32_ms=round(forecast_ms(program, size, "float32"), 4),
        predicted_int8_ms=round(forecast_ms(program, size, "int8"), 4),
        runs=_ROUNDS * _RUNS,
        threads=1,
        instruction_set=sessions["int8"].version.split()[-1],
        cpu=inspect_machine().cpu,
    )


def _of_maps(session: Session) -> Session:
    """The session with all maps computed and the first handed over."""
    return replace(session, run=lambda images: next(iter(session.maps(images).values())))


def _in_engine(
    network: Program | QuantisedProgram, precision: Precision, size: int, *, threads: int
) -> Session:
    """A network in the native engine. Raises MissingEngine."""
    file = EngineFile(network=network, precision=precision, height=size, width=size, card=Card())
    return open_engine(write_engine(file), threads=threads, precision=precision, batch=None)


def _forward(quantised: QuantisedProgram, size: int) -> Forward:
    """The logits of an int8 network: by the native engine where there is one, else by the
    simulation, which gives the same bits many times as slowly."""
    try:
        return _in_engine(quantised, "int8", size, threads=torch.get_num_threads()).run
    except MissingEngine:
        return lambda images: simulate(quantised, images)[LOGITS][:, :, 0, 0]


class _Judge:
    """Measures int8 networks beside the float one, on the pictures that are kept for it."""

    def __init__(self, source: Source, pictures: Pictures) -> None:
        self.source, self.pictures = source, pictures
        forward = torch_forward(folded(source.network), torch.device("cpu"))
        self.float_first = self.first(forward)
        given = pictures.labels
        self.labels = self.float_first if given is None else given
        self.int8_first = self.float_first

    def first(self, forward: Forward) -> np.ndarray:
        """The first class of every picture, int64 (N,)."""
        split, contract = self.pictures.measured, self.source.preprocess
        found = []
        try:
            for logits, _ in answer(forward, split, contract, batch_size=_BATCH, workers=_READERS):
                found.append(logits.argmax(axis=1))
        except ImageError as error:
            raise DataError(
                f"{error}; mend or remove it, or leave out such images with --skip-bad"
            ) from None
        return np.concatenate(found)

    def gate(self, quantised: QuantisedProgram) -> Gate:
        """What the last network that is measured answers is kept for `flips`."""
        self.int8_first = self.first(_forward(quantised, self.source.preprocess.size))
        n = len(self.labels)
        reference, found = self.float_first == self.labels, self.int8_first == self.labels
        return Gate(
            float_top1=wilson(int(reference.sum()), n),
            int8_top1=wilson(int(found.sum()), n),
            drop=compare_answers(reference, found),
            agreement=wilson(int((self.float_first == self.int8_first).sum()), n),
        )

    def flips(self) -> tuple[Flip, ...]:
        names = self.source.labels
        changed = np.flatnonzero(self.float_first != self.int8_first)[:_LISTED]
        return tuple(
            Flip(
                picture=self.pictures.measured.name(int(index)),
                float_label=names[self.float_first[index]],
                int8_label=names[self.int8_first[index]],
            )
            for index in changed
        )


def _weight_bytes(program: Program) -> int:
    filters = [filter for step in program.steps for filter in step.filters.values()]
    return sum(filter.weight.nbytes + filter.bias.nbytes for filter in filters)


def _integer_bytes(quantised: QuantisedProgram) -> int:
    """Weights of half a byte, one, or two where they have ten bits; a bias and a scale of four
    bytes a channel."""
    filters = [filter for step in quantised.filters for filter in step.values()]
    halves = {LARGEST_FOUR_BITS: 1}  # of a byte, a weight
    return sum(
        -(-filter.weight.nbytes * halves.get(filter.largest, 2) // 2) + 8 * len(filter.bias)
        for filter in filters
    )


def _write(result: Quantisation, source: Source, quantised: QuantisedProgram) -> None:
    summary = {
        "model": result.model,
        "data": result.data,
        "calibrated_on": result.calibrated_on,
        "steps": [rung.name for rung in result.rungs if rung.kept],
        "drop_points": result.gate.drop.points,
        "agreement": result.gate.agreement.value,
    }
    save_model(
        result.path,
        source.spec,
        source.state,
        preprocess=source.preprocess.to_dict(),
        labels=source.labels,
        rules=source.rules,
        provenance={**source.provenance, "quantisation": summary},
        quantised=encode_quantised(quantised),
    )
    text = json.dumps(result.to_json(), indent=2, allow_nan=False) + "\n"
    write_atomically(result.path / FILE, text.encode())
    write_atomically(result.path / PAGE, quantisation_page(result).encode("utf-8", "replace"))
