"""The papers' tables as rows, and the functions of a table (standard library only).

Sources: MobileNetV1 arXiv 1704.04861 Table 1; MobileNetV2 arXiv 1801.04381 Table 2;
MobileNetV3 arXiv 1905.02244 Tables 1 and 2; where the papers and the authors' code
(tensorflow/models, research/slim/nets) disagree, the code is followed and the row says so.

A table is scaled and resolved into a `Network`: blocks with absolute channels, from which the
costs are computed, the modules are built and every other runtime is planned.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

Activation = Literal["relu", "relu6", "hard_swish"]
WidthRule = Literal["reference", "torchvision", "timm"]
BlockKind = Literal["conv", "separable", "inverted"]

WIDTH_RULES: tuple[str, ...] = ("reference", "torchvision", "timm")
OUTPUT_STRIDES = (8, 16, 32)
_NL: dict[str, Activation] = {"RE": "relu", "RE6": "relu6", "HS": "hard_swish"}

__ = False  # a blank cell of the papers' tables


# ------------------------------------------------------------------ rows, as the papers print them


@dataclass(frozen=True)
class Conv:
    """An ordinary convolution: kernel k, c output channels, nonlinearity, stride s."""

    k: int
    c: int
    NL: str
    s: int


@dataclass(frozen=True)
class Separable:
    """V1: "Conv dw / s" followed by "Conv / s1" to c channels."""

    c: int
    s: int


@dataclass(frozen=True)
class Bottleneck:
    """V2: expansion factor t, output channels c, repeated n times, first stride s."""

    t: int
    c: int
    n: int
    s: int


@dataclass(frozen=True)
class Bneck:
    """V3: kernel k, expansion size, #out, squeeze-and-excite, nonlinearity, stride."""

    k: int
    exp: int
    out: int
    SE: bool
    NL: str
    s: int


Row = Separable | Bottleneck | Bneck


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One paper's table: stem, body, the last 1x1 convolution, and the layer behind the pool."""

    paper: str
    stem: Conv
    rows: tuple[Row, ...]
    last: Conv | None = None
    hidden: int | None = None  # V3's 1x1 convolution with bias after the pool
    hidden_NL: str = "HS"
    dropout: float = 0.0


# fmt: off
V1 = Architecture(
    paper="arXiv 1704.04861, Table 1",
    stem=Conv(3, 32, "RE6", 2),
    rows=(
        #          c    s
        Separable(64,   1),
        Separable(128,  2),
        Separable(128,  1),
        Separable(256,  2),
        Separable(256,  1),
        Separable(512,  2),
        Separable(512,  1),
        Separable(512,  1),
        Separable(512,  1),
        Separable(512,  1),
        Separable(512,  1),
        Separable(1024, 2),
        Separable(1024, 1),  # the paper prints s2 here; its sizes and the authors' code need s1
    ),
    dropout=0.001,
)

V2 = Architecture(
    paper="arXiv 1801.04381, Table 2",
    stem=Conv(3, 32, "RE6", 2),
    rows=(
        #          t  c    n  s
        Bottleneck(1, 16,  1, 1),
        Bottleneck(6, 24,  2, 2),
        Bottleneck(6, 32,  3, 2),
        Bottleneck(6, 64,  4, 2),
        Bottleneck(6, 96,  3, 1),
        Bottleneck(6, 160, 3, 2),
        Bottleneck(6, 320, 1, 1),
    ),
    last=Conv(1, 1280, "RE6", 1),
    dropout=0.2,
)

