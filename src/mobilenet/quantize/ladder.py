"""The repair ladder: steps that bring an int8 network nearer to its float one, the cheapest first,
each kept only where it helps, until the gate holds."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..integer import Place, QuantisedProgram, Wide
from ..integer.simulate import Simulation
from ..program import Floats, Program
from ..progress import say
from .calibrate import Range, quantise
from .choose import choose_ranges
from .correct import correct_biases
from .distil import Distillation, distil
from .equalise import equalise
from .observe import Statistics, minmax, observe
from .reconstruct import Reconstruction, reconstruct
from .result import AnyGate, Rung
from .trace import run_float

WIDE = "wide"
MAPS = "maps"
CALIBRATE = "calibrate"  # what every ladder begins with

_OBSERVED = 8  # pictures in a batch of the observers
_EQUALISED, _CHOSEN = 16, 64  # pictures whose answers decide
_HELD_OUT = 0.125  # of the pictures: whether a step has helped is seen on these
_CHUNK = 8
_NOISE = 0.1  # dB by which a step may fall short and is kept
_COSTLY = (MAPS,)  # what must gain something
_SLOW = ("round", "train")  # minutes: only where the drop that was measured is too large


@dataclass(frozen=True, kw_only=True, eq=False)
class Draft:
    """The network as it stands: float weights, ranges as they were observed, and in int8."""

    program: Program
    seen: Mapping[Place, Statistics]
    ranges: Mapping[Place, Range]
    quantised: QuantisedProgram

    @property
    def wide(self) -> Wide:
        """Where it has ten bits."""
        return self.quantised.wide


@dataclass(frozen=True, kw_only=True, eq=False)
class Workshop:
    """What all steps work with: the calibration pictures, float32 (N, 3, H, W), and options."""

    images: Floats
    train_seconds: float
    seed: int
    four_bits: bool = False

    @property
    def held_out(self) -> int:
        """How many pictures, the first, are kept to see if a step has helped."""
        return max(1, round(len(self.images) * _HELD_OUT))


Repair = Callable[[Draft, Workshop], tuple[Draft, str]]


def calibrated(
    program: Program, images: Floats, *, wide: Wide = Wide.NOWHERE, four_bits: bool = False
) -> Draft:
    """The network calibrated to the extremes that are met."""
    batches = np.split(images, range(_OBSERVED, len(images), _OBSERVED))
    seen = observe(program, batches)
    ranges = {place: minmax(found) for place, found in seen.items()}
    quantised = quantise(program, ranges, wide=wide, four_bits=four_bits)
    return Draft(program=program, seen=seen, ranges=ranges, quantised=quantised)


def _wide(draft: Draft, shop: Workshop) -> tuple[Draft, str]:
    wide = max(Wide.INSIDE, draft.wide)
    quantised = quantise(draft.program, draft.ranges, wide=wide, four_bits=shop.four_bits)
    did = "ten bits in the image, expanded tensors, and depthwise weights"
    return replace(draft, quantised=quantised), did


def _maps(draft: Draft, shop: Workshop) -> tuple[Draft, str]:
    wide = Wide.EVERYWHERE
    quantised = quantise(draft.program, draft.ranges, wide=wide, four_bits=shop.four_bits)
    return replace(draft, quantised=quantised), "ten bits in the maps between layers too"


def _equalise(draft: Draft, shop: Workshop) -> tuple[Draft, str]:
    images = shop.images[-_EQUALISED:]
    program, strengths = equalise(
        draft.program, draft.seen, images, wide=draft.wide, four_bits=shop.four_bits
    )
    changed = [strength for strength in strengths.values() if strength is not None]
    if not changed:
        return draft, "no channels to equalise"
    equalised = calibrated(program, shop.images, wide=draft.wide, four_bits=shop.four_bits)
    return equalised, f"{len(changed)} of {len(strengths)} places equalised"


def _ranges(draft: Draft, shop: Workshop) -> tuple[Draft, str]:
    images = shop.images[-_CHOSEN:]
    ranges, names = choose_ranges(draft.program, draft.seen, images, wide=draft.wide)
    used = sorted(set(names.values()), key=lambda name: -list(names.values()).count(name))
    counted = ", ".join(f"{name} {list(names.values()).count(name)}" for name in used)
    quantised = quantise(draft.program, ranges, wide=draft.wide, four_bits=shop.four_bits)
    return replace(draft, ranges=ranges, quantised=quantised), f"ranges from {counted}"


def _bias(draft: Draft, shop: Workshop) -> tuple[Draft, str]:
    images = shop.images[shop.held_out :]
    return replace(draft, quantised=correct_biases(draft.quantised, images)), "biases corrected"


def _round(draft: Draft, shop: Workshop) -> tuple[Draft, str]:
    left: list[float] = []
    options = Reconstruction(held_out=_HELD_OUT, seed=shop.seed)
    quantised = reconstruct(
        draft.quantised, shop.images, options, report=lambda _, part: left.append(part)
    )
    helped = [part for part in left if part < 1]
    did = f"weights rounded anew in {len(helped)} of {len(left)} blocks"
    return replace(draft, quantised=quantised), did


def _train(draft: Draft, shop: Workshop) -> tuple[Draft, str]:
    count = 0

    def counted(done: float, loss: float) -> None:
        nonlocal count
        count += 1

    options = Distillation(seconds=shop.train_seconds, held_out=_HELD_OUT, seed=shop.seed)
    quantised = distil(draft.quantised, shop.images, options, advance=counted)
    return replace(draft, quantised=quantised), f"{count} iterations of self-distillation"


REPAIRS: Mapping[str, Repair] = {  # the names of `STEPS`, in their order
    WIDE: _wide,
    "equalise": _equalise,
    "ranges": _ranges,
    MAPS: _maps,
    "bias": _bias,
    "round": _round,
    "train": _train,
}


def climb(
    program: Program,
    shop: Workshop,
    measure: Callable[[QuantisedProgram], AnyGate],
    *,
    steps: Sequence[str] | None,
    max_drop: float,
    portable: bool = False,
) -> tuple[Draft, tuple[Rung, ...]]:
    """Go up the ladder: all `steps` in the order given, or without them as far as it takes, and
    without what is not `portable` where that is asked for.

    That is until the drop is at most `max_drop` points beyond chance, by the upper end of its 95 %
    interval; the steps that take minutes follow only where the drop itself is larger. Pictures
    enough to prove a small one are rare, and a gate that holds by luck fails elsewhere.
    """
    start = time.perf_counter()
    draft = calibrated(program, shop.images, four_bits=shop.four_bits)
    gate, snr = measure(draft.quantised), snr_db(program, draft.quantised, shop)
    rungs = [_rung(CALIBRATE, "to the extremes met", snr, True, start, gate)]
    for name in REPAIRS if steps is None else steps:
        reached = gate.drop.points if name in _SLOW else gate.drop.high
        enough = steps is None and reached <= max_drop
        if enough or (portable and name in (WIDE, MAPS)):
            continue
        start = time.perf_counter()
        repaired, did = REPAIRS[name](draft, shop)
        found = snr_db(program, repaired.quantised, shop)
        # where all is lost no step shows by itself what it is good for behind the next
        kept = found > snr or (name not in _COSTLY and found > snr - _NOISE)
        if kept:
            draft, snr, gate = repaired, found, measure(repaired.quantised)
        rungs.append(_rung(name, did, found, kept, start, gate if kept else None))
    return draft, tuple(rungs)


def _rung(name: str, did: str, snr: float, kept: bool, start: float, gate: AnyGate | None) -> Rung:
    seconds = time.perf_counter() - start
    rung = Rung(name=name, did=did, snr_db=snr, kept=kept, seconds=seconds, gate=gate)
    what = f"{name}: {did}; logits {snr:.1f} dB"
    if gate is not None:
        what += (
            f", drop {gate.drop.points:.2f} points, agreement {100 * gate.agreement.value:.2f} %"
        )
    say(f"{what}{'' if kept else ': no gain, left out'} ({seconds:.0f} s)")
    return rung


def snr_db(program: Program, quantised: QuantisedProgram, shop: Workshop) -> float:
    """Signal to noise of all outputs, beside the float network, on the pictures held out."""
    simulation = Simulation.of(quantised)
    signal = noise = 0.0
    images = shop.images[: shop.held_out]
    with torch.inference_mode():
        for part in np.split(images, range(_CHUNK, len(images), _CHUNK)):
            found = simulation(torch.from_numpy(part).contiguous(memory_format=torch.channels_last))
            for name, wanted in run_float(program, part).items():
                signal += float((wanted.astype(np.float64) ** 2).sum())
                noise += float(((found[name].numpy() - wanted.astype(np.float64)) ** 2).sum())
    return decibels(signal, noise)


def decibels(signal: float, noise: float) -> float:
    """10 log10 of the ratio; at most 200, at least -200."""
    ratio = signal / noise if noise > 0 else 1e20
    return float(10 * np.log10(min(max(ratio, 1e-20), 1e20)))
