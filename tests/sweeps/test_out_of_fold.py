from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from cxrlab.errors import DataError
from cxrlab.sweeps.cross_validation import pooled_metrics, pooled_predictions


def write(path: Path, images: list[str], label: str = "Mass") -> Path:
    numbers = np.linspace(0.1, 0.9, len(images))
    table = pd.DataFrame({"image": images, "patient": "007", "part": "test", f"target/{label}": 1.0})
    table.assign(**{f"probability/{label}": numbers}).to_csv(path, index=False)
    return path


def test_names_stay_text_and_the_fold_stands_after_the_part(tmp_path: Path):
    tables = {1: write(tmp_path / "1.csv", ["NA", "01"]), 3: write(tmp_path / "3.csv", ["1"])}
    whole = pooled_predictions(tables)
    assert list(whole) == ["image", "patient", "part", "fold", "target/Mass", "probability/Mass"]
    assert whole["image"].tolist() == ["NA", "01", "1"]
    assert whole["patient"].tolist() == ["007"] * 3
    assert whole["fold"].tolist() == [1, 1, 3]


def test_an_image_in_two_folds_and_other_labels_are_rejected(tmp_path: Path):
    one = write(tmp_path / "1.csv", ["a.png", "b.png"])
    with pytest.raises(DataError, match=r"1 images were tested on in two folds, for instance \['b\.png'\]"):
        pooled_predictions({0: one, 1: write(tmp_path / "2.csv", ["b.png", "c.png"])})
    with pytest.raises(
        DataError, match=r"3\.csv has other columns than the first fold's table: .*target/Edema"
    ):
        pooled_predictions({0: one, 1: write(tmp_path / "3.csv", ["d.png"], "Edema")})


def test_metrics_are_scikit_learns_on_what_is_known():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"image": range(50), "target/A": rng.integers(0, 2, 50).astype(float)})
    table["target/B"] = np.where(rng.random(50) < 0.2, np.nan, rng.integers(0, 2, 50))
    table["probability/A"], table["probability/B"] = rng.random(50), rng.random(50).round(1)
    metrics = pooled_metrics(table)
    for metric, reference in (("auroc", roc_auc_score), ("average_precision", average_precision_score)):
        expected = []
        for label in "AB":
            known = table[table[f"target/{label}"].notna()]
            expected.append(reference(known[f"target/{label}"], known[f"probability/{label}"]))
            assert metrics[f"{metric}/{label}"] == pytest.approx(expected[-1], abs=1e-6)
        assert metrics[metric] == pytest.approx(np.mean(expected), abs=1e-6)


def test_exclusive_classes_are_evaluated_as_such():
    table = pd.DataFrame({"image": range(3)})
    for label, target, probability in (("A", [1.0, 0, 0], [0.4, 0.3, 0.2]), ("B", [0.0, 1, 0], [0.3, 0.3, 0.2]),
                                       ("C", [0.0, 0, 1], [0.3, 0.4, 0.6])):  # fmt: skip
        table[f"target/{label}"], table[f"probability/{label}"] = target, probability
    assert pooled_metrics(table, "multiclass")["accuracy"] == pytest.approx(2 / 3)
    assert pooled_metrics(table)["accuracy"] == pytest.approx(7 / 9)
