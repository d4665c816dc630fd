"""What a network sees: training images as they are decoded, augmented and normalised."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from cxrlab.report.figures.style import new_figure, shown, styled

_NUM_AUGMENTED = 2


@dataclass(frozen=True)
class Seen:
    """A few training images on their way to the network.

    Attributes:
        names: What each shows, N of them.
        decoded: Values 0 to 255, shape ``(N, C, H, W)``.
        augmented: The same as they are augmented, one tensor a draw; empty where nothing is changed.
        normalised: The first draw, or the images themselves, as they enter the network.
    """

    names: Sequence[str]
    decoded: Tensor
    augmented: Sequence[Tensor]
    normalised: Tensor


def seen(
    names: Sequence[str], images: Tensor, augment: nn.Module | None, preprocess: nn.Module, *, seed: int
) -> Seen:
    """Take images the way of a training batch; what is drawn at random does not touch the training's own.

    Args:
        names: What each shows.
        images: uint8, shape ``(N, C, H, W)``, on the CPU.
        augment: Called with images and a generator; None for none.
        preprocess: Normalises; it is used as in training and left as it was.
        seed: Of the augmentation.
    """
    augmented: list[Tensor] = []
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if augment is not None:
            generators = [torch.Generator().manual_seed(seed + draw) for draw in range(_NUM_AUGMENTED)]
            augmented = [augment(images, generator) for generator in generators]
        if all(torch.equal(one.float(), images.float()) for one in augmented):
            augmented = []
        was_training, device = preprocess.training, next(preprocess.buffers(), images).device
        given = augmented[0] if augmented else images
        normalised = preprocess.train()(given.to(device)).cpu()
        preprocess.train(was_training)
    return Seen(names, images, augmented, normalised)


def draw_inputs(batch: Seen) -> Figure:
    """Return a figure with an image a column: decoded, augmented, and as the network gets it."""
    rows: list[tuple[str, Tensor, tuple[float, float]]] = [("decoded", batch.decoded, (0.0, 255.0))]
    rows += [("augmented", images, (0.0, 255.0)) for images in batch.augmented]
    values = batch.normalised.float()
    low, high = float(values.min()), float(values.max())
    mean = round(float(values.mean()), 2) + 0.0  # no "-0.00"
    rows.append((f"normalised:\nmean {mean:.2f},\ndeviation {values.std():.2f}", values, (low, high)))
    count = len(batch.names)
    with styled():
        figure = new_figure(1.0 + 1.6 * count, 0.4 + 1.85 * len(rows))
        grid = figure.subplots(len(rows), count, squeeze=False)
        for axes_row, (title, images, limits) in zip(grid, rows, strict=True):
            for column, axes in enumerate(axes_row):
                _picture(axes, images[column], limits)
            axes_row[0].set_ylabel(title, fontsize=9)
        for axes, name in zip(grid[0], batch.names, strict=True):
            axes.set_title(shown(name, 20, 3), fontsize=9)
        for axes, image in zip(grid[-1], values, strict=True):
            axes.set_xlabel(f"{image.min():.2f} to {image.max():.2f}", fontsize=9)
        return figure


def _picture(axes: Axes, image: Tensor, limits: tuple[float, float]) -> None:
    low, high = limits
    values = ((image.float() - low) / max(high - low, 1e-6)).clamp(0, 1).numpy()
    axes.imshow(values[0] if len(values) == 1 else values.transpose(1, 2, 0), cmap="gray", vmin=0, vmax=1)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
