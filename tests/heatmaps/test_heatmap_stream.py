import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from cxrlab.heatmaps.cases import all_heatmaps, batches, heatmaps, read
from cxrlab.heatmaps.methods.cam import Pair

CASES: list[Pair] = [(7, 0), (7, 1), (3, 0), (5, 2), (5, 0), (3, 1), (0, 0)]


class CountedImages:
    """Images of 4 by 4 pixels whose value is their row, and which rows were read together."""

    def __init__(self) -> None:
        self.read: list[list[int]] = []

    def __getitem__(self, rows: list[int]) -> npt.NDArray[np.uint8]:
        self.read.append(list(rows))
        return np.array(rows, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 4, 4), dtype=np.uint8)


def by_row_and_label(images: Tensor, pairs: Sequence[Pair]) -> Tensor:
    """Heatmaps whose value is ten times the image's row, and the label."""
    return torch.stack([10.0 * images[image, 0].float() + label for image, label in pairs])


@pytest.mark.parametrize("num_images", [1, 2, 3, 4, 9])
def test_a_batch_holds_as_many_cases_as_are_of_so_many_images(num_images: int) -> None:
    found = list(batches(CASES, num_images))
    assert [case for batch in found for case in batch] == CASES
    sizes = [len({row for row, _ in batch}) for batch in found]
    assert max(sizes) <= num_images
    for batch, following in itertools.pairwise(found):  # no batch could have taken one more case
        rows = {row for row, _ in batch}
        assert len(rows) == num_images
        assert following[0][0] not in rows


def test_batches_are_those_of_the_example_by_hand() -> None:
    assert list(batches(CASES, 2)) == [CASES[:3], CASES[3:6], CASES[6:]]
    assert list(batches([], 2)) == []


def test_a_batch_that_was_given_stays_as_it_is() -> None:
    stream = batches(CASES, 1)
    first = next(stream)
    list(stream)
    assert first == CASES[:2]


def test_each_image_is_read_once_and_cases_count_them() -> None:
    images = CountedImages()
    found, pairs = read(images, CASES)
    assert images.read == [[7, 3, 5, 0]]
    assert found.dtype == torch.uint8
    assert found[:, 0, 0, 0].tolist() == [7, 3, 5, 0]
    assert pairs == [(0, 0), (0, 1), (1, 0), (2, 2), (2, 0), (1, 1), (3, 0)]


@pytest.mark.parametrize("title", ["", "Some maps"])
@pytest.mark.parametrize("num_images", [1, 2, 9])
def test_heatmaps_come_in_the_order_of_the_cases(
    num_images: int, title: str, capsys: pytest.CaptureFixture[str]
) -> None:
    images = CountedImages()
    found = list(heatmaps(by_row_and_label, images, CASES, num_images=num_images, title=title))
    assert [one.shape for one in found] == [(4, 4)] * len(CASES)
    assert [float(one[0, 0]) for one in found] == [10 * row + label for row, label in CASES]
    assert max(len(rows) for rows in images.read) <= num_images
    printed = capsys.readouterr()
    assert printed.out == ""
    assert (title in printed.err) == (printed.err != "" or not title)


def test_images_are_read_when_they_are_needed() -> None:
    images = CountedImages()
    stream = heatmaps(by_row_and_label, images, CASES, num_images=1, title="")
    assert images.read == []
    next(stream)
    assert images.read == [[7]]


def test_all_heatmaps_are_one_tensor() -> None:
    found = all_heatmaps(by_row_and_label, CountedImages(), CASES, num_images=2, title="")
    assert found.shape == (len(CASES), 4, 4)
    assert found[:, 2, 1].tolist() == [10 * row + label for row, label in CASES]


def test_no_cases_have_no_heatmaps() -> None:
    assert list(heatmaps(by_row_and_label, CountedImages(), [], num_images=2, title="")) == []
