"""torchvision's weights for segmenters."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..errors import WeightsError
from ..weights.names import torchvision

if TYPE_CHECKING:
    from torch import Tensor

    from .model import Segmenter
    from .spec import SegmenterSpec

_COUNTER = "num_batches_tracked"
_NORM = ("weight", "bias", "running_mean", "running_var")


def torchvision_state(spec: "SegmenterSpec", theirs: Mapping[str, "Tensor"]) -> dict[str, "Tensor"]:
    """A state dict of torchvision's `lraspp_` or `deeplabv3_mobilenet_v3_large` by our names.

    torchvision/models/segmentation/{lraspp,deeplabv3,_utils}.py. An auxiliary head that `spec`
    does not have is left out. Raises WeightsError for a tensor that is missing or left over.
    """
    names = _torchvision_names(spec)
    missing = sorted(set(names.values()) - set(theirs))
    ignored = () if spec.auxiliary else ("aux_classifier.",)
    extra = sorted(
        name
        for name in set(theirs) - set(names.values())
        if not name.endswith(_COUNTER) and not name.startswith(ignored)
    )
    if missing or extra:
        raise WeightsError(
            f"torchvision's state dict does not fit head {spec.head!r} on {spec.backbone.name}: "
            f"missing {missing[:5]}, left over {extra[:5]}"
        )
    return {ours: theirs[name] for ours, name in names.items()}


def load_state(segmenter: "Segmenter", state: Mapping[str, "Tensor"]) -> None:
    """Load a whole state dict of our names; norms' counters may be absent.

    Raises WeightsError for a tensor that is missing, left over or of another shape.
    """
    try:
        found = segmenter.load_state_dict(dict(state), strict=False)
    except RuntimeError as error:
        raise WeightsError(f"weights do not fit the segmenter: {error}") from None
    missing = [name for name in found.missing_keys if not name.endswith(_COUNTER)]
    if missing or found.unexpected_keys:
        raise WeightsError(
            "weights do not fit the segmenter: "
            f"missing {missing[:5]}, left over {found.unexpected_keys[:5]}"
        )


def _torchvision_names(spec: "SegmenterSpec") -> dict[str, str]:
    """Ours -> theirs, tensor by tensor."""
    modules: dict[str, tuple[str, str | None]] = {}
    last = len(spec.network().blocks)
    for ours, (conv, norm) in torchvision(spec.backbone, ()).items():
        if ours.startswith("backbone.") and int(ours.split(".")[2]) < last:
            name = conv.replace("features.", "backbone.", 1)
            modules[ours] = (name, norm and norm.replace("features.", "backbone.", 1))
    if spec.head == "lraspp":
        modules |= {
            "head.wide": ("classifier.cbr.0", "classifier.cbr.1"),
            "head.gate": ("classifier.scale.1", None),
            "head.low": ("classifier.low_classifier", None),
            "head.high": ("classifier.high_classifier", None),
        }
    else:
        branches = ["point", *(f"dilated.{index}" for index in range(len(spec.rates)))]
        for index, branch in enumerate(branches):
            place = f"classifier.0.convs.{index}"
            modules[f"head.aspp.{branch}"] = (f"{place}.0", f"{place}.1")
        pool = f"classifier.0.convs.{len(branches)}"
        modules |= {
            "head.aspp.pool.conv": (f"{pool}.1", f"{pool}.2"),
            "head.aspp.join": ("classifier.0.project.0", "classifier.0.project.1"),
            "head.refine": ("classifier.1", "classifier.2"),
            "head.classifier": ("classifier.4", None),
        }
    if spec.auxiliary:
        modules |= {
            "auxiliary.conv": ("aux_classifier.0", "aux_classifier.1"),
            "auxiliary.classifier": ("aux_classifier.4", None),
        }
    tensors: dict[str, str] = {}
    for ours, (conv, norm) in modules.items():
        if norm is None:
            tensors[f"{ours}.weight"] = f"{conv}.weight"
            if ours != "head.gate":
                tensors[f"{ours}.bias"] = f"{conv}.bias"
            continue
        tensors[f"{ours}.conv.weight"] = f"{conv}.weight"
        tensors |= {f"{ours}.norm.{part}": f"{norm}.{part}" for part in _NORM}
    return tensors
