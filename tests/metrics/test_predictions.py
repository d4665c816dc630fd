from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxrlab.data.manifest import Manifest
from cxrlab.errors import ConfigError, DataError, MissingFileError
from cxrlab.metrics.predictions import PredictionTable, predictions_frame, read_predictions


def made_frame(**changes):
    """Four images of three patients, two labels and a covariate."""
    columns = {
        "image": ["a.png", "b.png", "c.png", "d.png"],
        "patient": [12, 7, 12, 30],
        "part": "test",
        "covariate/view": ["PA", "AP", "PA", "AP"],
        "covariate/age": [50, 61, 51, np.nan],
        "target/Mass": [1, 0, np.nan, 0],
        "target/Pleural Effusion": [0, 0, 1, 1],
        "probability/Mass": [0.9, 0.2, 0.5, 0.1],
        "probability/Pleural Effusion": [0.0, 0.25, 0.75, 1.0],
    }
    return pd.DataFrame(columns | changes)


def table(**changes):
    return PredictionTable.from_frame(made_frame(**changes), "theirs.csv")


def test_what_a_frame_becomes():
    found = table()
    assert len(found) == 4
    assert found.labels == ("Mass", "Pleural Effusion")
    assert found.part == "test"
    assert found.source == "theirs.csv"
    np.testing.assert_array_equal(found.targets, [[1, 0], [0, 0], [np.nan, 1], [0, 1]])
    np.testing.assert_array_equal(found.probabilities[:, 0], [0.9, 0.2, 0.5, 0.1])
    np.testing.assert_array_equal(found.known, [[True, True], [True, True], [False, True], [True, True]])
    assert found.patients_known
    assert found.num_patients == 3
    assert found.patient_names[found.patients].tolist() == ["12", "7", "12", "30"]
    assert list(found.covariates.columns) == ["view", "age"]
    assert found.covariates["view"].tolist() == ["PA", "AP", "PA", "AP"]


def test_targets_go_with_their_label_whatever_the_order_of_columns():
    frame = made_frame()
    mixed = PredictionTable.from_frame(frame[frame.columns[::-1]], "mixed.csv").select_labels(table().labels)
    np.testing.assert_array_equal(mixed.targets, table().targets)
    np.testing.assert_array_equal(mixed.probabilities, table().probabilities)


def test_unknown_patients_are_one_each():
    found = PredictionTable.from_frame(made_frame().drop(columns="patient"), "theirs.csv")
    assert not found.patients_known
    assert found.patients.tolist() == [0, 1, 2, 3]
    assert found.num_patients == 4


@pytest.mark.parametrize(("parts", "expected"), [(["val", "test", "test", "test"], ""), (["val"] * 4, "val")])
def test_part_of_the_table(parts, expected):
    assert table(part=parts).part == expected


def test_without_part_and_covariates():
    frame = made_frame().drop(columns=["part", "covariate/view", "covariate/age"])
    found = PredictionTable.from_frame(frame, "theirs.csv")
    assert found.part == ""
    assert len(found.covariates.columns) == 0


def test_to_frame_is_the_way_back():
    again = table().to_frame()
    expected = made_frame(patient=["12", "7", "12", "30"])
    pd.testing.assert_frame_equal(again, expected, check_dtype=False)


def test_predictions_are_positive_from_the_threshold_on():
    frame = table().to_frame(np.array([0.5, np.nan]))
    assert frame["prediction/Mass"].tolist() == [1, 0, 1, 0]
    assert frame["prediction/Pleural Effusion"].isna().all()


def test_decisions_are_read_and_kept():
    found = PredictionTable.from_frame(table().to_frame(np.array([0.5, np.nan])), "ours.csv")
    np.testing.assert_array_equal(found.decisions, [[1, np.nan], [0, np.nan], [1, np.nan], [0, np.nan]])
    assert found.to_frame().equals(table().to_frame(np.array([0.5, np.nan])))
    assert found.to_frame(np.array([0.0, 0.0]))["prediction/Mass"].tolist() == [1, 1, 1, 1]
    np.testing.assert_array_equal(found.rows(np.array([2, 1])).decisions[:, 0], [1, 0])
    turned = found.select_labels(["Pleural Effusion", "Mass"])
    np.testing.assert_array_equal(turned.decisions[:, 1], [1, 0, 1, 0])


