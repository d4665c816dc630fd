import pytest
import torch
import torch.nn.functional as F

from cxrlab.errors import ConfigError
from cxrlab.losses import BCE, WeightedBCE, label_frequencies, masked_bce

TARGETS = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 1.0]])


@pytest.mark.parametrize("probability", [0.7, 0.3])
def test_weighted_bce_gives_the_published_worked_example(probability: float):
    """Sum over labels of the mean over images is 0.9754 for all 0.7 and for all 0.3."""
    frequencies = label_frequencies(TARGETS)
    assert frequencies.tolist() == [0.75, 0.75, 0.5]
    logits = torch.logit(torch.full((4, 3), probability))
    loss = WeightedBCE(frequencies=frequencies.tolist(), max_ratio=None)(logits, TARGETS)
    # ours is the mean over labels too, so the sum over 3 labels is 3 times it
    assert 3 * float(loss) == pytest.approx(0.9754, abs=5e-5)


@pytest.mark.parametrize("probability", [0.7, 0.3])
def test_the_sources_epsilon_of_one_explains_its_own_number(probability: float):
    """With an epsilon of 1 inside both logarithms, as the source's exercise has it, -0.4956 comes out."""
    loss = WeightedBCE(frequencies=label_frequencies(TARGETS).tolist(), max_ratio=None)
    p = torch.full((4, 3), probability)
    terms = (
        loss.positive_weights * TARGETS * (p + 1).log()
        + loss.negative_weights * (1 - TARGETS) * (2 - p).log()
    )
    assert float(-terms.mean(dim=0).sum()) == pytest.approx(-0.4956, abs=5e-5)


def test_positives_and_negatives_weigh_the_same():
    generator = torch.Generator().manual_seed(0)
    targets = (torch.rand(5000, 3, generator=generator) < torch.tensor([0.02, 0.3, 0.9])).float()
    loss = WeightedBCE(frequencies=label_frequencies(targets).tolist(), max_ratio=None)
    positive = (targets * loss.positive_weights).sum(dim=0)
    negative = ((1 - targets) * loss.negative_weights).sum(dim=0)
    torch.testing.assert_close(positive, negative, rtol=1e-3, atol=1e-3)


def test_masked_bce_equals_torch_where_all_is_known():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(16, 5, generator=generator) * 4
    targets = (torch.rand(16, 5, generator=generator) < 0.3).float()
    expected = F.binary_cross_entropy_with_logits(logits, targets)
    torch.testing.assert_close(BCE(label_smoothing=0.0)(logits, targets), expected)


def test_unknown_targets_have_no_loss_and_no_gradient():
    logits = torch.tensor([[2.0, -1.0], [0.5, 3.0]], requires_grad=True)
    targets = torch.tensor([[1.0, torch.nan], [torch.nan, 0.0]])
    loss = masked_bce(logits, targets)
    loss.backward()
    known = F.binary_cross_entropy_with_logits(torch.tensor([2.0, 3.0]), torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(loss.detach(), known)
    assert logits.grad is not None
    assert logits.grad[0, 1] == 0
    assert logits.grad[1, 0] == 0


def test_a_batch_in_which_nothing_is_known_costs_nothing():
    logits = torch.randn(3, 2, requires_grad=True)
    loss = masked_bce(logits, torch.full((3, 2), torch.nan))
    loss.backward()
    assert float(loss.detach()) == 0
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros(3, 2))


def test_the_loss_is_finite_at_extreme_logits_and_in_half_precision():
    logits = torch.tensor([[200.0, -200.0]], dtype=torch.bfloat16, requires_grad=True)
    loss = masked_bce(logits, torch.tensor([[0.0, 1.0]]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(200.0)
    assert logits.grad is not None
    assert bool(torch.isfinite(logits.grad).all())


def test_weights_are_no_part_of_a_checkpoint():
    assert WeightedBCE(frequencies=[0.1, 0.2], max_ratio=None).state_dict() == {}


@pytest.mark.parametrize("frequency", [0.0, 1.0, float("nan")])
def test_a_constant_label_is_rejected(frequency: float):
    with pytest.raises(ValueError, match=r"absent in others; their frequencies are \[0.5, "):
        WeightedBCE(frequencies=[0.5, frequency], max_ratio=None)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(2, 2\)"):
        masked_bce(torch.zeros(2, 3), torch.zeros(2, 2))


def test_smoothing_is_the_cross_entropy_with_softened_targets():
    """What Keras computes for ``BinaryCrossentropy(label_smoothing=0.2)``."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(16, 5, generator=generator) * 4
    targets = (torch.rand(16, 5, generator=generator) < 0.3).float()
    expected = F.binary_cross_entropy_with_logits(logits, targets * 0.8 + 0.1)
    loss = BCE(label_smoothing=0.2)
    torch.testing.assert_close(loss(logits, targets), expected)
    unknown = torch.full((1, 5), torch.nan)
    torch.testing.assert_close(loss(torch.cat([logits, logits[:1]]), torch.cat([targets, unknown])), expected)


def test_the_heavier_weight_is_capped_and_the_lighter_one_stays():
    loss = WeightedBCE(frequencies=[0.01, 0.4, 0.95], max_ratio=4.0)
    torch.testing.assert_close(loss.positive_weights, torch.tensor([0.04, 0.6, 0.05]))
    torch.testing.assert_close(loss.negative_weights, torch.tensor([0.01, 0.4, 0.2]))


def test_numbers_out_of_range_are_rejected():
    with pytest.raises(ConfigError, match=r"loss.label_smoothing=1.5 must lie between 0 and 1"):
        BCE(label_smoothing=1.5)
    with pytest.raises(ConfigError, match=r"loss.max_ratio=0.5 must be at least 1"):
        WeightedBCE(frequencies=[0.5], max_ratio=0.5)
