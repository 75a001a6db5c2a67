"""`Builder`: steps appended one by one, for backbones and for the heads behind them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from .steps import (
    Activation,
    AddStep,
    AveragePoolStep,
    BlockStep,
    ConcatStep,
    ConvStep,
    Filter,
    MultiplyStep,
    Padding,
    PoolStep,
    Program,
    ResizeStep,
    Step,
)


@dataclass(kw_only=True)
class Builder:
    """A program in the making: every method but `program` appends a step and returns its value.

    A head is appended to a backbone by `Builder(steps=list(backbone.steps))`, reading the values
    that the backbone's outputs name.
    """

    steps: list[Step] = field(default_factory=list)

    def conv(
        self,
        source: int,
        filter: Filter,
        *,
        stride: int = 1,
        dilation: int = 1,
        padding: Padding = "symmetric",
        activation: Activation = "none",
    ) -> int:
        """An ordinary convolution."""
        return self._append(
            ConvStep(
                sources=(source,),
                project=filter,
                stride=stride,
                dilation=dilation,
                padding=padding,
                activation=activation,
            )
        )

    def block(
        self,
        source: int,
        *,
        depthwise: Filter,
        project: Filter,
        expand: Filter | None = None,
        reduce: Filter | None = None,
        excite: Filter | None = None,
        stride: int = 1,
        dilation: int = 1,
        padding: Padding = "symmetric",
        activation: Activation,
        out_activation: Activation = "none",
        residual: bool = False,
    ) -> int:
        """An inverted residual, or without `expand` a separable convolution; see `BlockStep`."""
        return self._append(
            BlockStep(
                sources=(source,),
                expand=expand,
                depthwise=depthwise,
                reduce=reduce,
                excite=excite,
                project=project,
                stride=stride,
                dilation=dilation,
                padding=padding,
                activation=activation,
                out_activation=out_activation,
                residual=residual,
            )
        )

    def pool(self, source: int) -> int:
        """The mean over all pixels."""
        return self._append(PoolStep(sources=(source,)))

    def add(self, first: int, second: int, *, activation: Activation = "none") -> int:
        """The sum of two maps."""
        return self._append(AddStep(sources=(first, second), activation=activation))

    def multiply(self, source: int, gate: int) -> int:
        """A map times a 1x1 map."""
        return self._append(MultiplyStep(sources=(source, gate)))

    def concat(self, *sources: int) -> int:
        """The channels of several maps."""
        return self._append(ConcatStep(sources=sources))

    def resize(self, source: int, *, like: int) -> int:
        """A map at the size of another."""
        return self._append(ResizeStep(sources=(source, like)))

    def average_pool(self, source: int, *, kernel: int, stride: int) -> int:
        """The mean of every window."""
        return self._append(AveragePoolStep(sources=(source,), kernel=kernel, stride=stride))

    def program(self, outputs: Mapping[str, int]) -> Program:
        """What was built. Raises ValueError where the steps do not fit together."""
        return Program(steps=tuple(self.steps), outputs=tuple(outputs.items()))

    def _append(self, step: Step) -> int:
        self.steps.append(step)
        return len(self.steps)
