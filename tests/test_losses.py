import pytest
import torch
import torch.nn.functional as F

from cxrlab.losses import BCE, WeightedBCE, label_frequencies, masked_bce

TARGETS = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 1.0]])


@pytest.mark.parametrize("probability", [0.7, 0.3])
def test_weighted_bce_gives_the_published_worked_example(probability: float):
    """Sum over labels of the mean over images is 0.9754 for all 0.7 and for all 0.3."""
    frequencies = label_frequencies(TARGETS)
    assert frequencies.tolist() == [0.75, 0.75, 0.5]
    logits = torch.logit(torch.full((4, 3), probability))
    loss = WeightedBCE(frequencies=frequencies.tolist())(logits, TARGETS)
    # ours is the mean over labels too, so the sum over 3 labels is 3 times it
    assert 3 * float(loss) == pytest.approx(0.9754, abs=5e-5)


@pytest.mark.parametrize("probability", [0.7, 0.3])
def test_the_sources_epsilon_of_one_explains_its_own_number(probability: float):
    """With an epsilon of 1 inside both logarithms, as the source's exercise has it, -0.4956 comes out."""
    loss = WeightedBCE(frequencies=label_frequencies(TARGETS).tolist())
    p = torch.full((4, 3), probability)
    terms = (
        loss.positive_weights * TARGETS * (p + 1).log()
        + loss.negative_weights * (1 - TARGETS) * (2 - p).log()
    )
    assert float(-terms.mean(dim=0).sum()) == pytest.approx(-0.4956, abs=5e-5)


def test_positives_and_negatives_weigh_the_same():
    generator = torch.Generator().manual_seed(0)
    targets = (torch.rand(5000, 3, generator=generator) < torch.tensor([0.02, 0.3, 0.9])).float()
    loss = WeightedBCE(frequencies=label_frequencies(targets).tolist())
    positive = (targets * loss.positive_weights).sum(dim=0)
    negative = ((1 - targets) * loss.negative_weights).sum(dim=0)
    torch.testing.assert_close(positive, negative, rtol=1e-3, atol=1e-3)


def test_masked_bce_equals_torch_where_all_is_known():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(16, 5, generator=generator) * 4
    targets = (torch.rand(16, 5, generator=generator) < 0.3).float()
    expected = F.binary_cross_entropy_with_logits(logits, targets)
    torch.testing.assert_close(BCE(frequencies=[0.3] * 5)(logits, targets), expected)


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
    assert WeightedBCE(frequencies=[0.1, 0.2]).state_dict() == {}


@pytest.mark.parametrize("frequency", [0.0, 1.0, float("nan")])
def test_a_constant_label_is_refused(frequency: float):
    with pytest.raises(ValueError, match=r"absent in others; their frequencies are \[0.5, "):
        WeightedBCE(frequencies=[0.5, frequency])


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(2, 2\)"):
        masked_bce(torch.zeros(2, 3), torch.zeros(2, 2))
