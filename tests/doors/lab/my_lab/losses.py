import torch
from torch import Tensor, nn


class SquaredLoss(nn.Module):
    """Knows nothing of cxrlab: no class frequencies, no unknown targets."""

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        if torch.isnan(targets).any():
            raise AssertionError("a loss that does not say that it handles unknown targets was given some")
        return (torch.sigmoid(logits) - targets).square().mean()


class RareLoss(nn.Module):
    """Asks for the share of positives by label, and has an argument of its own."""

    def __init__(self, frequencies: list[float], power: float = 0.5) -> None:
        super().__init__()
        self.weights = (1 / torch.tensor(frequencies).clamp(min=0.01)) ** power

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        losses = nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        return (
            (losses * self.weights[: losses.shape[-1]].to(losses)).mean()
            if losses.ndim == 2
            else losses.mean()
        )
