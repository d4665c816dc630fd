"""The network drawn, and what it sees."""

import numpy as np
import pytest
import torch
from torch import nn

from cxrlab.augment import NoAugment, RandomAugment
from cxrlab.models import Preprocess, SequentialNetwork
from cxrlab.models.blocks import network_blocks
from cxrlab.report.figures.inputs import draw_inputs, seen
from cxrlab.report.figures.network import draw_network

IMAGES = torch.randint(0, 256, (3, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
NAMES = ["Edema", "no <b>Edema</b>", "$x$"]
PREPROCESS = {"normalize": "image", "image_size": 16, "channels": 1}


def test_images_are_shown_as_they_are_augmented_and_normalised():
    preprocess = Preprocess(**PREPROCESS).eval()
    state = torch.random.get_rng_state()
    batch = seen(NAMES, IMAGES, RandomAugment(rotation=20.0), preprocess, seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not preprocess.training
    assert len(batch.augmented) == 2
    assert not torch.equal(batch.augmented[0], batch.augmented[1])
    torch.testing.assert_close(batch.normalised, preprocess(batch.augmented[0]))
    figure = draw_inputs(batch)
    assert len(figure.axes) == 4 * 3
    ranges = [axes.get_xlabel() for axes in figure.axes[-3:]]
    assert ranges == [f"{image.min():.2f} to {image.max():.2f}" for image in batch.normalised]
    assert [axes.get_title(loc="left") for axes in figure.axes[:3]] == NAMES


@pytest.mark.parametrize("augment", [None, NoAugment()])
def test_images_that_are_not_augmented_have_no_such_row(augment: nn.Module | None):
    slip = {"normalize": "image_then_sample", "mean": [0.1], "std": [0.1]}
    preprocess = Preprocess(**PREPROCESS | slip).eval()
    batch = seen(NAMES, IMAGES, augment, preprocess, seed=1)
    assert len(draw_inputs(batch).axes) == 2 * 3
    torch.testing.assert_close(batch.normalised, Preprocess(**PREPROCESS)(IMAGES))  # as in training


def test_every_block_of_a_network_is_drawn():
    network = SequentialNetwork([{"conv": 4}, "pool", {"dense": 8}], num_labels=3, image_size=32)
    blocks = network_blocks(network, 32, 1)
    (axes,) = draw_network(blocks, image_size=32, channels=1).axes
    texts = [text.get_text() for text in axes.texts]
    assert {"image", "1 \u00d7 32 \u00d7 32", *(block.title for block in blocks)} <= set(texts)
    total = sum(one.numel() for one in network.parameters())
    assert f"{total:,} in all" in texts
    assert len(axes.patches) == len(blocks) + 1
    heights = [patch.get_y() for patch in axes.patches]
    assert np.diff(heights).min() > 0
