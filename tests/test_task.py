import pytest
import torch

from cxrlab.errors import DataError
from cxrlab.task import activate, check_exclusive

LOGITS = torch.tensor([[1.0, -2.0, 0.5], [30.0, -40.0, 0.0]])


def test_probabilities_are_sigmoids_or_one_softmax():
    torch.testing.assert_close(activate(LOGITS, "multilabel"), 1 / (1 + torch.exp(-LOGITS)))
    powers = torch.exp(LOGITS)
    torch.testing.assert_close(activate(LOGITS, "multiclass"), powers / powers.sum(dim=1, keepdim=True))


@pytest.mark.parametrize("task", ["multilabel", "multiclass"])
def test_half_precision_becomes_float32_and_infinity_nan(task):
    assert activate(LOGITS.bfloat16(), task).dtype == torch.float32
    assert activate(torch.tensor([[torch.inf, 0.0]]), task)[0, 0].isnan()


def test_exclusive_classes_and_unknown_rows_are_accepted():
    check_exclusive(torch.tensor([[0.0, 1.0], [1.0, 0.0], [torch.nan, torch.nan]]), ["a", "b"])


@pytest.mark.parametrize("row", [[0.0, 0.0], [1.0, 1.0], [1.0, torch.nan]])
def test_other_targets_are_rejected_with_their_number(row):
    with pytest.raises(DataError, match=r"exactly one of \['a', 'b'\]; 1 of 2 images"):
        check_exclusive(torch.tensor([[0.0, 1.0], row]), ["a", "b"])


def test_one_class_is_no_choice():
    with pytest.raises(DataError, match=r"two labels or more.*\['a'\]. Set task=multilabel"):
        check_exclusive(torch.ones(2, 1), ["a"])