V3_LARGE = Architecture(
    paper="arXiv 1905.02244, Table 1",
    stem=Conv(3, 16, "HS", 2),
    rows=(
        #     k  exp  out  SE    NL    s
        Bneck(3, 16,  16,  __,   "RE", 1),
        Bneck(3, 64,  24,  __,   "RE", 2),
        Bneck(3, 72,  24,  __,   "RE", 1),
        Bneck(5, 72,  40,  True, "RE", 2),
        Bneck(5, 120, 40,  True, "RE", 1),
        Bneck(5, 120, 40,  True, "RE", 1),
        Bneck(3, 240, 80,  __,   "HS", 2),
        Bneck(3, 200, 80,  __,   "HS", 1),
        Bneck(3, 184, 80,  __,   "HS", 1),
        Bneck(3, 184, 80,  __,   "HS", 1),
        Bneck(3, 480, 112, True, "HS", 1),
        Bneck(3, 672, 112, True, "HS", 1),
        Bneck(5, 672, 160, True, "HS", 2),
        Bneck(5, 960, 160, True, "HS", 1),
        Bneck(5, 960, 160, True, "HS", 1),
    ),
    last=Conv(1, 960, "HS", 1),
    hidden=1280,
    dropout=0.2,
)

V3_SMALL = Architecture(
    paper="arXiv 1905.02244, Table 2",
    stem=Conv(3, 16, "HS", 2),
    rows=(
        #     k  exp  out  SE    NL    s
        Bneck(3, 16,  16,  True, "RE", 2),
        Bneck(3, 72,  24,  __,   "RE", 2),
        Bneck(3, 88,  24,  __,   "RE", 1),
        Bneck(5, 96,  40,  True, "HS", 2),
        Bneck(5, 240, 40,  True, "HS", 1),
        Bneck(5, 240, 40,  True, "HS", 1),
        Bneck(5, 120, 48,  True, "HS", 1),
        Bneck(5, 144, 48,  True, "HS", 1),
        Bneck(5, 288, 96,  True, "HS", 2),
        Bneck(5, 576, 96,  True, "HS", 1),
        Bneck(5, 576, 96,  True, "HS", 1),
    ),
    last=Conv(1, 576, "HS", 1),  # the paper ticks SE here; no implementation has it
    hidden=1024,
    dropout=0.2,
)

EFFICIENTNET_LITE0 = Architecture(
    paper="tensorflow/tpu, models/official/efficientnet/lite (B0 of arXiv 1905.11946, Table 1)",
    stem=Conv(3, 32, "RE6", 2),
    rows=(
        #     k  exp   out  SE  NL     s
        Bneck(3, 32,   16,  __, "RE6", 1),
        Bneck(3, 96,   24,  __, "RE6", 2),
        Bneck(3, 144,  24,  __, "RE6", 1),
        Bneck(5, 144,  40,  __, "RE6", 2),
        Bneck(5, 240,  40,  __, "RE6", 1),
        Bneck(3, 240,  80,  __, "RE6", 2),
        Bneck(3, 480,  80,  __, "RE6", 1),
        Bneck(3, 480,  80,  __, "RE6", 1),
        Bneck(5, 480,  112, __, "RE6", 1),
        Bneck(5, 672,  112, __, "RE6", 1),
        Bneck(5, 672,  112, __, "RE6", 1),
        Bneck(5, 672,  192, __, "RE6", 2),
        Bneck(5, 1152, 192, __, "RE6", 1),
        Bneck(5, 1152, 192, __, "RE6", 1),
        Bneck(5, 1152, 192, __, "RE6", 1),
        Bneck(3, 1152, 320, __, "RE6", 1),
    ),
    last=Conv(1, 1280, "RE6", 1),
    dropout=0.2,
)
# fmt: on


# ------------------------------------------------------------------------- functions of a table


def minimalistic(table: Architecture) -> Architecture:
    """The V3 variant for hardware without 5x5, SE and h-swish: 3x3 kernels, ReLU, no SE.

    Source: research/slim `V3_LARGE_MINIMALISTIC`, `V3_SMALL_MINIMALISTIC`.
    """
    rows = tuple(
        replace(row, k=3, SE=False, NL="RE") if isinstance(row, Bneck) else row
        for row in table.rows
    )
    last = table.last and replace(table.last, NL="RE")
    return replace(table, stem=replace(table.stem, NL="RE"), rows=rows, last=last, hidden_NL="RE")


