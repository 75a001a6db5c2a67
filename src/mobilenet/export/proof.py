"""The proof of an exported file: run by its own runtime on the golden images, it answers as it
must."""

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ExportError, MissingEngine
from ..integer import LARGEST, Place, QuantisedProgram
from ..preprocess import Preprocess
from ..program import IMAGE, LOGITS
from ..progress import say
from ..runtime import FORMATS, RUNTIMES, Floats, Session
from .artifact import ExportedFile, Proof, Reference
from .engine import run_file
from .golden import Golden, golden_images, golden_inputs

if TYPE_CHECKING:
    from ..classify import Classifier

TOLERANCE = 1e-3  # of a float32 logit; six networks in four runtimes stay within 2e-4
# of the largest logit in bfloat16: with activations rounded too, as some processors multiply,
# 0.025 was seen
BFLOAT16_TOLERANCE = 0.1
SWAYS = 3.0  # of the effect of one step, for int8 that ties may round otherwise
_JITTERS, _ULPS = 3, 2.0**-20
TIE = 0.1  # of the tolerance: logits as close as this may change places by rounding


def golden_answers(network: "Classifier", contract: Preprocess) -> Golden:
    """The golden images with the logits of the network in torch."""
    import torch

    images = golden_images()
    inputs = golden_inputs(contract, images)
    with torch.inference_mode():
        logits = network(torch.from_numpy(inputs)).numpy()
    return Golden(images=images, inputs=inputs, logits=logits)


def tolerance_of(made: ExportedFile, quantised: QuantisedProgram | None, golden: Golden) -> float:
    """How far a logit may be from what it must be, which `golden` has.

    int8 is exact in the engine. Other runtimes round in float32, where two numbers may tie: such a
    value moves by one step, and the answers with it, as far as they do when values of the image do.
    """
    match made.precision:
        case "float32":
            return TOLERANCE
        case "bfloat16" | "float16":
            return BFLOAT16_TOLERANCE * float(np.abs(golden.logits).max())
        case "int8":
            if made.format in ("engine", "web") or quantised is None:
                return 0.0
            return TOLERANCE + SWAYS * max(_sway(quantised, golden), _jitter(quantised, golden))


def _sway(quantised: QuantisedProgram, golden: Golden) -> float:
    """How far one value of each image, moved by a step of eight bits, as most tensors have them,
    moves the answers at most."""
    from ..integer.simulate import simulate

    image = quantised.ranges[Place.of(IMAGE)]
    scale = np.float32(image.scale * image.largest / LARGEST)
    side, largest = golden.inputs.shape[2], 0.0
    for row, column in ((side // 2, side // 2), (side // 3, side // 2), (side // 2, side // 3)):
        moved = golden.inputs.copy()
        inward = np.where(moved[:, :, row, column] > 0, -scale, scale)
        moved[:, :, row, column] += inward
        answers = simulate(quantised, moved)[LOGITS][:, :, 0, 0]
        largest = max(largest, float(np.abs(answers - golden.logits).max()))
    return largest


def _jitter(quantised: QuantisedProgram, golden: Golden) -> float:
    """How far the answers move at most when every number that is rounded is off by a few units of
    float32's last place, as in another order of computing: what ties almost, changes sides."""
    from ..integer.simulate import simulate

    largest = 0.0
    for seed in range(_JITTERS):
        answers = simulate(jittered(quantised, seed, _ULPS), golden.inputs)[LOGITS][:, :, 0, 0]
        largest = max(largest, float(np.abs(answers - golden.logits).max()))
    return largest


def jittered(quantised: QuantisedProgram, seed: int, ulps: float) -> QuantisedProgram:
    """The network with every scale off by a random part of at most `ulps`."""
    rng = np.random.default_rng(seed)

    def near(scale: np.ndarray) -> np.ndarray:
        return scale * rng.uniform(1 - ulps, 1 + ulps, scale.shape)

    filters = tuple(
        {name: replace(filter, scale=near(filter.scale)) for name, filter in found.items()}
        for found in quantised.filters
    )
    ranges = {
        place: replace(affine, scale=float(np.float32(near(np.array(affine.scale)))))
        for place, affine in quantised.ranges.items()
    }
    return replace(quantised, filters=filters, ranges=ranges)


def disagreement(
    found: Floats, expected: Floats, *, tolerance: float, tie: float = TIE
) -> str | None:
    """What is wrong with logits (N, classes) that should be `expected`; None if nothing is.

    Another first class counts, unless the two logits tie to within `tie` of the tolerance.
    """
    if found.shape != expected.shape:
        return f"answers of shape {found.shape}, expected {expected.shape}"
    error = float(np.abs(found - expected).max())
    if not error <= tolerance:  # also where it is not a number
        return f"logits differ by up to {error:.3g}, more than {tolerance:g}"
    rows = np.arange(len(expected))
    lost = expected.max(axis=1) - expected[rows, found.argmax(axis=1)]
    changed = int((lost > tie * tolerance).sum())
    return f"another first class for {changed} of {len(expected)} images" if changed else None


def tie_of(precision: str) -> float:
    """What `disagreement` takes for a tie: in int8 whatever the tolerance allows."""
    return 2.0 if precision == "int8" else TIE


def prove(made: ExportedFile, golden: Golden, *, expected: Floats, tolerance: float) -> Proof:
    """Run the file on the golden images, whose logits must be `expected` to within `tolerance`;
    `golden` has the float network's. Raises ExportError where they are not."""
    runtime, run, compared = _opened(made)
    found = run(golden.inputs)
    tie = tie_of(made.precision)
    if problem := disagreement(found, expected, tolerance=tolerance, tie=tie):
        raise ExportError(
            f"{made.file}: {runtime} does not answer as it must to the golden images: {problem}; "
            "nothing was written"
        )
    return Proof(
        runtime=runtime,
        max_error=float(np.abs(found - expected).max()),
        float_cosine=cosine(compared(found), compared(golden.logits)),
        float_agreement=float((found.argmax(axis=1) == golden.logits.argmax(axis=1)).mean()),
    )


def _opened(made: ExportedFile) -> tuple[str, Reference, Reference]:
    """What runs the file: its first runtime, or NumPy for an engine's file where there is none; and
    what makes its answers comparable with logits."""
    for name in FORMATS[made.format]:
        try:
            session = RUNTIMES[name](made.data, threads=1, precision=made.precision, batch=None)
        except MissingEngine as error:
            say(f"{made.file} is not checked by {name}: {error}")
            continue
        return f"{session.runtime} {session.version}", partial(_run, session), session.comparable
    say(f"{made.file} is checked by NumPy")
    return f"numpy {np.__version__}", partial(run_file, made.data), lambda logits: logits


def _run(session: Session, images: Floats) -> Floats:
    return session.run(session.laid_out(images))


def cosine(a: Floats, b: Floats) -> float:
    """Of two arrays of one shape; 1 where both are zero."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(x) * np.linalg.norm(y)
    return float((x * y).sum() / lengths) if lengths else 1.0
