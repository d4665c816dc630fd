import numpy as np
import pandas as pd
import pytest

from cxrlab.data.readers import nih
from cxrlab.errors import ConfigError, DataError, MissingFileError
from cxrlab.evaluation.external_predictions import read_external

NIH = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"


@pytest.fixture
def read(tmp_path):
    def function(predictions, targets, groups=()):
        for name, lines in (("theirs.csv", predictions), ("labels.csv", targets)):
            (tmp_path / name).write_text("\n".join(lines) + "\n")
        return read_external(tmp_path / "theirs.csv", tmp_path / "labels.csv", groups)

    return function


def test_everything_is_in_the_order_of_the_predictions(read):
    table = read(
        ["Image Index,Effusion,Mass", "00000002_001.png,0.9,0.1", "00000013_005.png,0.2,0.3"],
        [NIH, "00000013_005.png,Mass,5,13,60,F,PA,1,2,0.1,0.1,", "00000002_001.png,Effusion,1,2,414,M,AP,1,2,0.1,0.1,"],
    )  # fmt: skip
    assert table.labels == ("Effusion", "Mass")
    assert table.images.tolist() == ["00000002_001.png", "00000013_005.png"]
    np.testing.assert_array_equal(table.targets, [[1, 0], [0, 1]])
    np.testing.assert_array_equal(table.probabilities, [[0.9, 0.1], [0.2, 0.3]])
    assert table.patient_names[table.patients].tolist() == ["2", "13"]
    assert table.covariates["view"].tolist() == ["AP", "PA"]
    assert table.covariates["sex"].tolist() == ["M", "F"]
    np.testing.assert_array_equal(table.covariates["age"], [np.nan, 60])
    assert table.source.endswith("theirs.csv")


def test_a_table_of_ours_is_both(tmp_path):
    frame = pd.DataFrame(
        {
            "image": ["x/a.png", "x/b.png", "x/c.png"],
            "patient": ["01", "01", "2"],
            "part": "test",
            "covariate/view": ["PA", "AP", ""],
            "target/Edema": [1, 0, np.nan],
            "probability/Edema": [0.75, 0.25, 0.5],
            "prediction/Edema": [1, 0, 1],
        }
    )
    path = tmp_path / "test.csv"
    frame.to_csv(path, index=False)
    table = read_external(path, path, [])
    assert (table.labels, table.part, table.num_patients) == (("Edema",), "test", 2)
    assert table.patient_names.tolist() == ["01", "2"]
    assert list(table.covariates) == ["view"]
    np.testing.assert_array_equal(table.targets[:, 0], [1, 0, np.nan])
    np.testing.assert_array_equal(table.decisions[:, 0], [1, 0, 1])


def test_decisions_go_with_their_label_where_there_are_any(read):
    header = "image,prob_pleural effusion,prob_Edema,prediction/pleural effusion"
    targets = ["image,Edema,Pleural Effusion", "a,1,0", "b,0,1"]
    table = read([header, "a,0.2,0.9,0", "b,0.7,0.4,"], targets)
    assert table.labels == ("Edema", "Pleural Effusion")
    np.testing.assert_array_equal(table.decisions, [[np.nan, 0], [np.nan, np.nan]])
    assert read([header, "a,0.2,0.9,no", "b,0.7,0.4,1"], targets).decisions is None


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("00000013_005.png", "13"),
        ("images/00000013_005", "13"),
        ("CheXpert/train/patient00013/study1/view1.jpg", "00013"),
        ("files/p10/p10000013/s5/a.jpg", "10000013"),
    ],
)
def test_file_names_tell_the_patient(read, name, patient):
    table = read(["image,A", f"{name},0.5"], ["image,A", f"{name},1"])
    assert table.patient_names.tolist() == [patient]


@pytest.mark.parametrize("first", ["13_005.png", "person13_virus_5.jpeg"])
def test_unknown_patients_are_said_loudly(read, caplog, first):
    table = read(
        ["image,A", f"{first},0.5", "00000013_005.png,0.5"], ["image,A", f"{first},1", "00000013_005.png,0"]
    )
    assert table.patient_names is None
    assert table.num_patients == 2
    assert "WARNING" in caplog.text
    assert "TOO NARROW" in caplog.text


