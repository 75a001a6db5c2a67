"""What public documents say of accelerators and of the operators that MobileNets have.

A rule is a claim of its source about an operator, nothing that was measured here. Where none speaks
of an operator, nothing is claimed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Feature = Literal["any", "hard_swish", "squeeze_excite", "kernel_5x5", "channels_4"]
Effect = Literal["falls off", "slower", "beware", "needs"]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """`feature` of a network on a target: `says` what its `source` says, `instead` what to do.

    `effect`: "falls off" the accelerator, onto the CPU; is "slower" there; "beware" of wrong or
    worse answers; "any" network "needs" something.
    """

    feature: Feature
    effect: Effect
    says: str
    instead: str
    source: str


CALLED: Mapping[Feature, str] = {
    "any": "any network",
    "hard_swish": "h-swish",
    "squeeze_excite": "squeeze-excite",
    "kernel_5x5": "5x5 depthwise convolution",
    "channels_4": "channels that are no multiple of 4",
}

_MINIMALISTIC = "a minimalistic V3, or V2"
_QUANTIZE = "mobilenet quantize --portable, and verify what was exported"
_KERAS_V3 = "https://keras.io/api/applications/mobilenet/ (minimalistic)"
_CORAL_OPERATORS = "https://coral.ai/docs/edgetpu/models-intro/#supported-operations"
_GPU = "https://ai.google.dev/edge/litert/performance/gpu"
_VELA = "https://gitlab.arm.com/artificial-intelligence/ethos-u/ethos-u-vela, SUPPORTED_OPS.md"
_QNN = "https://docs.qualcomm.com, QNN SDK, general/htp/htp_backend.html"
_APPLE = "https://machinelearning.apple.com/research/neural-engine-transformers"
_CORE_ML = "https://apple.github.io/coremltools/docs-guides/source/typed-execution.html"

_LOSSY = Rule(
    feature="hard_swish",
    effect="beware",
    says="V3 loses much of its accuracy in plain post-training int8",
    instead=f"{_MINIMALISTIC}; or {_QUANTIZE}",
    source="https://github.com/microsoft/onnxruntime/issues/11415",
)


def _advanced(feature: Feature) -> Rule:
    return Rule(
        feature=feature,
        effect="slower",
        says="V3 without h-swish, squeeze-excite and 5x5 is less efficient on a CPU, but much "
        "faster on GPUs and DSPs",
        instead=_MINIMALISTIC,
        source=_KERAS_V3,
    )


_NEURAL_ENGINE = (
    Rule(
        feature="any",
        effect="needs",
        says="the Neural Engine computes in float16: a float32 program runs on CPU and GPU",
        instead="export in float16, and verify",
        source=_CORE_ML,
    ),
    Rule(
        feature="squeeze_excite",
        effect="slower",
        says="the last axis of a tensor is padded to 64 bytes: the pooled maps of one pixel, 1x1, "
        "take 32 times their memory in float16",
        instead=_MINIMALISTIC,
        source=_APPLE,
    ),
)

RULES: Mapping[str, tuple[Rule, ...]] = {
    "edgetpu": (
        Rule(
            feature="any",
            effect="needs",
            says="only fully quantised 8-bit models run on it",
            instead=_QUANTIZE,
            source=_CORAL_OPERATORS,
        ),
        Rule(
            feature="hard_swish",
            effect="falls off",
            says="not among its operators, and after the first that is not, all others run on the "
            "CPU: 200 ms were seen where 12 ms are usual",
            instead=_MINIMALISTIC,
            source="https://github.com/google-coral/edgetpu/issues/353",
        ),
        Rule(
            feature="squeeze_excite",
            effect="slower",
            says="its makers advise minimalistic V3s, which have none",
            instead=_MINIMALISTIC,
            source="https://github.com/google-coral/edgetpu/issues/353",
        ),
        _LOSSY,
    ),
    "hexagon": (
        Rule(
            feature="any",
            effect="needs",
            says="8-bit and 16-bit quantised networks run everywhere, float16 on select chips only",
            instead=_QUANTIZE,
            source=_QNN,
        ),
        Rule(
            feature="hard_swish",
            effect="beware",
            says="ONNX Runtime's QNN provider ran it as a hard sigmoid until May 2026: 0.1 % top-1",
            instead=f"{_MINIMALISTIC}; or a newer provider, and verify on the device",
            source="https://github.com/onnxruntime/onnxruntime-qnn/pull/392",
        ),
        Rule(
            feature="squeeze_excite",
            effect="beware",
            says="its hard sigmoid must be quantised to the full range 0 to 1, or answers are "
            "wrong: about 2 % top-1 were seen",
            instead=f"{_MINIMALISTIC}; or a newer provider, and verify on the device",
            source="https://github.com/onnxruntime/onnxruntime-qnn/pull/473",
        ),
        *map(_advanced, ("hard_swish", "squeeze_excite", "kernel_5x5")),
        _LOSSY,
    ),
    "litert-gpu": (
        Rule(
            feature="hard_swish",
            effect="falls off",
            says="HARD_SWISH is not on the list of operators that the delegate takes; a graph that "
            "is split between GPU and CPU is often slower than on the CPU alone",
            instead=f"{_MINIMALISTIC}; or look for the delegate's warning on your device",
            source=_GPU,
        ),
        Rule(
            feature="squeeze_excite",
            effect="falls off",
            says="MEAN, its pooling, is not on the list of operators that the delegate takes",
            instead=f"{_MINIMALISTIC}; or look for the delegate's warning on your device",
            source=_GPU,
        ),
        *map(_advanced, ("hard_swish", "squeeze_excite", "kernel_5x5")),
        Rule(
            feature="channels_4",
            effect="slower",
            says="tensors are cut into four channels: 5 cost as much as 8",
            instead="a width that gives multiples of 4",
            source=_GPU,
        ),
    ),
    "ane": _NEURAL_ENGINE,
    "coreml": _NEURAL_ENGINE,
    "nnapi": (
        Rule(
            feature="any",
            effect="needs",
            says="deprecated since Android 15",
            instead="LiteRT with a delegate of its own",
            source="https://developer.android.com/ndk/guides/neuralnetworks",
        ),
        Rule(
            feature="hard_swish",
            effect="slower",
            says="an operator of its own since Android 11 (feature level 4); before, the delegate "
            "splits it into four, whose int8 answers differ by a step",
            instead=f"{_MINIMALISTIC}, where older phones count",
            source="https://github.com/tensorflow/tensorflow/issues/35847",
        ),
        _LOSSY,
    ),
    "ethos-u": (
        Rule(
            feature="any",
            effect="needs",
            says="only operators in 8 or 16 bits run on it, the others stay on the Cortex-M",
            instead=_QUANTIZE,
            source="https://pypi.org/project/ethos-u-vela/",
        ),
        Rule(
            feature="hard_swish",
            effect="beware",
            says="runs on it in 8 bits only: with 16-bit activations it stays on the Cortex-M",
            instead=f"8-bit activations; {_MINIMALISTIC} where 16 bits are needed",
            source=_VELA,
        ),
        _LOSSY,
    ),
}