def test_a_table_may_decide_some_labels_or_none():
    assert table().decisions is None
    assert table().rows(np.array([1, 0])).select_labels(["Mass"]).decisions is None
    some = PredictionTable.from_frame(made_frame(**{"prediction/Mass": [1, 0, None, 0]}), "theirs.csv")
    np.testing.assert_array_equal(some.decisions[:, 0], [1, 0, np.nan, 0])
    assert np.isnan(some.decisions[:, 1]).all()
    with pytest.raises(DataError, match=r"1 images.*predictions other than 0, 1.*'b.png'.*'Mass'"):
        PredictionTable.from_frame(made_frame(**{"prediction/Mass": [1, 0.3, 1, 0]}), "theirs.csv")


def test_unknown_patients_are_not_written():
    found = PredictionTable.from_frame(made_frame().drop(columns="patient"), "theirs.csv")
    assert "patient" not in found.to_frame()


@pytest.mark.parametrize("chosen", [np.array([True, False, True, False]), np.array([0, 2])])
def test_rows_number_patients_anew(chosen):
    found = table().rows(chosen)
    assert found.images.tolist() == ["a.png", "c.png"]
    assert found.patients.tolist() == [0, 0]
    assert found.patient_names.tolist() == ["12"]
    assert found.num_patients == 1
    np.testing.assert_array_equal(found.probabilities, [[0.9, 0.0], [0.5, 0.75]])
    np.testing.assert_array_equal(found.targets, [[1, 0], [np.nan, 1]])
    assert found.covariates["age"].tolist() == [50, 51]
    assert found.covariates.index.tolist() == [0, 1]


def test_rows_keep_the_order_asked_for():
    found = table().rows(np.array([3, 0]))
    assert found.images.tolist() == ["d.png", "a.png"]
    assert found.patient_names[found.patients].tolist() == ["30", "12"]
    assert found.covariates["view"].tolist() == ["AP", "PA"]


def test_labels_are_chosen_by_name():
    found = table().select_labels(["Pleural Effusion"])
    assert found.labels == ("Pleural Effusion",)
    np.testing.assert_array_equal(found.probabilities, [[0.0], [0.25], [0.75], [1.0]])
    with pytest.raises(ConfigError, match=r"theirs.csv has no label 'Edema'; it has \['Mass', 'Pleural Eff"):
        table().select_labels(["Mass", "Edema"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"image": ["a.png", "b.png", "a.png", "b.png"]},
            r"2 images stand twice in theirs.csv: \['a.png', 'b",
        ),
        (
            {"probability/Mass": [0.9, np.nan, 0.5, 0.1]},
            r"1 images.*no probability.*\['b.png'\], in \['Mass'\]",
        ),
        (
            {"probability/Mass": [2.5, -3.0, 0.5, 0.1]},
            r"2 images.*outside \[0, 1\] \(-3 to 2.5\).*need a sigmoid",
        ),
        ({"probability/Mass": [1.0000001, 0.2, 0.5, 0.1]}, "outside"),
        ({"target/Mass": [1, 0, -1, 0]}, r"1 images.*targets other than 0, 1 or empty: \['c.png'\]"),
        ({"target/Mass": [1, 0.5, np.nan, 0]}, "targets other than 0, 1 or empty"),
        ({"target/Mass": ["yes", "0", None, "1"]}, "text in target/Mass, such as 'yes' for the image a.png"),
        (
            {"probability/Mass": ["0.1", "0.2", "high", "1"]},
            "text in probability/Mass, such as 'high'.*c.png",
        ),
    ],
)
def test_wrong_values_are_rejected(changes, message):
    with pytest.raises(DataError, match=message):
        table(**changes)


def test_numbers_as_text_are_read():
    np.testing.assert_array_equal(table(**{"target/Mass": ["1", "0", None, "0"]}).targets, table().targets)


