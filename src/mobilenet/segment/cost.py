"""Parameters and multiply-adds of a segmenter, counted by running it on tensors without data."""

from dataclasses import dataclass

from .spec import SegmenterSpec, create_segmenter


@dataclass(frozen=True, kw_only=True)
class SegmenterCost:
    """As `mobilenet.cost` counts: multiply-adds of convolutions only, of one picture; parameters
    with the norms' scale and shift. An auxiliary head has parameters but is not run."""

    params: int
    madds: int


def count_segmenter(spec: SegmenterSpec, height: int, width: int) -> SegmenterCost:
    """Count a segmenter for pictures of height x width pixels."""
    import torch
    from torch import Tensor, nn

    madds = 0

    def counted(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal madds
        assert isinstance(layer, nn.Conv2d)
        madds += layer.weight.numel() * output.shape[2] * output.shape[3]

    with torch.device("meta"):
        network = create_segmenter(spec).eval()
        for part in network.modules():
            if isinstance(part, nn.Conv2d):
                part.register_forward_hook(counted)
        with torch.no_grad():
            network(torch.empty(1, 3, height, width))
    params = sum(parameter.numel() for parameter in network.parameters())
    return SegmenterCost(params=params, madds=madds)
