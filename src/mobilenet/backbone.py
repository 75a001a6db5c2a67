"""Rows to a module, with named feature taps."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from .architectures import Network, Tap
from .errors import WeightsError
from .layers import BLOCKS, InvertedResidual, LayerOptions, folded


class Backbone(nn.Module):
    """The blocks of a network in order; `forward` gives the map that is pooled.

    `features` gives named maps (see `Network.taps`), so that heads never index layers.
    """

    def __init__(self, network: Network, options: LayerOptions) -> None:
        super().__init__()
        self.network = network
        self.taps = network.taps()
        self.blocks = nn.Sequential(*(BLOCKS[b.kind](b, options) for b in network.blocks))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)

    def features(self, x: Tensor, names: Iterable[str]) -> dict[str, Tensor]:
        """The maps called `names`, each (N, C, H, W), in one pass that stops at the last of them.

        Raises ValueError for a name that the network does not have.
        """
        wanted = {name: self._tap(name) for name in names}
        found: dict[str, Tensor] = {}
        for index in range(max((tap.block for tap in wanted.values()), default=-1) + 1):
            block = self.blocks[index]
            here = {name: tap for name, tap in wanted.items() if tap.block == index}
            inner = [name for name, tap in here.items() if tap.expanded]
            if inner:
                assert isinstance(block, InvertedResidual)
                expanded = block.expand(x)
                for name in inner:
                    found[name] = expanded
                x = block.from_expanded(x, expanded)
            else:
                x = block(x)
            for name in here.keys() - set(inner):
                found[name] = x
        return {name: found[name] for name in wanted}

    def _tap(self, name: str) -> Tap:
        if name not in self.taps:
            raise ValueError(f"tap {name!r}: expected one of {list(self.taps)}")
        return self.taps[name]


def freeze(backbone: Backbone, tap: str, device: torch.device) -> None:
    """Stop the blocks up to a named map from learning, in place: neither their weights nor their
    norms' statistics change, so that they run as copies with these folded in.

    Raises ValueError for a name that the network does not have.
    """
    if tap not in backbone.taps:
        raise ValueError(f"tap {tap!r}: expected one of {list(backbone.taps)}")
    for block in backbone.blocks[: backbone.taps[tap].block + 1]:
        block.requires_grad_(False)
        copied = folded(block).to(device, memory_format=torch.channels_last)  # pyright: ignore
        block.forward = copied.requires_grad_(False).forward


def load_backbone(
    backbone: Backbone, classifier: Mapping[str, Tensor], *, halved: bool = False
) -> tuple[str, ...]:
    """Load a backbone from the state dict of a classifier, and name what stayed as it was.

    That is empty but with `halved`, whose layers no classifier has; the blocks behind the
    backbone's last are not needed. Raises WeightsError where a tensor is missing, or without
    `halved` of another shape.
    """
    mine = {
        name: value
        for name, value in backbone.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    theirs = {
        name.removeprefix("backbone."): value
        for name, value in classifier.items()
        if name.startswith("backbone.")
    }
    if missing := [name for name in mine if name not in theirs]:
        raise WeightsError(f"the classifier's weights lack the backbone's {missing[:5]}")
    unfit = tuple(name for name, value in mine.items() if theirs[name].shape != value.shape)
    if unfit and not halved:
        name = unfit[0]
        raise WeightsError(
            f"the classifier's backbone.{name} has the shape {tuple(theirs[name].shape)}: expected "
            f"{tuple(mine[name].shape)}, of the same model, width and width rule"
        )
    with torch.no_grad():
        for name in mine.keys() - set(unfit):
            mine[name].copy_(theirs[name])
    return unfit
