import numpy as np
import pytest

from cxrlab.errors import DataError
from cxrlab.evaluation.external_table import ExternalTable


def table(tmp_path, *lines):
    path = tmp_path / "t.csv"
    path.write_text("\n".join(lines) + "\n")
    return ExternalTable.read(path)


@pytest.mark.parametrize("name", ["image", "Image Index", "image_index", "Image", "Path", "filename"])
def test_the_images_are_found(tmp_path, name):
    images = table(tmp_path, f"n,{name}", "1,./b/0001", "2,c\\d.png").images
    assert images.tolist() == ["b/0001", "c/d.png"]


def test_image_goes_before_path(tmp_path):
    assert table(tmp_path, "Path,image", "x/a.png,a.png").images.tolist() == ["a.png"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["name,Edema", "a,1"], r"only \['name', 'Edema'\]"),
        (["image,Image Index", "a,a"], r"several, \['image', 'Image Index'\]"),
        (["Path,filename", "a,a"], r"several, \['Path', 'filename'\]"),
        (["image,Edema"], "lists nothing"),
        (["image,Edema", "a,1", ",1"], "1 rows of .* nothing in the column 'image'"),
        (["image,Edema", "a,1", "b,1", "a,0"], r"1 images stand twice in .*t.csv: \['a'\]"),
        (["image,Edema", "./a,1", "a,0"], "1 images stand twice"),
    ],
)
def test_images_that_cannot_be_told_are_rejected(tmp_path, lines, message):
    with pytest.raises(DataError, match=message):
        table(tmp_path, *lines)


@pytest.mark.parametrize("name", ["patient", "Patient ID", "PatientId", "PatientID", "subject_id"])
def test_patients_keep_their_zeros(tmp_path, name):
    assert table(tmp_path, f"image,{name}", "a,007", "b,8").patients() == ["007", "8"]


def test_a_patient_written_in_two_ways_is_one(tmp_path, caplog):
    assert table(tmp_path, "image,patient", "a,7", "b,7.0", "c,7", "d,P1").patients() == ["7", "7", "7", "P1"]
    assert "1 patient of" in caplog.text
    assert "'7' and '7.0'" in caplog.text


@pytest.mark.parametrize("word", ["nan", "None", "n/a", "-"])
def test_a_word_for_nobody_is_no_patient(tmp_path, word):
    with pytest.raises(DataError, match=rf"1 rows of .* have '{word}' in the column 'patient': \['b'\]"):
        table(tmp_path, "image,patient", "a,1", f"b,{word}").patients()


def test_a_patient_that_is_empty_is_rejected(tmp_path):
    with pytest.raises(DataError, match=r"1 rows of .*'patient': \['b'\]"):
        table(tmp_path, "image,patient", "a,1", "b,").patients()
    assert table(tmp_path, "image,Edema", "a,1").patients() is None


def test_covariates_are_ours_and_those_of_nih(tmp_path):
    known = table(
        tmp_path,
        "image,View Position,Patient Gender,Patient Age,covariate/cause,covariate/dose,Edema",
        "a,PA,M,058Y,virus,1,1",
        "b,AP,,414,,2.5,0",
        "c,AP,F,006M,NA,,0",
        "d,PA,F,old,bacteria,4,0",
    ).covariates()
    assert sorted(known) == ["age", "cause", "dose", "sex", "view"]
    np.testing.assert_allclose(known["age"], [58, np.nan, 0.5, np.nan])
    np.testing.assert_allclose(known["dose"], [1, 2.5, np.nan, 4])
    assert known["sex"].isna().tolist() == [False, True, False, False]
    assert known["cause"].isna().tolist() == [False, True, True, False]


def test_ages_that_are_none_are_said(tmp_path, caplog):
    table(tmp_path, "image,age", "a,414", "b,50", "c,").covariates()
    assert "1 ages of" in caplog.text


def test_our_covariate_goes_before_another_column(tmp_path):
    known = table(tmp_path, "image,Sex,covariate/sex", "a,Female,F").covariates()
    assert known["sex"].tolist() == ["F"]


def test_columns_with_a_meaning_are_no_labels(tmp_path):
    header = "image,patient,part,View Position,covariate/x,Finding Labels,Edema,target/Mass"
    assert table(tmp_path, header, "a,1,test,PA,1,Mass,0,1").label_names() == ["Edema", "target/Mass"]
