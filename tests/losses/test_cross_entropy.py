import pytest
import torch
import torch.nn.functional as F

from cxrlab.errors import ConfigError
from cxrlab.losses import CrossEntropy, masked_cross_entropy

OPTIONS = {"is_balanced": False, "max_ratio": None, "label_smoothing": 0.0}


def draw() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(32, 3, generator=generator) * 3
    return logits, torch.randint(0, 3, (32,), generator=generator)


@pytest.mark.parametrize("weights", [None, torch.tensor([0.2, 1.0, 5.0])])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_it_is_torch_s_cross_entropy_over_the_known_rows(
    weights: torch.Tensor | None, label_smoothing: float
):
    logits, classes = draw()
    targets = F.one_hot(classes, 3).float()
    targets[::4] = torch.nan
    known = ~targets.isnan().any(dim=1)
    expected = F.cross_entropy(logits[known], classes[known], weight=weights, label_smoothing=label_smoothing)
    torch.testing.assert_close(masked_cross_entropy(logits, targets, weights, label_smoothing), expected)


def test_balanced_classes_weigh_the_same_in_total():
    frequencies = torch.tensor([0.1, 0.3, 0.6])
    loss = CrossEntropy(frequencies=frequencies.tolist(), **OPTIONS | {"is_balanced": True})
    assert loss.weights is not None
    torch.testing.assert_close(loss.weights * frequencies, torch.full((3,), 1 / 3))
    capped = CrossEntropy(
        frequencies=frequencies.tolist(), **OPTIONS | {"is_balanced": True, "max_ratio": 3.0}
    )
    assert capped.weights is not None
    torch.testing.assert_close(capped.weights / capped.weights[2], torch.tensor([3.0, 2.0, 1.0]))
    assert capped.state_dict() == {}
    assert CrossEntropy(frequencies=[0.5, 0.5], **OPTIONS).weights is None


@pytest.mark.parametrize("weights", [None, torch.tensor([0.2, 5.0])])
@pytest.mark.parametrize("targets", [torch.full((2, 2), torch.nan), torch.eye(2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_logits_and_unknown_batches_give_finite_gradients(
    weights: torch.Tensor | None, targets: torch.Tensor, dtype: torch.dtype, stays_finite_at_extremes
):
    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return masked_cross_entropy(logits, targets, weights, 0.1)

    stays_finite_at_extremes(loss, targets, dtype)


def test_what_cannot_be_weighted_or_is_out_of_range_is_rejected():
    with pytest.raises(ConfigError, match=r"is_balanced=true needs labels .* are \[1.0, 0.0\]"):
        CrossEntropy(frequencies=[1.0, 0.0], **OPTIONS | {"is_balanced": True})
    with pytest.raises(ConfigError, match=r"loss.label_smoothing=-0.1 must lie between 0 and 1"):
        CrossEntropy(frequencies=[0.5, 0.5], **OPTIONS | {"label_smoothing": -0.1})
    with pytest.raises(ConfigError, match=r"loss.max_ratio=0 must be at least 1"):
        CrossEntropy(frequencies=[0.5, 0.5], **OPTIONS | {"max_ratio": 0})
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(2, 2\)"):
        masked_cross_entropy(torch.zeros(2, 3), torch.zeros(2, 2))