def test_patients_of_file_names_are_one_whatever_their_zeros(read):
    names = ["train/patient00013/study1/view1.jpg", "train/patient13/study2/view1.jpg"]
    table = read(
        ["image,A", *(f"{name},0.5" for name in names)], ["image,A", f"{names[0]},1", f"{names[1]},0"]
    )
    assert table.num_patients == 1


def test_patients_are_compared_whatever_their_spelling(read, caplog):
    header = "image,A,patient"
    table = read([header, "a,0.5,13", "b,0.5,13.0", "c,0.5,P2"], [header, "a,0,0013", "b,1,13", "c,1,p2"])
    assert table.num_patients == 2
    assert "another patient" not in caplog.text
    read([header, "a,0.5,13", "b,0.5,14"], [header, "a,0,13", "b,1,15"])
    assert "1 images of" in caplog.text
    assert "another patient" in caplog.text
    assert "'14' and '15'" in caplog.text


def test_patients_may_stand_with_the_predictions(read):
    table = read(["image,A,subject_id", "a,0.5,7", "b,0.5,7"], ["image,A", "b,1", "a,0"])
    assert table.num_patients == 1


def test_covariates_of_both_are_kept(read):
    table = read(["image,A,view,patient", "a,0.5,PA,1"], ["image,A,Sex,covariate/view", "a,1,F,AP"])
    assert table.covariates.loc[0].to_dict() == {"view": "AP", "sex": "F"}


@pytest.mark.parametrize(("words", "part"), [("valid", "val"), ("Test", "test"), ("fold1", "")])
def test_the_part_is_told(read, words, part):
    assert read(["image,A,patient", "a,0.5,1"], ["image,A,split", f"a,1,{words}", "b,1,train"]).part == part


def test_a_label_of_one_class_is_allowed(read):
    table = read(["image,A,patient", "a,0.5,1", "b,0.5,2"], ["image,A", "a,0", "b,0"])
    assert table.targets.sum() == 0


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("1.5", r"1 images of .*theirs.csv have values outside \[0, 1\].*sigmoid.*'b'.*'A'"),
        ("-3", "sigmoid"),
        ("inf", "sigmoid"),
        ("", r"1 images of .*theirs.csv have no probability \(NaN or empty\): \['b'\], in \['A'\]"),
        ("nan", "have no probability"),
        ('"0,5"', r"'A' of .*theirs.csv holds '0,5' in line 3.* decimal point"),
    ],
)
def test_what_is_no_probability_is_rejected(read, value, message):
    with pytest.raises(DataError, match=message):
        read(["image,A,patient", "a,0.5,1", f"b,{value},2"], ["image,A", "a,0", "b,1"])


@pytest.mark.parametrize("twice", ["predictions", "targets"])
def test_an_image_that_stands_twice_is_rejected(read, twice):
    rows, more = ["image,A", "a,1", "b,0"], ["image,A", "a,1", "b,0", "a,1"]
    with pytest.raises(DataError, match=r"1 images stand twice in .*: \['a'\]"):
        read(more if twice == "predictions" else rows, more if twice == "targets" else rows)


def test_a_missing_file_and_bad_synonyms_are_named(read, tmp_path):
    with pytest.raises(ConfigError, match="two groups"):
        read(["image,A", "a,1"], ["image,A", "a,1"], [["A", "B"], ["A", "C"]])
    with pytest.raises(MissingFileError, match="none.csv"):
        read_external(tmp_path / "theirs.csv", tmp_path / "none.csv", [])


@pytest.mark.real_data
def test_the_table_of_nih_is_read_as_its_reader_does(real_data, tmp_path):
    path = real_data / "nih" / "Data_Entry_2017_v2020.csv.gz"
    expected = nih.read_table(path)[0]
    names = (real_data / "nih" / "test_list.txt").read_text().split()[::-1]
    frame = pd.DataFrame({"Image Index": names}).assign(**dict.fromkeys(reversed(nih.LABELS), 0.5))
    frame.to_csv(tmp_path / "p.csv", index=False)
    table = read_external(tmp_path / "p.csv", path, [])
    expected = expected.set_index("image").loc[names]
    assert table.labels == nih.LABELS
    np.testing.assert_array_equal(table.targets, expected[[f"label/{label}" for label in table.labels]])
    assert table.patient_names[table.patients].tolist() == expected["patient"].tolist()
    for name in ("view", "sex", "age"):
        assert table.covariates[name].tolist() == expected[f"covariate/{name}"].tolist()
    assert len(table) == 25596
