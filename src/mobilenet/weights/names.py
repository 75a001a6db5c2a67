"""The layers of a network in order, and what each publisher calls them.

Every publisher's names are found by walking the network's blocks and the parts they have, so that a
block without an expansion or a squeeze-excite shifts nothing. A layer with a norm holds two modules
(convolution and norm), the others one with a bias.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from ..architectures import Block, Network, resolve
from ..models import TABLES, ModelSpec

# ours -> the publisher's convolution, and its norm where the layer has one
Modules = tuple[str, str | None]
Names = dict[str, Modules]

NORM = ("weight", "bias", "running_mean", "running_var")
CLASSIFIER = "head.classifier"


@dataclass(frozen=True)
class Layer:
    """One convolution: our module's name, its weight's shape, and whether a norm follows."""

    name: str
    weight: tuple[int, int, int, int]
    norm: bool = True


def layers(network: Network) -> Iterator[Layer]:
    """Every convolution in the order of the network; the last one is the classifier."""
    for index, block in enumerate(network.blocks):
        yield from _block_layers(f"backbone.blocks.{index}", block)
    channels = network.features
    if network.hidden is not None:
        yield Layer("head.hidden", (network.hidden, channels, 1, 1), norm=False)
        channels = network.hidden
    yield Layer(CLASSIFIER, (network.classes, channels, 1, 1), norm=False)


def _block_layers(name: str, block: Block) -> Iterator[Layer]:
    k, wide, out = block.kernel, block.expanded, block.out_channels
    if block.kind == "conv":
        yield Layer(f"{name}.conv", (out, block.in_channels, k, k))
        return
    if block.expands:
        yield Layer(f"{name}.expand", (wide, block.in_channels, 1, 1))
    yield Layer(f"{name}.depthwise", (wide, 1, k, k))
    if block.squeeze:
        yield Layer(f"{name}.squeeze.reduce", (block.squeeze, wide, 1, 1), norm=False)
        yield Layer(f"{name}.squeeze.expand", (wide, block.squeeze, 1, 1), norm=False)
    last = "pointwise" if block.kind == "separable" else "project"
    yield Layer(f"{name}.{last}", (out, wide, 1, 1))


def tensors(layer: Layer, modules: Modules) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """The tensors of a layer: (our name, the publisher's name, our shape)."""
    conv, norm = modules
    channels = layer.weight[:1]
    if norm is None:
        yield f"{layer.name}.weight", f"{conv}.weight", layer.weight
        yield f"{layer.name}.bias", f"{conv}.bias", channels
        return
    yield f"{layer.name}.conv.weight", f"{conv}.weight", layer.weight
    for part in NORM:
        yield f"{layer.name}.norm.{part}", f"{norm}.{part}", channels


# ------------------------------------------------------------------------------- the publishers


def ours(spec: ModelSpec, present: Iterable[str]) -> Names:
    """This package's own names."""
    return {
        layer.name: (f"{layer.name}.conv", f"{layer.name}.norm")
        if layer.norm
        else (layer.name, None)
        for layer in layers(spec.network())
    }


def torchvision(spec: ModelSpec, present: Iterable[str]) -> Names:
    """torchvision/models/mobilenetv2.py and mobilenetv3.py; it has no V1 (then {})."""
    network = spec.network()
    names: Names = {}
    for index, block in enumerate(network.blocks):
        feature, here = f"features.{index}", f"backbone.blocks.{index}"
        match block.kind:
            case "separable":
                return {}
            case "conv":
                names[f"{here}.conv"] = (f"{feature}.0", f"{feature}.1")
            case "inverted":
                parts = [layer.name for layer in _block_layers(here, block)]
                inside = _torchvision_v2 if network.hidden is None else _torchvision_v3
                names |= inside(feature, parts)
    if network.hidden is None:
        names[CLASSIFIER] = ("classifier.1", None)
    else:
        names |= {"head.hidden": ("classifier.0", None), CLASSIFIER: ("classifier.3", None)}
    return names


def _torchvision_v2(feature: str, parts: list[str]) -> Names:
    """`conv` lists [expand,] depthwise as pairs, then the project convolution and its norm bare."""
    names: Names = {
        part: (f"{feature}.conv.{step}.0", f"{feature}.conv.{step}.1")
        for step, part in enumerate(parts[:-1])
    }
    last = len(parts) - 1
    names[parts[-1]] = (f"{feature}.conv.{last}", f"{feature}.conv.{last + 1}")
    return names


def _torchvision_v3(feature: str, parts: list[str]) -> Names:
    """`block` lists [expand,] depthwise, [squeeze-excite,] project."""
    names: Names = {}
    step = 0
    for part in parts:
        prefix = f"{feature}.block.{step}"
        if part.endswith("squeeze.reduce"):
            names[part] = (f"{prefix}.fc1", None)
            continue  # fc2 is in the same step
        if part.endswith("squeeze.expand"):
            names[part] = (f"{prefix}.fc2", None)
        else:
            names[part] = (f"{prefix}.0", f"{prefix}.1")
        step += 1
    return names


_TIMM_SEPARABLE = {"depthwise": ("conv_dw", "bn1"), "last": ("conv_pw", "bn2")}
_TIMM_INVERTED = {
    "expand": ("conv_pw", "bn1"),
    "depthwise": ("conv_dw", "bn2"),
    "last": ("conv_pwl", "bn3"),
}


def timm(spec: ModelSpec, present: Iterable[str]) -> Names:
    """timm/models/efficientnet.py and mobilenetv3.py: `blocks.<stage>.<index in the stage>`."""
    network = spec.network()
    names: Names = {"backbone.blocks.0.conv": ("conv_stem", "bn1")}
    for index, (block, place) in enumerate(
        zip(network.blocks[1:], _timm_places(spec), strict=True), start=1
    ):
        here = f"backbone.blocks.{index}"
        if block.kind == "conv":  # V2's last convolution is the head; V3's is one more stage
            in_head = network.hidden is None
            names[f"{here}.conv"] = (
                ("conv_head", "bn2") if in_head else (f"{place}.conv", f"{place}.bn1")
            )
            continue
        table = _TIMM_INVERTED if block.expands else _TIMM_SEPARABLE
        for layer in _block_layers(here, block):
            part = layer.name.removeprefix(f"{here}.")
            if part.startswith("squeeze."):
                names[layer.name] = (f"{place}.se.conv_{part.removeprefix('squeeze.')}", None)
            else:
                conv, norm = table["last" if part in ("project", "pointwise") else part]
                names[layer.name] = (f"{place}.{conv}", f"{place}.{norm}")
    if network.hidden is not None:
        names["head.hidden"] = ("conv_head", None)
    names[CLASSIFIER] = ("classifier", None)
    return names


def _timm_places(spec: ModelSpec) -> list[str]:
    """Where each block but the stem stands: stages are the runs of one width in the paper's table.

    (In the scaled network two neighbouring stages may have the same width.)
    """
    places: list[str] = []
    stage, position, before = -1, 0, None
    for block in resolve(TABLES[spec.name]).blocks[1:]:
        same = before is not None and (before.kind, before.out_channels) == (
            block.kind,
            block.out_channels,
        )
        stage, position = (stage, position + 1) if same else (stage + 1, 0)
        places.append(f"blocks.{stage}.{position}")
        before = block
    return places


def huggingface(spec: ModelSpec, present: Iterable[str]) -> Names:
    """transformers' MobileNetV1 and V2, with the backbone's prefix or, saved alone, without."""
    network = spec.network()
    version = {"separable": "1", "inverted": "2"}[network.blocks[1].kind]
    if network.hidden is not None:
        return {}
    prefix = f"mobilenet_v{version}."
    if not any(name.startswith(prefix) for name in present):
        prefix = ""
    walk = _huggingface_v1 if version == "1" else _huggingface_v2
    names: Names = {
        ours: (f"{prefix}{theirs}.convolution", f"{prefix}{theirs}.normalization")
        for ours, theirs in walk(network)
    }
    names[CLASSIFIER] = ("classifier", None)
    return names


def _huggingface_v1(network: Network) -> Iterator[tuple[str, str]]:
    """Depthwise and pointwise convolutions are counted through."""
    yield "backbone.blocks.0.conv", "conv_stem"
    for index in range(1, len(network.blocks)):
        yield f"backbone.blocks.{index}.depthwise", f"layer.{2 * index - 2}"
        yield f"backbone.blocks.{index}.pointwise", f"layer.{2 * index - 1}"


def _huggingface_v2(network: Network) -> Iterator[tuple[str, str]]:
    """The block without expansion belongs to the stem."""
    called = {"expand": "expand_1x1", "depthwise": "conv_3x3", "project": "reduce_1x1"}
    yield "backbone.blocks.0.conv", "conv_stem.first_conv"
    for index, block in enumerate(network.blocks[1:], start=1):
        here = f"backbone.blocks.{index}"
        if block.kind == "conv":
            yield f"{here}.conv", "conv_1x1"
            continue
        place = "conv_stem" if index == 1 else f"layer.{index - 2}"
        for layer in _block_layers(here, block):
            yield layer.name, f"{place}.{called[layer.name.removeprefix(f'{here}.')]}"


_EFFICIENTNET = {
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
}


def efficientnet_pytorch(spec: ModelSpec, present: Iterable[str]) -> Names:
    """The package efficientnet-pytorch and its offspring, of EfficientNet-Lite alone (else {})."""
    if spec.name != "efficientnet_lite0":
        return {}
    blocks = spec.network().blocks
    names: Names = {
        "backbone.blocks.0.conv": ("_conv_stem", "_bn0"),
        f"backbone.blocks.{len(blocks) - 1}.conv": ("_conv_head", "_bn1"),
        CLASSIFIER: ("_fc", None),
    }
    for index, block in enumerate(blocks[1:-1], start=1):
        here, place = f"backbone.blocks.{index}", f"_blocks.{index - 1}"
        for layer in _block_layers(here, block):
            conv, norm = _EFFICIENTNET[layer.name.removeprefix(f"{here}.")]
            names[layer.name] = (f"{place}.{conv}", f"{place}.{norm}")
    return names


_KERAS_LAYER = re.compile(r"(?P<layer>.+)\.(?:weight|bias|running_mean|running_var)")


def keras(spec: ModelSpec, present: Iterable[str]) -> Names:
    """keras.applications, by order: Keras itself fits a file to a network so, names have changed.

    `present` is in the file's order, with each tensor named `<kind>:<layer>.<part>` where kind is
    "conv", "depthwise" or "norm" (see `keras.read_keras`). Layers that the file lacks are left out.
    """
    queues: dict[str, list[str]] = {"conv": [], "depthwise": [], "norm": []}
    for name in present:
        if match := _KERAS_LAYER.fullmatch(name):
            queue = queues[name.partition(":")[0]]
            if match["layer"] not in queue:
                queue.append(match["layer"])
    walks = {kind: iter(queue) for kind, queue in queues.items()}
    names: Names = {}
    for layer in layers(spec.network()):
        conv = next(walks["depthwise" if layer.name.endswith("depthwise") else "conv"], None)
        norm = next(walks["norm"], None) if layer.norm else None
        if conv is not None and (norm is not None or not layer.norm):
            names[layer.name] = (conv, norm)
    return names


PUBLISHERS: dict[str, Callable[[ModelSpec, Iterable[str]], Names]] = {
    "mobilenet": ours,
    "torchvision": torchvision,
    "timm": timm,
    "huggingface": huggingface,
    "efficientnet_pytorch": efficientnet_pytorch,
    "keras": keras,
}
