import numpy as np
import pandas as pd
import pytest

from cxrlab.errors import DataError
from cxrlab.evaluation import external_matching
from cxrlab.evaluation.external_matching import match_images
from cxrlab.evaluation.external_table import ExternalTable

NAMES = [f"{number}.png" for number in range(20)]


def table(tmp_path, name, images, **columns):
    path = tmp_path / f"{name}.csv"
    pd.DataFrame({"image": images, "A": 0, **columns}).to_csv(path, index=False)
    return ExternalTable.read(path)


@pytest.fixture
def match(tmp_path):
    def function(images, others, **columns):
        nothing = np.empty(0, dtype=object)
        theirs, labels = table(tmp_path, "theirs", images), table(tmp_path, "labels", others, **columns)
        return match_images(theirs, labels, nothing)

    return function


def test_images_that_other_predictions_are_of_are_not_missed(tmp_path, caplog):
    theirs, labels = table(tmp_path, "theirs", ["a.png"]), table(tmp_path, "labels", ["x/a.png", "x/b.png"])
    for elsewhere in (["b.png"], ["x/b.png"]):
        assert match_images(theirs, labels, np.array(elsewhere, dtype=object)).tolist() == [0]
    assert "left out" not in caplog.text
    with pytest.raises(DataError, match="1 of 2 images of .* have no prediction"):
        match_images(theirs, labels, np.array(["c.png"], dtype=object))


def test_rows_may_stand_in_any_order(match, caplog):
    np.testing.assert_array_equal(match(["b", "c", "a"], ["a", "b", "c"]), [1, 2, 0])
    assert not caplog.text


@pytest.mark.parametrize("swapped", [False, True])
def test_one_file_may_leave_out_the_folders(match, caplog, swapped):
    caplog.set_level("INFO")
    images, others = ["b.png", "a.png"], ["x/a.png", "y/b.png"]
    if swapped:
        images, others = ["y/b.png", "x/a.png"], ["a.png", "b.png"]
    np.testing.assert_array_equal(match(images, others), [1, 0])
    assert "matched by file name" in caplog.text


@pytest.mark.parametrize(
    ("images", "others", "hint"),
    [
        (["x/a.png"], ["y/a.png"], "differ in their folders only"),
        (["a.png"], ["x/a.png", "y/a.png"], "differ in their folders only"),
        (["a.png"], ["a.jpg"], "differ in their ending, such as .png, only"),
        (["a"], ["a.png"], "differ in their ending"),
        (
            ["a", "b", "c", "d", "e"],
            ["a"],
            r"4 of 5 images of .*theirs.csv have no target in .*labels.csv: \['b', 'c', 'd'\]",
        ),
    ],
)
def test_an_image_without_target_is_rejected(match, images, others, hint):
    with pytest.raises(DataError, match=hint):
        match(images, others)


def test_a_few_images_without_prediction_are_left_out_with_a_warning(match, caplog):
    assert len(match(NAMES[2:], NAMES)) == 18
    assert "2 of 20 images of" in caplog.text
    assert "WARNING" in caplog.text


def test_many_images_without_prediction_are_rejected(match):
    with pytest.raises(DataError, match=r"3 of 20 images of .*labels.csv have no prediction .*'0.png'"):
        match(NAMES[3:], NAMES)


@pytest.mark.parametrize("column", ["part", "split"])
def test_only_the_parts_that_were_predicted_are_meant(match, caplog, column):
    parts = ["train"] * 10 + ["test"] * 10
    assert len(match(NAMES[10:], NAMES, **{column: parts})) == 10
    assert not caplog.text
    with pytest.raises(DataError, match="2 of 10 images"):
        match(NAMES[12:], NAMES, **{column: parts})


def test_mixed_parts_are_said(match, caplog):
    match(NAMES, NAMES, part=["train"] * 10 + ["test"] * 10)
    assert "mixes the parts ['train', 'test']" in caplog.text


def test_the_whole_table_of_nih_may_name_more(match, caplog, monkeypatch):
    monkeypatch.setattr(external_matching, "_NUM_NIH_IMAGES", 20)
    caplog.set_level("INFO")
    assert len(match(NAMES[:5], NAMES, **{"Finding Labels": "Mass"})) == 5
    assert "15 of 20 images" in caplog.text
    assert "WARNING" not in caplog.text
    with pytest.raises(DataError, match="have no prediction"):
        match(NAMES[:5], NAMES[:19], **{"Finding Labels": "Mass"})
