"""Parameters and multiply-adds of a detector, counted by running it on tensors without data."""

from dataclasses import dataclass

from .spec import DetectorSpec, create_detector


@dataclass(frozen=True, kw_only=True)
class DetectorCost:
    """As `mobilenet.cost` counts: multiply-adds of convolutions only, of one picture; parameters
    with the norms' scale and shift."""

    params: int
    madds: int


def count_detector(spec: DetectorSpec, size: int | None = None) -> DetectorCost:
    """Count a detector for square pictures of `size` pixels, None: its own."""
    import torch
    from torch import Tensor, nn

    madds = 0
    pixels = size or spec.size

    def counted(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal madds
        assert isinstance(layer, nn.Conv2d)
        madds += layer.weight.numel() * output.shape[2] * output.shape[3]

    with torch.device("meta"):
        network = create_detector(spec).eval()
        for part in network.modules():
            if isinstance(part, nn.Conv2d):
                part.register_forward_hook(counted)
        with torch.no_grad():
            network(torch.empty(1, 3, pixels, pixels))
    params = sum(parameter.numel() for parameter in network.parameters())
    return DetectorCost(params=params, madds=madds)
