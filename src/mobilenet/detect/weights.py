"""torchvision's weights for detectors."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..errors import WeightsError
from ..weights.names import NORM, torchvision

if TYPE_CHECKING:
    from torch import Tensor

    from .spec import DetectorSpec

_COUNTER = "num_batches_tracked"
_PLAIN = ("weight", "bias")


def torchvision_state(spec: "DetectorSpec", theirs: Mapping[str, "Tensor"]) -> dict[str, "Tensor"]:
    """A state dict of torchvision's `ssdlite320_mobilenet_v3_large`, or of its SSDLite on another
    of its backbones, by our names; norms' counters start from 0.

    torchvision/models/detection/ssdlite.py. Raises WeightsError for a head or backbone that it does
    not have, and for a tensor that is missing or left over.
    """
    names = _names(spec)
    missing = sorted(set(names.values()) - set(theirs))
    extra = sorted(
        name for name in set(theirs) - set(names.values()) if not name.endswith(_COUNTER)
    )
    if missing or extra:
        raise WeightsError(
            f"torchvision's state dict does not fit head {spec.head!r} on {spec.backbone.name}: "
            f"missing {missing[:5]}, left over {extra[:5]}"
        )
    state = {ours: theirs[name] for ours, name in names.items()}
    counters = {
        ours.removesuffix("running_var") + _COUNTER: value.new_zeros(()).long()
        for ours, value in state.items()
        if ours.endswith("running_var")
    }
    return {**state, **counters}


def _names(spec: "DetectorSpec") -> dict[str, str]:
    """Our tensors' names to theirs."""
    network = spec.network()
    layers = torchvision(spec.backbone, ())
    taps = network.taps()
    if spec.head != "ssdlite" or not layers or "c4_expanded" not in taps:
        raise WeightsError(
            f"torchvision has no head {spec.head!r} on {spec.backbone.name}: only 'ssdlite', and "
            "on V2 and V3"
        )
    split = taps["c4_expanded"].block
    names: dict[str, str] = {}
    for ours, (conv, norm) in layers.items():
        if not ours.startswith("backbone."):
            continue
        if norm is None:
            names |= {f"{ours}.{part}": f"{_moved(conv, split)}.{part}" for part in _PLAIN}
        else:
            names |= _layer(ours, _moved(conv, split), _moved(norm, split))
    for index in range(len(spec.extras)):
        for step, part in enumerate(("reduce", "strided", "project")):
            there = f"backbone.extra.{index}.{step}"
            names |= _layer(f"head.extras.{index}.{part}", f"{there}.0", f"{there}.1")
    for index in range(len(spec.boxes)):
        for ours, theirs in (("classes", "classification"), ("boxes", "regression")):
            here, there = f"head.{ours}.{index}", f"head.{theirs}_head.module_list.{index}"
            names |= _layer(f"{here}.depthwise", f"{there}.0.0", f"{there}.0.1")
            names |= {f"{here}.conv.{part}": f"{there}.1.{part}" for part in _PLAIN}
    return names


def _layer(ours: str, conv: str, norm: str) -> dict[str, str]:
    return {
        f"{ours}.conv.weight": f"{conv}.weight",
        **{f"{ours}.norm.{part}": f"{norm}.{part}" for part in NORM},
    }


def _moved(name: str, split: int) -> str:
    """Their classifier's `features.<block>...`, cut in two behind the expansion of block `split`,
    whose later steps keep their numbers."""
    _, number, *rest = name.split(".")
    block = int(number)
    if block < split:
        return ".".join(["backbone.features.0", number, *rest])
    if block > split:
        return ".".join(["backbone.features.1", str(block - split), *rest])
    inside = rest[1:]  # behind "block" or "conv"
    if inside[0] == "0":
        return ".".join(["backbone.features.0", number, *inside[1:]])
    return ".".join(["backbone.features.1.0", *inside])