def reduce_tail(table: Architecture) -> Architecture:
    """Halve the channels between C4 and C5, as V3's detection networks do (V3 paper, 6.3)."""
    if not all(isinstance(row, Bneck) for row in table.rows) or table.last is None:
        raise ValueError("reduce_tail: only V3 tables have a reduced form")
    rows: list[Bneck] = [row for row in table.rows if isinstance(row, Bneck)]
    start = max(index for index, row in enumerate(rows) if row.s == 2)  # the block C4 -> C5
    tail = [replace(rows[start], out=rows[start].out // 2)]
    tail += [replace(row, exp=row.exp // 2, out=row.out // 2) for row in rows[start + 1 :]]
    last = replace(table.last, c=table.last.c // 2)
    hidden = table.hidden and table.hidden // 2
    return replace(table, rows=(*rows[:start], *tail), last=last, hidden=hidden)


def halve_last_stage(table: Architecture) -> Architecture:
    """ "RF2" of the V3 paper's segmentation networks: half the channels behind C4 (Table 7).

    Its parameters tell that in V3, unlike in `reduce_tail`, the first expansion is halved too.
    """
    rows = [row for row in table.rows if isinstance(row, Bottleneck | Bneck)]
    if len(rows) != len(table.rows) or table.last is None:
        raise ValueError("halve_last_stage: only V2 and V3 tables have such a form")
    start = max(index for index, row in enumerate(rows) if row.s == 2)  # the block C4 -> C5
    tail = [
        replace(row, c=row.c // 2)
        if isinstance(row, Bottleneck)
        else replace(row, exp=row.exp // 2, out=row.out // 2)
        for row in rows[start:]
    ]
    last = replace(table.last, c=table.last.c // 2)
    return replace(
        table,
        rows=(*rows[:start], *tail),
        last=last,
        hidden=table.hidden and table.hidden // 2,
    )


V3_LARGE_MINIMALISTIC = minimalistic(V3_LARGE)
V3_SMALL_MINIMALISTIC = minimalistic(V3_SMALL)


def make_divisible(value: float, divisor: int = 8) -> int:
    """Round to a multiple of `divisor`, never down by more than 10 % (research/slim)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


# ------------------------------------------------------------------- a table resolved to channels


@dataclass(frozen=True, kw_only=True)
class Block:
    """One building block with absolute channels.

    kind "conv": convolution, norm, activation. "separable": depthwise and pointwise, each with
    norm and activation. "inverted": [1x1 expand,] depthwise, [squeeze-excite,] linear 1x1 project.
    `expanded` is the width of the depthwise convolution ("conv": its output); `squeeze` is the
    width of the squeeze-excite bottleneck, 0 without one; `stage` n means that the output has the
    nominal stride 2**n (under dilation the real stride is smaller, and `stride_removed` marks the
    block whose stride was taken away).
    """

    kind: BlockKind
    kernel: int
    in_channels: int
    expanded: int
    out_channels: int
    squeeze: int = 0
    activation: Activation
    stride: int
    dilation: int = 1
    stage: int
    stride_removed: bool = False

    @property
    def expands(self) -> bool:
        """Whether an inverted residual has an expanding 1x1 convolution."""
        return self.kind == "inverted" and self.expanded != self.in_channels

    @property
    def residual(self) -> bool:
        """Whether the block adds its input to its output.

        A stride removed by dilation does not create a residual: the weights have none there.
        """
        return (
            self.kind == "inverted"
            and self.stride == 1
            and not self.stride_removed
            and self.in_channels == self.out_channels
        )


@dataclass(frozen=True, kw_only=True)
class Tap:
    """Where a named feature is read: behind block `block`, or at its expanded tensor."""

    block: int
    expanded: bool
    channels: int
    stride: int


@dataclass(frozen=True, kw_only=True)
class Network:
    """A classifier as resolved rows: blocks[0] is the stem, `hidden` V3's layer behind the pool."""

    blocks: tuple[Block, ...]
    hidden: int | None
    hidden_activation: Activation = "hard_swish"
    classes: int
    dropout: float

    @property
    def features(self) -> int:
        """Channels of the feature map that is pooled."""
        return self.blocks[-1].out_channels

    def taps(self) -> dict[str, Tap]:
        """Named features, in the order of the network.

        c1 ... c5: the last bottleneck's output at nominal stride 2 ... 32; `c3_first`: the first
        one's at stride 8, which torchvision's segmentation heads read; `c4_expanded`: the expanded
        tensor of the block that leads from C4 to C5, which SSDLite reads (not in V1); `last`: the
        map that is pooled. `Tap.stride` is the real stride, also under dilation.
        """
        found: dict[str, Tap] = {}
        stride = 1
        for index, block in enumerate(self.blocks):
            if block.stage == 5 and block.expands and "c4_expanded" not in found:
                found["c4_expanded"] = Tap(
                    block=index, expanded=True, channels=block.expanded, stride=stride
                )
            stride *= block.stride
            pointwise = block.kind == "conv" and block.kernel == 1
            name = "last" if pointwise else f"c{block.stage}"
            found.pop(name, None)  # a stage's tap is its last block, also in order
            here = Tap(block=index, expanded=False, channels=block.out_channels, stride=stride)
            if name == "c3":
                found.setdefault("c3_first", here)
            found[name] = here
        found.setdefault("last", replace(found["c5"]))
        return found


def resolve(
    table: Architecture,
    *,
    width: float = 1.0,
    classes: int = 1000,
    output_stride: int = 32,
    dropout: float | None = None,
    rule: WidthRule = "reference",
) -> Network:
    """Scale a table's channels by `width` and write every block with absolute numbers.

    Rules for V3 at widths other than 1: "reference" (the authors' code): an expansion keeps its
    ratio to the block's actual input; the layer behind the pool grows with width > 1 but never
    shrinks. "torchvision": expansions and that layer are scaled from the table. "timm": as the
    reference, but that layer is never scaled and below 0.75 the stem stays at the table's width.
    V2's last convolution never shrinks under any rule. Raises ValueError on impossible options.
    """
    if not width > 0:
        raise ValueError(f"width {width!r}: expected a number above 0")
    if output_stride not in OUTPUT_STRIDES:
        raise ValueError(f"output_stride {output_stride!r}: expected one of {OUTPUT_STRIDES}")
    if rule not in WIDTH_RULES:
        raise ValueError(f"width rule {rule!r}: expected one of {WIDTH_RULES}")
    if classes < 1:
        raise ValueError(f"classes {classes!r}: expected at least 1")

    if all(isinstance(row, Separable) for row in table.rows):
        # research/slim: depth(d) = max(int(d * multiplier), 8), with no rounding to eights
        def scaled(channels: int) -> int:
            return max(int(channels * width), 8)
    else:

        def scaled(channels: int) -> int:
            return make_divisible(channels * width)

    keep_stem = rule == "timm" and width < 0.75 and table.hidden is not None
    channels = table.stem.c if keep_stem else scaled(table.stem.c)
    blocks = [
        Block(
            kind="conv",
            kernel=table.stem.k,
            in_channels=3,
            expanded=channels,
            out_channels=channels,
            activation=_NL[table.stem.NL],
            stride=table.stem.s,
            stage=1,
        )
    ]
    for row, table_input in _with_inputs(table):
        stage = blocks[-1].stage + (row.s == 2)
        match row:
            case Separable(c, s):
                block = Block(
                    kind="separable",
                    kernel=3,
                    in_channels=channels,
                    expanded=channels,
                    out_channels=scaled(c),
                    activation="relu6",
                    stride=s,
                    stage=stage,
                )
            case Bottleneck(t, c, _, s):
                block = Block(
                    kind="inverted",
                    kernel=3,
                    in_channels=channels,
                    expanded=t * channels,
                    out_channels=scaled(c),
                    activation="relu6",
                    stride=s,
                    stage=stage,
                )
            case Bneck(k, exp, out, SE, NL, s):
                from_table = rule == "torchvision"
                expanded = (
                    scaled(exp) if from_table else make_divisible(exp * channels / table_input)
                )
                # torchvision rounds expanded // 4, the others expanded / 4
                squeeze = make_divisible(expanded // 4 if from_table else expanded / 4)
                block = Block(
                    kind="inverted",
                    kernel=k,
                    in_channels=channels,
                    expanded=channels if exp == table_input and not from_table else expanded,
                    out_channels=scaled(out),
                    squeeze=squeeze if SE else 0,
                    activation=_NL[NL],
                    stride=s,
                    stage=stage,
                )
        blocks.append(block)
        channels = block.out_channels
    if table.last is not None:
        blocks.append(_last_block(table, blocks[-1], width, rule))
    return Network(
        blocks=_dilated(blocks, output_stride),
        hidden=_hidden(table, width, rule),
        hidden_activation=_NL[table.hidden_NL],
        classes=classes,
        dropout=table.dropout if dropout is None else dropout,
    )


def until(network: Network, tap: str) -> Network:
    """The network without the blocks behind a tap, as the backbone of a head that reads it.

    Raises ValueError for a tap that the network does not have.
    """
    taps = network.taps()
    if tap not in taps:
        raise ValueError(f"tap {tap!r}: expected one of {list(taps)}")
    return replace(network, blocks=network.blocks[: taps[tap].block + 1])


def dilate_entries(network: Network) -> Network:
    """Dilate also the depthwise layers whose stride was taken away, at the rate of those behind.

    So torchvision does it; the authors' code keeps the rate so far there, as `resolve` does. The
    weights fit both, their answers do not.
    """
    blocks = [
        replace(block, dilation=2 * block.dilation) if block.stride_removed else block
        for block in network.blocks
    ]
    return replace(network, blocks=tuple(blocks))


def _with_inputs(table: Architecture) -> list[tuple[Row, int]]:
    """Every row (V2's repeats written out) with its input channels in the unscaled table."""
    rows: list[tuple[Row, int]] = []
    channels = table.stem.c
    for row in table.rows:
        repeats = row.n if isinstance(row, Bottleneck) else 1
        for repeat in range(repeats):
            rows.append((row if repeat == 0 else replace(row, s=1), channels))
            channels = row.out if isinstance(row, Bneck) else row.c
    return rows


def _last_block(table: Architecture, before: Block, width: float, rule: WidthRule) -> Block:
    assert table.last is not None
    if table.hidden is None:  # V2: "the last convolution is not scaled for widths below 1"
        channels = max(table.last.c, make_divisible(table.last.c * width))
    elif rule == "torchvision":
        channels = 6 * before.out_channels
    else:
        channels = make_divisible(table.last.c * width)
    return Block(
        kind="conv",
        kernel=table.last.k,
        in_channels=before.out_channels,
        expanded=channels,
        out_channels=channels,
        activation=_NL[table.last.NL],
        stride=table.last.s,
        stage=before.stage,
    )


def _hidden(table: Architecture, width: float, rule: WidthRule) -> int | None:
    if table.hidden is None or rule == "timm":
        return table.hidden
    scaled = make_divisible(table.hidden * width)
    return scaled if rule == "torchvision" else max(table.hidden, scaled)


def _dilated(blocks: Sequence[Block], output_stride: int) -> tuple[Block, ...]:
    """Turn strides beyond `output_stride` into dilation of the depthwise layers that follow.

    The block whose stride is removed keeps the rate so far; those behind it get twice that
    (research/slim, `output_stride`).
    """
    dilated: list[Block] = []
    stride = rate = 1
    for block in blocks:
        rate_here = rate
        removed = stride * block.stride > output_stride
        if removed:
            rate *= block.stride
        else:
            stride *= block.stride
        pointwise = block.kernel == 1
        dilated.append(
            replace(
                block,
                stride=1 if removed else block.stride,
                stride_removed=removed,
                dilation=1 if pointwise else rate_here,
            )
        )
    return tuple(dilated)
