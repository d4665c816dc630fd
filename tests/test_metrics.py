import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, average_precision_score, roc_auc_score

from cxrlab.metrics import LabelMetrics, label_metrics, undefined_labels

LABELS = ["Edema", "Mass", "Nodule"]


def draw(count: int = 200, missing: float = 0.2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    # rounded, so that there are ties
    probabilities = (torch.rand(count, 3, generator=generator) * 20).round() / 20
    targets = (torch.rand(count, 3, generator=generator) < 0.3 + 0.4 * probabilities).float()
    targets[torch.rand(count, 3, generator=generator) < missing] = torch.nan
    return probabilities, targets


def test_each_metric_equals_scikit_learn_on_the_known_targets():
    probabilities, targets = draw()
    results = label_metrics(probabilities, targets, LABELS)
    aurocs = []
    for column, label in enumerate(LABELS):
        known = ~torch.isnan(targets[:, column])
        y, p = targets[known, column].numpy(), probabilities[known, column].numpy()
        aurocs.append(roc_auc_score(y, p))
        assert float(results[f"auroc/{label}"]) == pytest.approx(aurocs[-1], abs=1e-6)
        assert float(results[f"average_precision/{label}"]) == pytest.approx(
            average_precision_score(y, p), abs=1e-6
        )
        assert float(results[f"accuracy/{label}"]) == pytest.approx(accuracy_score(y, p > 0.5), abs=1e-6)
    assert float(results["auroc"]) == pytest.approx(np.mean(aurocs), abs=1e-6)


@pytest.mark.parametrize("value", [0.0, 1.0, math.nan])
def test_a_label_with_one_class_is_nan_and_left_out_of_the_mean(value: float):
    probabilities, targets = draw()
    targets[:, 1] = value
    results = label_metrics(probabilities, targets, LABELS)
    assert math.isnan(float(results["auroc/Mass"]))
    assert math.isnan(float(results["average_precision/Mass"]))
    assert undefined_labels(results, LABELS) == ["Mass"]
    others = (float(results["auroc/Edema"]) + float(results["auroc/Nodule"])) / 2
    assert float(results["auroc"]) == pytest.approx(others)


def test_one_sample_defines_no_auroc():
    results = label_metrics(torch.tensor([[0.3, 0.6, 0.9]]), torch.tensor([[1.0, 0.0, 1.0]]), LABELS)
    assert math.isnan(float(results["auroc"]))
    assert float(results["accuracy/Nodule"]) == 1.0


def test_batches_add_up_and_reset_forgets():
    probabilities, targets = draw()
    metric = LabelMetrics(LABELS)
    for rows in torch.arange(len(targets)).split(7):
        metric.update(probabilities[rows], targets[rows])
    whole = label_metrics(probabilities, targets, LABELS)
    together = metric.compute()
    assert all(torch.equal(together[name], whole[name]) for name in whole)
    known = (~torch.isnan(targets)).sum(dim=0).tolist()
    assert metric.counts() == (200, known, targets.nansum(dim=0).int().tolist())
    metric.reset()
    metric.update(probabilities[:50], targets[:50])
    assert torch.equal(
        metric.compute()["auroc"], label_metrics(probabilities[:50], targets[:50], LABELS)["auroc"]
    )


def test_half_precision_probabilities_are_taken():
    probabilities, targets = draw(missing=0.0)
    metric = LabelMetrics(LABELS)
    metric.update(probabilities.to(torch.bfloat16), targets)
    assert float(metric.compute()["auroc"]) == pytest.approx(
        float(label_metrics(probabilities, targets, LABELS)["auroc"]), abs=0.02
    )


def test_logits_are_refused_and_not_guessed():
    metric = LabelMetrics(LABELS)
    with pytest.raises(ValueError, match=r"Values from -3 to 2 are no probabilities; apply a sigmoid"):
        metric.update(torch.tensor([[-3.0, 2.0, 0.1]]), torch.zeros(1, 3))
