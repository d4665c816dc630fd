import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, average_precision_score, roc_auc_score

from cxrlab.errors import ConfigError
from cxrlab.metrics.bootstrap import patient_counts
from cxrlab.metrics.estimates import metric_estimates
from cxrlab.metrics.predictions import PredictionTable
from cxrlab.metrics.streaming import LabelMetrics, check_monitor, count_hits, label_metrics, undefined_labels

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


def test_logits_are_rejected_and_not_guessed():
    metric = LabelMetrics(LABELS)
    with pytest.raises(ValueError, match=r"Values from -3 to 2 are no probabilities; apply a sigmoid"):
        metric.update(torch.tensor([[-3.0, 2.0, 0.1]]), torch.zeros(1, 3))


def test_accuracy_of_exclusive_classes_is_the_share_of_images_given_their_class():
    probabilities = torch.tensor([[0.4, 0.35, 0.25], [0.1, 0.2, 0.7], [0.3, 0.4, 0.3], [0.1, 0.1, 0.8]])
    targets = torch.eye(3)[[0, 2, 0, 1]]
    targets = torch.cat([targets, torch.full((1, 3), torch.nan)])  # an image of no known class
    probabilities = torch.cat([probabilities, torch.tensor([[0.9, 0.05, 0.05]])])
    metric = LabelMetrics(LABELS, "multiclass")
    metric.update(probabilities, targets)
    results = metric.compute()
    assert float(results["accuracy"]) == pytest.approx(
        accuracy_score([0, 2, 0, 1], probabilities[:4].argmax(dim=1))
    )
    # Each class against all others is at 0.5 as ever: the first of the four has no class above it.
    assert float(results["accuracy/Edema"]) == pytest.approx(2 / 4)
    nothing = label_metrics(probabilities[4:], targets[4:], LABELS, "multiclass")
    assert math.isnan(float(nothing["accuracy"]))


def test_a_monitor_is_checked_and_named_by_its_key():
    keys = ("scheduler.monitor", "scheduler.mode")
    check_monitor("val/accuracy", "max", LABELS, keys=keys)
    check_monitor("val/auroc/Edema", "max", LABELS, keys=keys)
    check_monitor("val/loss_with_penalty", "min", LABELS, keys=keys)
    for name in ("train/loss", "val/auroc/Anything", "val/loss/Edema"):
        with pytest.raises(ConfigError, match=rf"^scheduler.monitor={name} is no metric of validation"):
            check_monitor(name, "max", LABELS, keys=keys)
    with pytest.raises(ConfigError, match=r"^scheduler.mode=max would choose the worst val/loss: set sch"):
        check_monitor("val/loss", "max", LABELS, keys=keys)


@pytest.mark.parametrize("case", ["ties and unknown targets", "one class", "never known", "all tied"])
def test_training_and_evaluation_agree(case: str):
    """torchmetrics' AUROC, average precision and accuracy are those of evaluation.json."""
    probabilities, targets = draw(300, missing=0.3)
    if case == "one class":
        targets[:, 1] = 0.0
    elif case == "never known":
        targets[:, 1] = torch.nan
    elif case == "all tied":
        probabilities[:, 1] = 0.25
    table = PredictionTable(
        images=np.array([str(row) for row in range(300)], dtype=object),
        patients=np.arange(300) // 2,
        labels=tuple(LABELS),
        targets=targets.double().numpy(),
        probabilities=probabilities.double().numpy(),
    )
    # A training's accuracy is of what lies above 0.5, a threshold's of what is at least that.
    thresholds = np.full(3, np.nextafter(0.5, 1.0))
    evaluated = metric_estimates(table, thresholds, patient_counts(150, 1, seed=0), level=0.95)
    trained = label_metrics(probabilities, targets, LABELS)
    for name in ("auroc", "average_precision", "accuracy"):
        values = {"": evaluated.macro[name].value}
        values |= {f"/{label}": metrics[name].value for label, metrics in evaluated.labels.items()}
        for suffix, value in values.items():
            expected = math.nan if value is None else value
            assert float(trained[name + suffix]) == pytest.approx(expected, abs=1e-6, nan_ok=True), (
                name + suffix
            )


@pytest.mark.parametrize("task", ["multilabel", "multiclass"])
def test_hits_added_up_over_batches_give_the_accuracy_of_all(task: str):
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(50, 3, generator=generator)
    if task == "multiclass":
        targets = torch.eye(3)[torch.randint(3, (50,), generator=generator)]
        targets[7] = math.nan
        probabilities = logits.softmax(dim=1)
    else:
        targets = torch.randint(2, (50, 3), generator=generator).float()
        targets[::7, 1] = math.nan
        probabilities = logits.sigmoid()
    hits, known = sum(
        count_hits(*pair, task) for pair in zip(logits.split(16), targets.split(16), strict=True)
    )
    wanted = label_metrics(probabilities, targets, LABELS, task)["accuracy"]
    assert float((hits / known).nanmean()) == pytest.approx(float(wanted))
