"""BlazeFace's network as a table (arXiv 1907.05047, Table 4; standard library only)."""

from dataclasses import dataclass

from ..architectures import Conv

KERNEL = 5  # of every depthwise convolution (3.1)


@dataclass(frozen=True)
class Single:
    """BlazeBlock: depthwise, 1x1 to c channels, stride s, then its input added."""

    c: int
    s: int

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels behind each 1x1 convolution."""
        return (self.c,)


@dataclass(frozen=True)
class Double:
    """Double BlazeBlock: depthwise of stride s, 1x1 to p channels, depthwise, 1x1 to c, then its
    input added."""

    p: int
    c: int
    s: int

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels behind each 1x1 convolution."""
        return (self.p, self.c)


Row = Single | Double

# fmt: off
STEM = Conv(KERNEL, 24, "RE", 2)
ROWS: tuple[Row, ...] = (
    #          c   s
    Single(    24, 1),
    Single(    24, 1),
    Single(    48, 2),
    Single(    48, 1),
    Single(    48, 1),
    #      p   c   s
    Double(24, 96, 2),
    Double(24, 96, 1),
    Double(24, 96, 1),
    Double(24, 96, 2),
    Double(24, 96, 1),
    Double(24, 96, 1),
)
# fmt: on


def tapped() -> dict[int, int]:
    """Which rows the head reads, the last ones before the last stride and of all, and the stride
    of their maps."""
    last = max(index for index, row in enumerate(ROWS) if row.s == 2)
    stride = STEM.s
    found = {}
    for index, row in enumerate(ROWS):
        stride *= row.s
        if index in (last - 1, len(ROWS) - 1):
            found[index] = stride
    return found
