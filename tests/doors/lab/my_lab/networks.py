import torch
from torch import Tensor, nn


def _stem(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, stride=2, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, width, 3, stride=2, padding=1),
        nn.ReLU(inplace=True),
    )


class PlainNet(nn.Module):
    """A plain module, with an argument of its own and no base class."""

    def __init__(self, num_labels: int, channels: int = 1, width: int = 8) -> None:
        super().__init__()
        self.features = _stem(channels, width)
        self.classify = nn.Linear(width, num_labels)

    def forward(self, images: Tensor) -> Tensor:
        return self.classify(self.features(images).mean(dim=(2, 3)))


class FlatNet(nn.Module):
    """Has no spatial features, so no heatmap can be drawn from it."""

    def __init__(self, num_labels: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(channels * image_size**2, 16), nn.ReLU(), nn.Linear(16, num_labels)
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images.contiguous())


def explode() -> nn.Module:
    """Tell that it ran, by raising: nothing may call it unasked."""
    raise AssertionError(f"a file chose what code runs (torch {torch.__version__})")
