import pytest
import torch

from cxrlab.losses.base import capped, known_entries, label_frequencies, masked_mean


def test_frequencies_are_those_of_the_known_targets():
    targets = torch.tensor([[1.0, torch.nan], [0.0, torch.nan], [torch.nan, torch.nan]])
    frequencies = label_frequencies(targets)
    assert frequencies[0] == 0.5
    assert torch.isnan(frequencies[1])


def test_half_precision_becomes_float32_and_unknown_becomes_zero():
    logits, present, known = known_entries(
        torch.ones(1, 2, dtype=torch.bfloat16), torch.tensor([[1.0, torch.nan]])
    )
    assert logits.dtype == present.dtype == torch.float32
    assert present.tolist() == [[1.0, 0.0]]
    assert known.tolist() == [[True, False]]


def test_the_mean_does_not_see_a_term_that_is_unknown():
    terms = torch.tensor([[1.0, torch.inf, 3.0]])
    assert float(masked_mean(terms, torch.tensor([[True, False, True]]))) == 2.0
    assert float(masked_mean(terms, torch.zeros(1, 3, dtype=torch.bool))) == 0.0


@pytest.mark.parametrize(("max_ratio", "expected"), [(None, [1.0, 2.0, 30.0]), (1.0, [1.0, 1.0, 1.0])])
def test_a_cap_goes_from_none_to_equal_weights(max_ratio: float | None, expected: list[float]):
    assert capped(torch.tensor([1.0, 2.0, 30.0]), max_ratio).tolist() == expected
