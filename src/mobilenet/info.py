"""What a network is and costs: `info`, the paper's table with numbers computed from its rows."""

import importlib.util
from dataclasses import asdict, dataclass, replace
from typing import Any

from .cost import Layer, count
from .detect import DetectorSpec
from .errors import MissingDependency, UsageError
from .faces import FaceSpec
from .keypoints import KeypointSpec
from .models import MODELS, TABLES, parse_model_name
from .networks import (
    SCENE_NETWORKS,
    SceneSpec,
    create_network,
    default_size,
    labels_of,
    rows_of,
    task_of,
    width_of,
    with_width,
)
from .segment import SegmenterSpec

_FLOAT32 = 4
# Parameters and multiply-adds of each at its own size, so that a list needs no torch and no time;
# a test counts them again
_COUNTED = {
    "ssd_mobilenet_v1": (6_673_589, 1_224_465_088),
    "ssdlite_mobilenet_v1": (5_231_476, 1_361_386_944),
    "ssdlite_mobilenet_v2": (4_484_148, 847_582_144),
    "ssdlite_mobilenet_v3_large": (3_301_460, 563_188_544),
    "ssdlite_mobilenet_v3_small": (1_764_068, 185_520_064),
    "fcos_mobilenet_v2": (2_197_084, 804_412_800),
    "fcos_mobilenet_v3_large": (3_010_220, 540_777_600),
    "fcos_mobilenet_v3_small": (983_708, 178_199_552),
    "lraspp_mobilenet_v2": (1_897_290, 2_436_014_080),
    "lraspp_mobilenet_v3_large": (3_221_538, 1_974_665_088),
    "lraspp_mobilenet_v3_small": (1_077_954, 634_732_544),
    "raspp_mobilenet_v2": (2_113_557, 2_603_958_272),
    "deeplabv3_mobilenet_v2": (4_523_541, 5_070_209_024),
    "deeplabv3_mobilenet_v3_large": (10_435_141, 9_221_988_224),
    "deeplabv3plus_mobilenet_v2": (4_675_333, 7_603_044_352),
    "pose_mobilenet_v2": (1_870_195, 452_993_024),
    "pose_mobilenet_v3_large": (3_072_931, 370_593_664),
    "pose_mobilenet_v3_small": (997_779, 157_233_152),
    "multipose_mobilenet_v2": (1_882_326, 500_441_088),
    "multipose_mobilenet_v3_large": (3_085_062, 418_041_728),
    "multipose_mobilenet_v3_small": (1_009_910, 204_681_216),
    "blazeface": (72_952, 34_140_672),
    "retinaface_mobilenet_v1_0.25": (426_218, 980_070_400),
    "retinaface_mobilenet_v2": (2_024_858, 2_913_484_800),
}
_HEADER = f"{'input':>11}  {'operator':<22} {'exp':>5} {'#out':>5} {'SE':>4} {'NL':<10} {'s':>2}"


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """A network at one width and input size. Bytes are float32, batch 1, see `cost.Cost`."""

    model: str
    paper: str
    width: float
    size: int
    classes: int
    params: int
    madds: int
    peak_activation_bytes: int
    block_activation_bytes: int
    rows: tuple[dict[str, Any], ...]
    layers: tuple[Layer, ...]

    def to_json(self) -> dict[str, Any]:
        """A JSON object of every field, `layers` one by one."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.model} {self.width:g}, {self.paper}", "", _HEADER]
        pixels = self.size
        for row in self.rows:
            lines.append(_row(row, pixels))
            pixels = -(-pixels // row["stride"])
        features = self.rows[-1]["out_channels"]
        lines.append(f"{_map(pixels, features):>11}  global average pool")
        for layer in self.layers:
            if layer.name.startswith("head."):
                shape = _map(1, layer.in_channels)
                lines.append(f"{shape:>11}  {'conv 1x1, bias':<22} {layer.out_channels:>11}")
        return "\n".join(
            [
                *lines,
                "",
                f"parameters             {self.params:>13,}",
                f"multiply-adds          {self.madds:>13,}   at {self.size} x {self.size}",
                f"peak activation memory {self.peak_activation_bytes:>13,}   bytes, layer by layer",
                f"  a block at a time    {self.block_activation_bytes:>13,}   bytes, only "
                "bottlenecks kept",
            ]
        )


@dataclass(frozen=True, kw_only=True)
class SceneInfo:
    """A network for scenes at one width and input size. `taps`: what a detector's head reads;
    `anchors`: boxes a cell of each of its maps; `outputs`: channels by name, of a detector's one
    box."""

    model: str
    task: str
    head: str
    backbone: str
    width: float
    size: int
    classes: int | None
    keypoints: int | None
    params: int
    madds: int
    taps: tuple[str, ...]
    anchors: tuple[int, ...]
    outputs: dict[str, int]
    rows: tuple[dict[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        """A JSON object of every field: `anchors` a cell of each map, finest first; `outputs` the
        channels of each by name."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.model}: {self.backbone} {self.width:g}, head {self.head}", "", _HEADER]
        pixels = self.size
        for row in self.rows:
            lines.append(_row(row, pixels))
            pixels = -(-pixels // row.get("stride", row.get("s", 1)))
        lines += ["", f"taps           {', '.join(self.taps)}"] if self.taps else [""]
        if self.anchors:
            lines.append(f"anchors a cell {', '.join(map(str, self.anchors))}")
        named = ", ".join(f"{name} {channels}" for name, channels in self.outputs.items())
        lines.append(f"outputs        {named}")
        return "\n".join(
            [
                *lines,
                f"parameters     {self.params:>13,}",
                f"multiply-adds  {self.madds:>13,}   at {self.size} x {self.size}",
            ]
        )


@dataclass(frozen=True, kw_only=True)
class ModelList:
    """The networks there are: classifiers at width 1 and 224 pixels, those for scenes at their own
    size."""

    models: tuple[ModelInfo, ...]
    scenes: tuple[SceneInfo, ...]

    def to_json(self) -> dict[str, Any]:
        """A JSON object: name, parameters, multiply-adds and source of each."""
        keys = ("model", "paper", "params", "madds", "peak_activation_bytes")
        shown = ("model", "task", "size", "params", "madds")
        return {
            "models": [{key: getattr(m, key) for key in keys} for m in self.models],
            "scenes": [{key: getattr(m, key) for key in shown} for m in self.scenes],
        }

    def __str__(self) -> str:
        lines = [f"{'model':<34}{'params':>8}{'madds':>9}   at 224 x 224, 1000 classes"]
        lines += [
            f"{m.model:<34}{m.params / 1e6:>6.2f} M{m.madds / 1e6:>7.1f} M   {m.paper}"
            for m in self.models
        ]
        lines += ["", f"{'for scenes':<34}{'params':>8}{'madds':>9}   task, at its own size"]
        for m in self.scenes:
            costs = f"{m.params / 1e6:>6.2f} M{m.madds / 1e6:>7.1f} M"
            lines.append(f"{m.model:<34}{costs}   {m.task}, {m.size} x {m.size}")
        return "\n".join([*lines, "", "mobilenet info MODEL prints a network's table"])


def info(
    model: str | None = None,
    *,
    width: float | None = None,
    size: int | None = None,
    classes: int | None = None,
    output_stride: int = 32,
    width_rule: str = "reference",
) -> ModelInfo | SceneInfo | ModelList:
    """Print a network's table with its parameters, multiply-adds and activation memory.

    Raises UsageError for an unknown model or a size below 32, MissingDependency for a network for
    scenes without torch, which counts it.

    Args:
        model: Name or common alias of a network; without it the networks are listed.
        width: Width multiplier.
        size: Side of the square input in pixels.
        classes: Classes: by default 1000 of a classifier, and a network's own for scenes.
        output_stride: 32, or 16 or 8 by dilation.
        width_rule: How V3 is scaled: reference (the authors'), torchvision or timm.
    """
    if model is None:
        return ModelList(
            models=tuple(
                _describe(name, 1.0, 224, 1000, output_stride=32, rule="reference")
                for name in MODELS
            ),
            scenes=tuple(
                _scene_info(name, spec, None, counted=_COUNTED[name])
                for name, spec in SCENE_NETWORKS.items()
            ),
        )
    if model in SCENE_NETWORKS:
        if output_stride != 32 or width_rule != "reference":
            raise UsageError("--output-stride and --width-rule are of classifiers")
        if importlib.util.find_spec("torch") is None:
            raise MissingDependency("torch", "train", f"counting {model}")
        spec = _changed(SCENE_NETWORKS[model], width, classes)
        return _scene_info(model, spec, size, counted=None)
    named = parse_model_name(model)
    return _describe(
        named.spec.name,
        width or named.spec.width,
        size or named.size or 224,
        1000 if classes is None else classes,
        output_stride=output_stride,
        rule=width_rule,
    )


def _changed(spec: SceneSpec, width: float | None, classes: int | None) -> SceneSpec:
    """Of this width and so many classes: a segmenter's with the background, as its labels are."""
    if width is not None:
        spec = with_width(spec, width)
    if classes is None:
        return spec
    if isinstance(spec, KeypointSpec | FaceSpec):
        raise UsageError(
            "--classes: networks for keypoints and faces have one, whatever it is called"
        )
    return replace(spec, classes=classes)


def _scene_info(
    name: str, spec: SceneSpec, size: int | None, *, counted: tuple[int, int] | None
) -> SceneInfo:
    """`counted`: its parameters and multiply-adds, where they are known."""
    if size is None:
        size = default_size(spec)
    if size < 32:
        raise UsageError(f"size {size}: expected at least 32 pixels")
    if counted is None:
        from .heads import count_network

        cost = count_network(lambda: create_network(spec), size, size)
        counted = cost.params, cost.madds
    match spec:
        case DetectorSpec():
            taps, anchors = spec.taps, spec.boxes
            outputs = {"scores": spec.scores, "boxes": 4}
        case SegmenterSpec():
            taps, anchors, outputs = (), (), {"segments": spec.classes}
        case KeypointSpec():
            taps, anchors, outputs = (), (), spec.outputs
        case FaceSpec():
            taps, anchors = (), spec.boxes
            outputs = {"scores": 1, "boxes": 4, "landmarks": 2 * spec.landmarks}
    return SceneInfo(
        model=name,
        task=task_of(spec),
        head=spec.head,
        backbone=spec.head if spec.backbone is None else spec.backbone.name,
        width=width_of(spec),
        size=size,
        classes=labels_of(spec),
        keypoints=spec.keypoints if isinstance(spec, KeypointSpec) else None,
        params=counted[0],
        madds=counted[1],
        taps=taps,
        anchors=anchors if isinstance(spec, DetectorSpec | FaceSpec) and spec.anchors else (),
        outputs=outputs,
        rows=tuple(asdict(block) for block in rows_of(spec)),
    )


def _describe(
    name: str, width: float, size: int, classes: int, *, output_stride: int, rule: str
) -> ModelInfo:
    spec = replace(
        MODELS[name],
        width=width,
        classes=classes,
        output_stride=output_stride,
        width_rule=rule,  # pyright: ignore[reportArgumentType] - ModelSpec refuses others
    )
    network = spec.network()
    try:
        cost = count(network, size)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return ModelInfo(
        model=name,
        paper=TABLES[name].paper,
        width=width,
        size=size,
        classes=classes,
        params=cost.params,
        madds=cost.madds,
        peak_activation_bytes=_FLOAT32 * cost.peak_elements,
        block_activation_bytes=_FLOAT32 * cost.block_elements,
        rows=tuple(asdict(block) for block in network.blocks),
        layers=cost.layers,
    )


def _row(row: dict[str, Any], pixels: int) -> str:
    if "kind" not in row:
        return _blaze_row(row, pixels)
    kernel = f"{row['kernel']}x{row['kernel']}"
    operator = {
        "conv": f"conv {kernel}",
        "separable": f"dw {kernel}, conv 1x1",
        "inverted": f"bneck {kernel}",
    }[row["kind"]]
    if row["dilation"] > 1:
        operator += f" rate {row['dilation']}"
    exp = row["expanded"] if row["kind"] == "inverted" else ""
    return (
        f"{_map(pixels, row['in_channels']):>11}  {operator:<22} {exp:>5} "
        f"{row['out_channels']:>5} {row['squeeze'] or '':>4} {row['activation']:<10} "
        f"{row['stride']:>2}"
    )


def _blaze_row(row: dict[str, Any], pixels: int) -> str:
    """Of BlazeFace's own table: its input's channels are the output's of the row above."""
    kind = "conv 5x5" if "k" in row else "BlazeBlock" if "p" not in row else "double BlazeBlock"
    return (
        f"{f'{pixels}²':>11}  {kind:<22} {row.get('p', ''):>5} {row['c']:>5} {'':>4} {'RE':<10} "
        f"{row['s']:>2}"
    )


def _map(pixels: int, channels: int) -> str:
    return f"{pixels}²x{channels}"
