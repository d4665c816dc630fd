"""Doubtful labels: planted ones are found, and corrections come back as they were filled in."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from cxrlab.errors import DataError, MissingFileError
from cxrlab.evaluation.label_errors import (
    COLUMNS,
    corrected_labels,
    label_errors,
    read_corrections,
    suspects_frame,
)
from cxrlab.metrics.predictions import PredictionTable

LABELS = ("Effusion", "Hernia")


@pytest.fixture
def planted() -> tuple[PredictionTable, set[tuple[int, int]]]:
    """3,000 images of 1,500 patients; of each label 20 positives are labelled absent and 20 negatives present."""
    rng = np.random.default_rng(0)
    truth = rng.random((3000, 2)) < (0.2, 0.1)
    logits = rng.normal(size=truth.shape) + np.where(truth, 2.5, -2.5)
    targets = truth.astype(float)
    wrong: set[tuple[int, int]] = set()
    for column in range(2):
        for side in (True, False):
            rows = rng.choice(np.flatnonzero(truth[:, column] == side), 20, replace=False)
            targets[rows, column] = 1 - targets[rows, column]
            wrong |= {(int(row), column) for row in rows}
    targets[:50] = np.nan
    table = PredictionTable(
        images=np.array([f"i{row:04}.png" for row in range(3000)], dtype=object),
        patients=np.arange(3000) // 2,
        labels=LABELS,
        targets=targets,
        probabilities=expit(logits),
        covariates=pd.DataFrame({"sex": np.where(np.arange(3000) % 4 < 2, "F", "M")}),
        patient_names=np.array([f"p{number:04}" for number in range(1500)], dtype=object),
        part="test",
        source="out_of_fold.csv",
    )
    return table, {(row, column) for row, column in wrong if row >= 50}


def test_planted_errors_are_found_of_either_kind(planted):
    table, wrong = planted
    errors = label_errors(table)
    found = {(error.row, LABELS.index(error.label)) for error in errors}
    assert len(found) == len(errors)
    assert len(found & wrong) >= 0.8 * len(wrong)
    assert len(found & wrong) >= 0.5 * len(found)  # by chance: 80 of 6,000
    assert all(np.isfinite(table.targets[error.row, LABELS.index(error.label)]) for error in errors)
    assert all(error.given == table.targets[error.row, LABELS.index(error.label)] for error in errors)
    for label in LABELS:
        doubts = [
            error.probability if error.given else 1 - error.probability
            for error in errors
            if error.label == label
        ]
        assert doubts == sorted(doubts)  # the most doubtful first


def test_clean_labels_raise_few_doubts(planted):
    table, _ = planted
    truth = np.where(np.isnan(table.targets), np.nan, (table.probabilities > 0.5).astype(float))
    clean = PredictionTable(
        images=table.images,
        patients=table.patients,
        labels=LABELS,
        targets=truth,
        probabilities=table.probabilities,
    )
    assert label_errors(clean) == []


def test_a_label_of_one_class_is_passed_over(planted):
    table, _ = planted
    targets = table.targets.copy()
    targets[:, 1] = 0.0
    table = PredictionTable(
        images=table.images,
        patients=table.patients,
        labels=LABELS,
        targets=targets,
        probabilities=table.probabilities,
    )
    assert {error.label for error in label_errors(table)} == {"Effusion"}


def test_training_images_are_refused(planted):
    table, _ = planted
    object.__setattr__(table, "part", "train")
    with pytest.raises(DataError, match=r"out_of_fold\.csv holds predictions of training images"):
        label_errors(table)


def test_the_list_comes_back_filled_in(planted, tmp_path):
    table, _ = planted
    errors = label_errors(table)
    frame = suspects_frame(table, errors)
    assert tuple(frame) == COLUMNS
    assert frame["patient"].tolist() == [f"p{error.row // 2:04}" for error in errors]
    path = tmp_path / "label_errors.csv"
    frame.to_csv(path, index=False)
    assert read_corrections(path, table) == []
    frame.loc[[0, 1, 2], "corrected"] = ["1", "0", "unknown"]
    frame.to_csv(path, index=False)
    corrections = read_corrections(path, table)
    places = [(errors[number].row, LABELS.index(errors[number].label)) for number in range(3)]
    assert [place[:2] for place in corrections] == places
    np.testing.assert_array_equal([place[2] for place in corrections], [1.0, 0.0, np.nan])

    labels = corrected_labels(table, corrections)
    assert list(labels) == ["image", "patient", "covariate/sex", "label/Effusion", "label/Hernia"]
    after = labels[["label/Effusion", "label/Hernia"]].astype(float).to_numpy()
    expected = table.targets.copy()
    expected[tuple(np.transpose(places))] = [1.0, 0.0, np.nan]
    np.testing.assert_array_equal(after, expected)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            ["i0100.png,Effusion,yes"],
            r"Line 2 of .*corrections\.csv has corrected='yes': write 1, 0, unknown",
        ),
        (["i0100.png,Oedema,1"], "Line 2 .* names the label 'Oedema', which out_of_fold.csv does not hold"),
        (["other.png,Hernia,1"], r"names the image 'other\.png'"),
        (
            ["i0100.png,Hernia,1", "i0100.png,Hernia,0"],
            r"Line 3 .* corrects Hernia of i0100\.png a second time",
        ),
    ],
)
def test_wrong_corrections_name_the_line(planted, tmp_path, rows, message):
    path = tmp_path / "corrections.csv"
    path.write_text("\n".join(["image,label,corrected", *rows]) + "\n")
    with pytest.raises(DataError, match=message):
        read_corrections(path, planted[0])


def test_a_list_without_the_column_or_the_file_is_refused(planted, tmp_path):
    with pytest.raises(MissingFileError, match=r"no list of corrections .*nothing\.csv"):
        read_corrections(tmp_path / "nothing.csv", planted[0])
    path = tmp_path / "corrections.csv"
    path.write_text("image,label\ni0100.png,Hernia\n")
    with pytest.raises(DataError, match="has no column 'corrected'"):
        read_corrections(path, planted[0])
