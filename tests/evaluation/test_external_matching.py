import numpy as np
import pandas as pd
import pytest

from cxrlab.data.readers.nih import LABELS
from cxrlab.errors import DataError
from cxrlab.evaluation import external_matching
from cxrlab.evaluation.external_matching import match_images, read_labels
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


GROUPS = [["Effusion", "Pleural Effusion"]]


@pytest.fixture
def read(tmp_path):
    def function(predictions, targets, groups=GROUPS):
        tables = []
        for name, text in (("theirs.csv", predictions), ("labels.csv", targets)):
            (tmp_path / name).write_text(text.replace(" ", "\n") + "\n")
            tables.append(ExternalTable.read(tmp_path / name))
        return read_labels(*tables, groups)

    return function


@pytest.mark.parametrize("own", ["", "probability/", "prob_"])
@pytest.mark.parametrize("other", ["", "target/", "label/"])
def test_labels_are_found_with_and_without_prefix_in_any_order(read, own, other):
    labels, probabilities, targets = read(
        f"image,{own}Edema,{own}Mass a,0.1,0.2 b,0.3,0.4", f"image,{other}Mass,{other}Edema b,1,0 a,0,1"
    )
    assert labels == ("Mass", "Edema")
    np.testing.assert_array_equal(probabilities, [[0.2, 0.1], [0.4, 0.3]])
    np.testing.assert_array_equal(targets, [[1, 0], [0, 1]])


def test_a_label_has_the_name_of_the_targets(read):
    assert read("image,Effusion a,0.5", "image,Pleural_effusion a,1")[0] == ("Pleural_effusion",)


@pytest.mark.parametrize("line", ["1,", "1,nan", "1,NaN", "1.0,NA"])
def test_an_empty_target_is_unknown(read, line):
    targets = read("image,A,B a,0.5,0.5 b,0.5,0.5", f"image,A,B a,{line} b,0,1")[2]
    np.testing.assert_array_equal(targets, [[1, np.nan], [0, 1]])


@pytest.mark.parametrize("extra", ["", ",note"])
def test_an_uncertain_target_is_unknown_and_said(read, caplog, extra):
    targets = read("image,A a,0.5 b,0.5", f"image,A{extra} a,-1{extra} b,1.0{extra}")[2]
    np.testing.assert_array_equal(targets, [[np.nan], [1]])
    assert "targets of -1 are uncertain" in caplog.text
    assert "A 1" in caplog.text


def test_the_findings_of_nih_are_targets(read):
    labels, _, targets = read(
        "image,Hernia,No_Finding,Pleural_effusion a,0.1,0.2,0.3 b,0.1,0.2,0.3 c,0.1,0.2,0.3",
        "image,Finding_Labels a,Mass|Effusion b,Hernia c,Edema|Hernia",
    )
    assert labels == ("Effusion", "Hernia", "No Finding")
    np.testing.assert_array_equal(targets, [[1, 0, 0], [0, 1, 0], [0, 1, 0]])


def test_no_finding_means_none_of_the_14(tmp_path):
    (tmp_path / "p.csv").write_text("image," + ",".join(LABELS) + "\n" + "a" + ",0.5" * 14 + "\n")
    (tmp_path / "t.csv").write_text("Image Index,Finding Labels\na,No Finding\nb,No Finding|Mass\n")
    labels, _, targets = read_labels(
        *(ExternalTable.read(tmp_path / name) for name in ("p.csv", "t.csv")), []
    )
    assert labels == LABELS
    assert targets.sum(axis=1).tolist() == [0, 1]
    assert targets[1, LABELS.index("Mass")] == 1


def test_an_unknown_finding_is_rejected(read):
    with pytest.raises(DataError, match=r"'Finding_Labels' of .* holds \['mass'\]"):
        read("image,Mass a,0.5", "image,Finding_Labels a,mass")


@pytest.mark.parametrize(
    ("predictions", "named"),
    [("image,Edema,COVID a,0.5,0.25", "COVID"), ("image,prob_Edema,prob_fold a,0.5,3", "prob_fold")],
)
def test_a_label_that_the_targets_lack_is_rejected(read, predictions, named):
    with pytest.raises(DataError, match=rf"\['{named}'\] of .*theirs.csv .*labels.csv has no targets for"):
        read(predictions, "image,Edema,Mass a,1,0")


def test_columns_that_are_no_label_are_ignored(read, caplog):
    caplog.set_level("INFO")
    labels = read(
        "image,Edema,fold,note,Follow-up a,0.5,3,x,7 b,0.6,3,y,8",
        "image,Edema,Mass,Follow-up,note a,1,0,7,x b,0,0,8,y",
    )[0]
    assert labels == ("Edema",)
    assert "note, Follow-up are no labels" in caplog.text
    assert "no predictions for Mass, left out" in caplog.text


def test_tables_without_a_common_label_are_rejected(read):
    with pytest.raises(DataError, match=r"share no label: .*\['slice'\], the other \['Mass'\]"):
        read("image,slice a,3", "image,Mass a,1")


def test_one_file_without_prefixes_is_rejected(read, tmp_path):
    read("image,A a,1", "image,A a,1")
    one = ExternalTable.read(tmp_path / "theirs.csv")
    with pytest.raises(DataError, match="does not say which is which"):
        read_labels(one, one, [])


@pytest.mark.parametrize("columns", ["prob_A,A", "A,target/A", "probability/A,target/A", "prob_A,label/A"])
def test_one_file_with_prefixes_is_both(read, tmp_path, columns):
    read(f"image,{columns} a,0.5,1 b,0.2,0", "image,A a,1")
    one = ExternalTable.read(tmp_path / "theirs.csv")
    labels, probabilities, targets = read_labels(one, one, [])
    assert (labels, probabilities.tolist(), targets.tolist()) == (("A",), [[0.5], [0.2]], [[1], [0]])


def test_two_columns_for_a_label_are_rejected(read):
    with pytest.raises(DataError, match="two columns for A: 'prob_A' and 'probability/A'"):
        read("image,prob_A,probability/A a,0.5,0.5", "image,A a,1")


def test_text_in_the_numbers_is_named(read):
    with pytest.raises(DataError, match=r"'A' of .*theirs.csv holds 'high' in line 3, and 1 other lines"):
        read("image,A a,0.5 b,high c,low", "image,A a,1")
    with pytest.raises(DataError, match=r"'A' of .*labels.csv holds '?2(.0)?'? in line 4"):
        read("image,A a,0.5", "image,A a,1 b,0 c,2")
    with pytest.raises(DataError, match=r"'A' of .*labels.csv holds 'maybe' in line 2"):
        read("image,A a,0.5", "image,A a,maybe b,no")


def test_decisions_are_said_to_be_no_probabilities(read, caplog):
    read("image,A a,1 b,0", "image,A a,1 b,0")
    assert "'A' holds only 0 and 1" in caplog.text