@pytest.mark.parametrize(
    "dropped",
    [
        ["image"],
        ["target/Mass"],
        ["probability/Mass"],
        ["target/Mass", "target/Pleural Effusion", "probability/Mass", "probability/Pleural Effusion"],
    ],
)
def test_missing_columns_are_rejected(dropped):
    with pytest.raises(
        DataError, match="theirs.csv is no predictions table: it needs the columns image, target/"
    ):
        PredictionTable.from_frame(made_frame().drop(columns=dropped), "theirs.csv")


def test_an_empty_table_is_rejected():
    with pytest.raises(DataError, match="theirs.csv holds no image"):
        PredictionTable.from_frame(made_frame().iloc[:0], "theirs.csv")


def test_file(tmp_path):
    path = tmp_path / "test.csv"
    table().to_frame().to_csv(path, index=False)
    found = read_predictions(path)
    pd.testing.assert_frame_equal(found.to_frame(), table().to_frame(), check_dtype=False)
    assert found.source == str(path)
    with pytest.raises(MissingFileError, match="There is no predictions table .*val.csv"):
        read_predictions(tmp_path / "val.csv")


@pytest.mark.parametrize("missing", ["", None, np.nan])
def test_images_without_a_patient_among_others_are_rejected_and_without_any_patients_are_unknown(missing):
    frame = pd.DataFrame(
        {"image": ["a", "b"], "patient": ["1", missing], "target/A": [0.0, 1.0], "probability/A": [0.1, 0.9]}
    )
    with pytest.raises(DataError, match=r"1 images of x have no patient, such as \['b'\]"):
        PredictionTable.from_frame(frame, "x")
    table = PredictionTable.from_frame(frame.assign(patient=[missing, missing]), "x")
    assert not table.patients_known
    assert table.num_patients == 2


def test_an_image_without_a_name_is_rejected():
    frame = pd.DataFrame({"image": ["a", None], "target/A": [0.0, 1.0], "probability/A": [0.1, 0.9]})
    with pytest.raises(DataError, match="x has rows without a name"):
        PredictionTable.from_frame(frame, "x")


def test_a_frame_holds_what_the_manifest_knows_of_each_row():
    table = pd.DataFrame(
        {
            "image": ["a.png", "b.png", "c.png"], "patient": ["1", "1", "2"], "split": "", "part": ["train", "val", "val"],
            "covariate/view": ["PA", "AP", "AP"], "label/Edema": [0.0, 1.0, np.nan],
        }
    )  # fmt: skip
    predicted = predictions_frame(
        Manifest(Path(), table),
        [1, 2],
        ["Edema"],
        [[0.75], [0.25]],
        targets=[[1.0], [np.nan]],
        thresholds=[0.5],
    )
    assert list(predicted) == [
        "image",
        "patient",
        "part",
        "covariate/view",
        "target/Edema",
        "probability/Edema",
        "prediction/Edema",
    ]
    assert predicted["image"].tolist() == ["b.png", "c.png"]
    assert predicted["probability/Edema"].tolist() == [0.75, 0.25]
    assert predicted["prediction/Edema"].tolist() == [1.0, 0.0]
    assert predicted["target/Edema"].isna().tolist() == [False, True]


def test_a_label_without_a_threshold_has_no_prediction():
    table = pd.DataFrame(
        {"image": ["a.png"], "patient": ["1"], "split": "", "label/Edema": [1.0], "label/Mass": [0.0]}
    )
    predicted = predictions_frame(
        Manifest(Path(), table),
        [0],
        ["Edema", "Mass"],
        [[0.5, 0.5]],
        targets=[[1.0, 0.0]],
        thresholds=[0.5, np.nan],
    )
    assert predicted["prediction/Edema"].tolist() == [1.0]  # at the threshold is present
    assert np.isnan(predicted["prediction/Mass"]).all()


def test_a_patient_written_in_two_ways_is_one():
    frame = pd.DataFrame(
        {"image": ["a", "b", "c"], "patient": ["1", "1.0", "P2"], "target/A": 1.0, "probability/A": 0.5}
    )
    table = PredictionTable.from_frame(frame, "a table")
    assert table.num_patients == 2
    assert table.patient_names[table.patients].tolist() == ["1", "1", "P2"]
