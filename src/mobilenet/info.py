"""What a network is and costs: `info`, the paper's table with numbers computed from its rows."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from .cost import Layer, count
from .errors import UsageError
from .models import MODELS, TABLES, parse_model_name

_FLOAT32 = 4
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
class ModelList:
    """The networks there are, at width 1 and 224 pixels."""

    models: tuple[ModelInfo, ...]

    def to_json(self) -> dict[str, Any]:
        """A JSON object: name, parameters, multiply-adds and source of each."""
        keys = ("model", "paper", "params", "madds", "peak_activation_bytes")
        return {"models": [{key: getattr(m, key) for key in keys} for m in self.models]}

    def __str__(self) -> str:
        lines = [f"{'model':<34}{'params':>8}{'madds':>9}   at 224 x 224, 1000 classes"]
        lines += [
            f"{m.model:<34}{m.params / 1e6:>6.2f} M{m.madds / 1e6:>7.1f} M   {m.paper}"
            for m in self.models
        ]
        return "\n".join([*lines, "", "mobilenet info MODEL prints a network's table"])


def info(
    model: str | None = None,
    *,
    width: float | None = None,
    size: int | None = None,
    classes: int = 1000,
    output_stride: int = 32,
    width_rule: str = "reference",
) -> ModelInfo | ModelList:
    """Print a network's table with its parameters, multiply-adds and activation memory.

    Raises UsageError for an unknown model or a size below 32.

    Args:
        model: Name or common alias of a network; without it the networks are listed.
        width: Width multiplier.
        size: Side of the square input in pixels.
        classes: Classes of the classifier.
        output_stride: 32, or 16 or 8 by dilation.
        width_rule: How V3 is scaled: reference (the authors'), torchvision or timm.
    """
    if model is None:
        return ModelList(
            models=tuple(
                _describe(name, 1.0, 224, 1000, output_stride=32, rule="reference")
                for name in MODELS
            )
        )
    named = parse_model_name(model)
    return _describe(
        named.spec.name,
        width or named.spec.width,
        size or named.size or 224,
        classes,
        output_stride=output_stride,
        rule=width_rule,
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


def _map(pixels: int, channels: int) -> str:
    return f"{pixels}²x{channels}"
