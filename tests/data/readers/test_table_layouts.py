"""The layouts of public data sets, drawn in small: what the reader of tables makes of each by settings alone."""

import gzip
import inspect
import json
import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from cxrlab.data.manifest import Manifest
from cxrlab.data.readers import table
from cxrlab.errors import ConfigError, DataError, MissingFileError, MissingPackageError, OutputError

NAN = np.nan
Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Write files of text and images of 100 x 50 pixels, and return the folder."""

    def function(images: str, **files: str) -> Path:
        for name in images.split():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (100, 50)).save(path, "PNG")
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/").replace("_csv", ".csv").replace("_txt", ".txt")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return function


def read(root: Path, **settings: Any) -> Manifest:
    return table.read(
        root, **{"image_column": "id", "image_suffix": ".png", "patient_column": None} | settings
    )


def targets(manifest: Manifest) -> list[list[float]]:
    return manifest.targets.tolist()


def images(manifest: Manifest) -> list[str]:
    return manifest.table["image"].tolist()


# Words as labels


def test_each_word_is_a_label_but_those_for_no_finding(make):
    text = "id,finding\na,Pneumonia\nb,Normal\nc,No Finding\nd, tb\ne,\n"
    manifest = read(make("a.png b.png c.png d.png e.png", t_csv=text), classes={"columns": "finding"})
    assert manifest.labels == ["Pneumonia", "tb"]
    np.testing.assert_array_equal(manifest.targets, [[1, 0], [0, 0], [0, 0], [0, 1], [NAN, NAN]])


@pytest.mark.parametrize("word", ["No_Finding", "no-finding", "Negative", "Control", "Healthy", "NORMAL"])
def test_no_finding_in_other_forms(make, word):
    manifest = read(make("a.png b.png", t_csv=f"id,dx\na,TB\nb,{word}\n"), classes={"columns": "dx"})
    assert (manifest.labels, targets(manifest)) == (["TB"], [[1], [0]])


def test_a_bare_list_in_a_cell_is_one_and_words_with_commas_are_mentioned(make, caplog):
    root = make("a.png b.png c.png", t_csv='id,dx\na,"[TB, COVID]"\nb,TB\nc,Normal\n')
    assert read(root, classes={"columns": "dx"}).labels == ["COVID", "TB"]
    assert "separator" not in caplog.text
    root = make("a.png b.png c.png", t_csv='id,dx\na,"TB, COVID"\nb,TB\nc,Normal\n')
    assert read(root, classes={"columns": "dx"}).labels == ["TB", "TB, COVID"]
    assert """such as 'TB, COVID'""" in caplog.text
    assert """'data.reader.classes.separator=","'""" in caplog.text
    assert read(root, classes={"columns": "dx", "separator": ","}).labels == ["COVID", "TB"]


def test_empty_cells_where_nothing_says_no_finding_name_the_key(make, caplog):
    root = make("a.png b.png", t_csv="id,dx\na,TB\nb,\n")
    read(root, classes={"columns": "dx"})
    assert "data.reader.blank=negative" in caplog.text
    assert targets(read(root, classes={"columns": "dx"}, blank="negative")) == [[1], [0]]


def test_whole_numbers_as_classes(make):
    root = make("a.png b.png c.png", t_csv="id,grade\na,0\nb,1\nc,2\n")
    with pytest.raises(DataError, match=r"classes=\{columns: grade, words: \{0: null, 1: NAME, 2: NAME\}\}"):
        read(root)
    meant = {"columns": "grade", "words": {0: None, 1: "mild", 2: "severe"}}
    assert targets(read(root, classes=meant)) == [[0, 0], [1, 0], [0, 1]]


def test_a_part_without_labels_is_named(make):
    root = make("a.png b.png", train_csv="id,TB\na,1\n", test_csv="id,age\nb,3\n")
    with pytest.raises(DataError, match=r"test\.csv lacks the columns \['TB'\]"):
        read(root, tables={"train": "train.csv", "test": "test.csv"})


def test_a_table_of_a_part_that_is_not_read_is_mentioned(make, caplog):
    texts = {
        f"{part}_csv": f"id,TB\n{name},1\n" for part, name in (("train", "a"), ("valid", "b"), ("test", "c"))
    }
    root = make("a.png b.png c.png", **texts)
    tables = {"train": "train.csv", "test": "test.csv"}
    assert len(read(root, tables=tables)) == 2
    assert "valid.csv lies beside" in caplog.text
    caplog.clear()
    assert len(read(root, tables=tables | {"val": "valid.csv"})) == 3
    assert "lies beside" not in caplog.text


def test_a_column_of_parts_that_nothing_reads_is_mentioned(make, caplog):
    root = make("a.png b.png", t_csv="id,TB,set\na,1,train\nb,0,test\n")
    read(root)
    assert "data.reader.split_column=set data.split.method=official" in caplog.text
    caplog.clear()
    assert read(root, split_column="set").table["split"].tolist() == ["train", "test"]
    assert "names parts" not in caplog.text


def test_boxes_that_are_fractions_are_no_pixels(make):
    root = make("a.png b.png", t_csv="id,TB,x,y,w,h\na,1,0.1,0.1,0.5,0.5\nb,0,,,,\n")
    boxes = {"label": "TB", "x": "x", "y": "y", "width": "w", "height": "h"}
    with pytest.raises(ConfigError, match=r"data\.reader\.boxes\.units=fractions"):
        read(root, labels=["TB"], boxes=boxes)
    assert read(root, labels=["TB"], boxes=boxes | {"units": "fractions"}).boxes["width"].tolist() == [0.5]


def test_an_accent_in_another_form_of_unicode_is_named(make):
    with pytest.raises(MissingFileError, match="another form of Unicode"):
        read(make("a\u0308.png", t_csv="id,TB\n\u00e4,1\n"))


def test_images_with_another_suffix_are_named_with_what_to_set(make):
    root = make("a.png b.png", t_csv="id,TB\na,1\nb,0\n", u_csv="id,TB\na.dcm,1\nb.dcm,0\n")
    with pytest.raises(MissingFileError, match=r"set data\.reader\.image_suffix=\.png\."):
        read(root, tables="t.csv", image_suffix=".dicom")
    with pytest.raises(MissingFileError) as error:
        read(root, tables="u.csv", image_suffix="")
    derive = re.search(r"data\.reader\.derive=({.*}})", str(error.value))
    assert derive is not None
    stem = yaml.safe_load(derive[1].replace("COLUMN", "id"))
    manifest = read(root, tables="u.csv", derive=stem, image_column="stem", image_suffix=".png")
    assert images(manifest) == ["a.png", "b.png"]


RECORDS = [{"id": "a", "TB": 1}, {"id": "b", "TB": 0}]


@pytest.mark.parametrize(
    "content",
    [{"version": 1, "data": RECORDS}, {"columns": ["id", "TB"], "index": [0, 1], "data": [["a", 1], ["b", 0]]},
     {"train": RECORDS[:1], "test": RECORDS[1:]}],
)  # fmt: skip
def test_records_within_a_json_file(make, content):
    root = make("a.png b.png", **{"t.json": json.dumps(content)})
    split = {"split_column": "split"} if "train" in content else {}
    manifest = read(root, **split)
    assert (manifest.labels, targets(manifest)) == (["TB"], [[1], [0]])
    assert manifest.table["split"].tolist() == (["train", "test"] if split else ["", ""])


def test_classes_of_a_multiclass_task_keep_the_normal_one(make):
    text = "id,class\na,Normal\nb,Lung Opacity\nb,Lung Opacity\nc,No Lung Opacity / Not Normal\n"
    manifest = read(make("a.png b.png c.png", t_csv=text), classes={"columns": "class", "none": []})
    assert manifest.labels == ["Lung Opacity", "No Lung Opacity / Not Normal", "Normal"]
    assert targets(manifest) == [[0, 0, 1], [1, 0, 0], [0, 1, 0]]


def test_words_of_several_columns_mean_labels_lists_of_labels_or_none(make):
    text = "id,one,two\na,pneumonia,edema\nb,COPD,\nc,device,\nd,0.0,\n"
    words = {"pneumonia": "Pneumonia", "edema": ["Edema", "Opacity"], "copd": None, "Device": None, 0: "Zero"}
    classes = {"columns": ["one", "two"], "words": words}
    manifest = read(make("a.png b.png c.png d.png", t_csv=text), classes=classes)
    assert manifest.labels == ["Pneumonia", "Edema", "Opacity", "Zero"]
    assert targets(manifest) == [[1, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]


@pytest.mark.parametrize(
    ("cell", "labels"),
    [
        ("Mass|Nodule", ["Mass", "Nodule"]),
        ("Mass; Nodule;", ["Mass", "Nodule"]),
        ("\"['Mass', ' Nodule', nan]\"", ["Mass", "Nodule"]),
        ('"[""Mass""]"', ["Mass"]),
        ("\"['Nodule' 'Mass']\"", ["Mass", "Nodule"]),
        ("[]", []),
    ],
)
def test_several_words_in_a_cell(make, cell, labels):
    text = f"id,finding\na,{cell}\nb,Mass|Nodule\n"
    manifest = read(make("a.png b.png", t_csv=text), classes={"columns": "finding"})
    assert targets(manifest) == [[float(name in labels) for name in ("Mass", "Nodule")], [1, 1]]


def test_a_separator_of_ones_own(make):
    text = "id,finding\na,Pneumonia/Viral/COVID-19\nb,No Finding\n"
    classes = {"columns": "finding", "separator": "/"}
    manifest = read(make("a.png b.png", t_csv=text), classes=classes, labels=["COVID-19", "Viral"])
    assert targets(manifest) == [[1, 1], [0, 0]]


def test_a_word_that_the_mapping_lacks(make):
    root = make("a.png b.png", t_csv="id,finding\na,Mass\nb,Odd\n")
    classes: dict[str, Any] = {"columns": "finding", "words": {"mass": "Mass"}}
    with pytest.raises(DataError, match=r"'finding' of .*t\.csv holds 'Odd' in line 3, which .*words lacks"):
        read(root, classes=classes)
    assert targets(read(root, classes=classes | {"others": "ignore"})) == [[1], [0]]
    assert targets(read(root, classes=classes | {"others": "label"})) == [[1, 0], [0, 1]]


def test_words_that_leave_labels_unknown(make):
    root = make("a.png b.png", t_csv="id,finding\na,exclude|Mass\nb,Edema\n")
    manifest = read(root, classes={"columns": "finding", "unknown": ["Exclude"]})
    np.testing.assert_array_equal(manifest.targets, [[NAN, 1], [1, 0]])


def test_labels_pick_among_words_and_one_that_never_occurs_is_told(make, caplog):
    root = make("a.png b.png", t_csv="id,finding,Device\na,Mass|Edema,1\nb,Edema,0\n")
    manifest = read(root, classes={"columns": "finding"}, labels=["Hernia", "Edema", "Device"])
    assert manifest.labels == ["Hernia", "Edema", "Device"]
    assert targets(manifest) == [[0, 1, 1], [0, 1, 0]]
    assert "['Hernia'] of data.reader.labels stand nowhere in the columns ['finding']" in caplog.text


def test_padchest(make):
    text = "ImageID,ImageDir,PatientID,Labels\na,0,7,['normal']\nb,1,7,\"['pleural effusion', 'cardiomegaly']\"\n"
    manifest = read(
        make("0/a.png 1/b.png", t_csv=text),
        derive={"path": "{ImageDir}/{ImageID}"},
        image_column="path",
        patient_column="PatientID",
        classes={"columns": "Labels"},
    )
    assert (images(manifest), manifest.labels) == (
        ["0/a.png", "1/b.png"],
        ["cardiomegaly", "pleural effusion"],
    )
    assert targets(manifest) == [[0, 0], [1, 1]]


@pytest.mark.parametrize("words", [("yes", "NO"), ("Y", "n"), ("positive", "negative"), ("True", "false")])
def test_words_for_present_and_absent(make, words):
    text = "id,Opacity\n" + "".join(f"{name},{word}\n" for name, word in zip("ab", words, strict=True))
    assert targets(read(make("a.png b.png", t_csv=text))) == [[1], [0]]


# Names of files as labels


def test_shenzhen_without_any_table(make):
    manifest = table.read(
        make("CXR_png/CHN_0001_0.png CXR_png/CHN_0002_1.png mask/CHN_0001_0.png", notes_txt="x"),
        files="CXR_png/*.png",
        derive={"tuberculosis": {"from": "image", "pattern": r"_([01])\.png$"}},
        patient_column=None,
        labels=["tuberculosis"],
    )
    assert images(manifest) == ["CXR_png/CHN_0001_0.png", "CXR_png/CHN_0002_1.png"]
    assert targets(manifest) == [[0], [1]]


def test_the_folder_or_the_name_of_an_image_as_its_class(make):
    root = make("x/positive/1.png x/negative/2.png", x__positive__readme_txt="x")
    manifest = table.read(
        root, files="x/*/*", patient_column="name", classes={"columns": "folder", "none": ["negative"]}
    )
    assert (manifest.labels, targets(manifest)) == (["positive"], [[0], [1]])
    assert manifest.table["patient"].tolist() == ["2", "1"]


def test_files_that_are_none(make):
    root = make("a.png", t_csv="id\na\n")
    with pytest.raises(
        MissingFileError, match=r"No image fits data\.reader\.files=x/\*\.png: .* holds a\.png, t\.csv"
    ):
        read(root, files="x/*.png")
    with pytest.raises(ConfigError, match=r"files=\.\./\*\.png must be a pattern below data\.root"):
        read(root, files="../*.png")
    with pytest.raises(ConfigError, match="stands in place of a table"):
        read(root, files="*.png", tables="t.csv")


def test_a_derived_column_that_finds_nothing(make):
    root = make("a.png", t_csv="id,Mass\na,1\n")
    with pytest.raises(
        DataError, match=r"derive\.x\.pattern=\\d finds nothing in 1 of 1 cells of 'id' .*'a' in line 2"
    ):
        read(root, derive={"x": {"from": "id", "pattern": r"\d"}})
    read(root, derive={"x": {"from": "id", "pattern": r"\d", "default": ""}})
    for template in ("{id.__class__}", "{}", "{id", "{nothing}", "{id:>99999999}"):
        with pytest.raises((ConfigError, DataError), match=r"data\.reader\.derive\.x"):
            read(root, derive={"x": template})


# Several tables


@pytest.fixture
def mimic(make: Make) -> Path:
    root = make("files/p10/p1000/s50/d1.jpg files/p10/p1000/s50/d2.jpg files/p11/p1101/s51/d3.jpg")
    tables = {
        "metadata": "dicom_id,subject_id,study_id,ViewPosition\nd1,1000,50,PA\nd2,1000,50,LATERAL\nd3,1101,51,AP\n",
        "split": "dicom_id,study_id,subject_id,split\nd3,51,1101,validate\nd1,50,1000,train\nd2,50,1000,train\n",
        "chexpert": "subject_id,study_id,Edema,Mass\n1000,50,1.0,-1.0\n",
    }
    for name, text in tables.items():
        (root / f"{name}.csv.gz").write_bytes(gzip.compress(text.encode()))
    return root


MIMIC: dict[str, Any] = {
    "tables": "metadata.csv",  # .gz is found by itself
    "join": [
        {"table": "split.csv.gz", "on": "dicom_id"},
        {"table": "chexpert.csv.gz", "on": ["subject_id", "study_id"]},
    ],
    "derive": {"path": "files/p{subject_id:.2}/p{subject_id}/s{study_id}/{dicom_id}.jpg"},
    "image_column": "path",
    "image_suffix": "",
    "patient_column": "subject_id",
    "split_column": "split",
    "covariates": {"view": "ViewPosition"},
    "labels": ["Edema", "Mass"],
}


def test_mimic(mimic, caplog):
    manifest = read(mimic, **MIMIC)
    assert images(manifest)[2] == "files/p11/p1101/s51/d3.jpg"
    assert manifest.table["patient"].tolist() == ["1000", "1000", "1101"]
    assert manifest.table["split"].tolist() == ["train", "train", "val"]
    assert manifest.table["covariate/view"].tolist() == ["PA", "LATERAL", "AP"]
    np.testing.assert_array_equal(manifest.targets, [[1, NAN], [1, NAN], [NAN, NAN]])
    assert "1 of 3 rows of " in caplog.text
    assert "have no partner" in caplog.text


def test_rows_without_a_partner_are_dropped_on_request(mimic):
    joins = [MIMIC["join"][0], MIMIC["join"][1] | {"unmatched": "drop"}]
    assert len(read(mimic, **MIMIC | {"join": joins})) == 2


def test_keys_that_one_program_wrote_with_decimals(make):
    root = make("a.png b.png", t_csv="id,study\na,1\nb,2\n", u_csv="study,Mass\n2.0,0\n1.0,1\n")
    assert targets(read(root, tables="t.csv", join=[{"table": "u.csv", "on": "study"}])) == [[1], [0]]


@pytest.mark.parametrize(
    ("join", "message"),
    [
        ({"table": "split.csv.gz"}, r"join\[0\] lacks \['on'\]"),
        ({"table": "split.csv.gz", "key": "dicom_id"}, r"join\[0\] has no key 'key'"),
        ({"table": "split.csv.gz", "on": "x"}, r"lacks the column 'x' of data\.reader\.join\[0\]\.on"),
        (
            {"table": "none.csv", "on": "dicom_id"},
            r"no table .*none\.csv, which data\.reader\.join\[0\]\.table",
        ),
        ({"table": "split.csv.gz", "on": "subject_id"}, r"several rows for \['1000'\], the second in line 4"),
        (
            {"table": "split.csv.gz", "on": {"dicom_id": "study_id"}, "take": ["split"]},
            "No row of .* has a partner",
        ),
        (
            {"table": "chexpert.csv.gz", "on": "study_id", "unmatched": "maybe"},
            r"unmatched=maybe must be one of",
        ),
    ],
)
def test_a_join_that_does_not_fit(mimic, join, message):
    with pytest.raises((ConfigError, DataError, MissingFileError), match=message):
        read(mimic, **MIMIC | {"join": [join]})


def test_a_joined_table_is_written_in_its_own_way(make):
    root = make(
        "a.png b.png", t_txt="a.png 1\nb.png 2\n", u_csv="patient,Mass\n1,1\n2,0\n", v_txt="1 train\n2 test\n"
    )
    manifest = table.read(
        root,
        tables="t.txt",
        columns=["image", "patient"],
        separator=" ",
        join=[
            {"table": "u.csv", "on": "patient"},
            {"table": "v.txt", "on": "patient", "columns": ["patient", "part"], "separator": " "},
        ],
        split_column="part",
    )
    assert (manifest.table["split"].tolist(), targets(manifest)) == (["train", "test"], [[1], [0]])


def test_a_study_that_lists_its_images(make):
    root = make("a.png b.png c.png")
    records = {
        "s1": {"patient": "1", "paths": ["a.png", "b.png"], "views": ["PA", "LL"], "Mass": 1},
        "s2": {"patient": "2", "paths": ["c.png"], "views": ["AP"], "Mass": 0},
        "s3": {"patient": "3", "paths": [], "views": [], "Mass": 0},
    }
    (root / "t.json").write_text(json.dumps(records))
    settings: dict[str, Any] = {"image_column": "paths", "image_suffix": "", "patient_column": "patient"}
    manifest = read(root, explode=["paths", "views"], covariates={"view": "views"}, **settings)
    assert (images(manifest), targets(manifest)) == (["a.png", "b.png", "c.png"], [[1], [1], [0]])
    assert manifest.table["covariate/view"].tolist() == ["PA", "LL", "AP"]
    records["s2"]["views"] = []
    (root / "t.json").write_text(json.dumps(records))
    with pytest.raises(
        DataError, match=r"lists of \['paths', 'views'\] differ in length in line 2 .*: \[1, 0\]"
    ):
        read(root, explode=["paths", "views"], **settings)


def test_a_column_of_both_tables_that_differs(make):
    root = make("a.png", t_csv="id,patient\na,1\n", u_csv="id,patient,Mass\na,2,1\n")
    settings: dict[str, Any] = {"tables": "t.csv", "labels": ["Mass"]}
    with pytest.raises(
        DataError, match=r"'patient' is in .*t\.csv and in .*u\.csv and differs, in line 2.* '1' and '2'"
    ):
        read(root, join=[{"table": "u.csv", "on": "id"}], **settings)
    assert targets(read(root, join=[{"table": "u.csv", "on": "id", "take": "Mass"}], **settings)) == [[1]]


def test_words_of_ones_own_for_parts(make):
    root = make("a.png b.png c.png", t_csv="id,Mass,fold\na,1,0\nb,0,1\nc,1,9\n")
    words = {0: "train", "1": "test", 9: None}
    assert read(root, split_column="fold", part_words=words).table["split"].tolist() == ["train", "test", ""]
    with pytest.raises(DataError, match=r"'fold' of .* holds '0' in line 2; .*part_words=\{0: val\}"):
        read(root, split_column="fold")
    with pytest.raises(ConfigError, match=r"part_words says that 0 is 'holdout'; parts are"):
        read(root, part_words={0: "holdout"})


# Several readers


VOTES = "id,reader,Mass,Edema\na,R1,1,1\na,R2,1,0\na,R3,0,0\nb,R1,1,0\nb,R2,0,\n"


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"rule": "any"}, [[1, 1], [1, 0]]),
        ({"rule": "majority"}, [[1, 0], [NAN, 0]]),
        ({"rule": "mean"}, [[1, 0], [1, 0]]),
        ({"rule": "mean", "threshold": 0.7}, [[0, 0], [0, 0]]),
        ({"rule": "one", "reader": "R2"}, [[1, 0], [0, NAN]]),
    ],
)
def test_several_readers_of_an_image(make, rule, expected):
    manifest = read(
        make("a.png b.png", t_csv=VOTES), readers=rule | {"column": "reader"}, labels=["Mass", "Edema"]
    )
    np.testing.assert_array_equal(manifest.targets, expected)


def test_without_a_rule_readers_who_contradict_one_another_are_refused_with_the_key(make):
    with pytest.raises(
        DataError, match=r"2 images are listed more than once .* data\.reader\.readers\.rule=majority"
    ):
        read(make("a.png b.png", t_csv=VOTES))


@pytest.mark.parametrize(
    ("readers", "message"),
    [
        ({"rule": "most"}, r"readers\.rule=most must be one of"),
        ({"rule": "one", "column": "reader"}, r"rule=one needs data\.reader\.readers\.column and .*\.reader"),
        (
            {"rule": "one", "column": "reader", "reader": "R9"},
            r"No row of .* is of data\.reader\.readers\.reader=R9",
        ),
        ({"rule": "mean", "column": "reader", "threshold": 2}, r"threshold=2 must lie between"),
        ({"rule": "any", "column": "rad"}, r"lacks the column 'rad' of data\.reader\.readers\.column"),
    ],
)
def test_a_rule_that_does_not_fit(make, readers, message):
    with pytest.raises((ConfigError, DataError), match=message):
        read(make("a.png b.png", t_csv=VOTES), readers=readers)


# Boxes and masks


VINDR = """id,class_name,rad,x_min,y_min,x_max,y_max
a,No finding,R1,,,,
a,Mass,R2,10,5,30,25
a,Mass,R3,20,10,30,25
b,Edema,R1,0,0,50,50
b,No finding,R2,,,,
b,No finding,R3,,,,
c,No finding,R1,,,,
"""
CORNERS = {name: name for name in ("x_min", "y_min", "x_max", "y_max")}


def test_vindr(make, caplog):
    manifest = read(
        make("a.png b.png c.png", t_csv=VINDR),
        classes={"columns": "class_name"},
        readers={"rule": "majority", "column": "rad"},
        boxes={"label_column": "class_name", **CORNERS},
    )
    assert (images(manifest), manifest.labels) == (["a.png", "b.png", "c.png"], ["Edema", "Mass"])
    assert targets(manifest) == [[0, 1], [0, 0], [0, 0]]
    assert manifest.boxes.to_numpy().tolist() == [
        ["a.png", "Mass", 0.1, 0.1, 0.2, 0.4],
        ["a.png", "Mass", 0.2, 0.2, 0.1, 0.3],
    ]
    assert "1 of 3 boxes of " in caplog.text  # the majority saw no edema


def test_one_reader_has_boxes_of_that_reader_alone(make):
    manifest = read(
        make("a.png b.png c.png", t_csv=VINDR),
        classes={"columns": "class_name"},
        readers={"rule": "one", "column": "rad", "reader": "R3"},
        boxes={"label_column": "class_name", **CORNERS},
    )
    assert (targets(manifest), len(manifest.boxes)) == ([[1], [0]], 1)


def test_boxes_in_a_table_of_their_own(make):
    manifest = read(
        make("x/a.png x/b.png", labels_csv="id,Mass\na,1\nb,0\n", boxes_csv="file,what,x,y,w,h\na,mass,10,5,20,20\n"),
        tables="labels.csv",
        image_folder="x",
        boxes={
            "table": "boxes.csv", "image_column": "file", "label_column": "what", "x": "x", "y": "y", "width": "w", "height": "h",
        },
    )  # fmt: skip
    assert manifest.boxes.to_numpy().tolist() == [["x/a.png", "Mass", 0.1, 0.1, 0.2, 0.4]]


RSNA = "id,x,y,width,height,Target\na,,,,,0\nb,10,5,20,20,1\nb,50,5,20,20,1\n"
SIDES = {name: name for name in ("x", "y", "width", "height")}


@pytest.mark.parametrize(
    ("more", "x"),
    [({}, 0.1), ({"size": [200, 100]}, 0.05), ({"size": ["wide", 100]}, 0.01), ({"units": "fractions"}, 10)],
)
def test_rsna(make, more, x):
    text = (
        RSNA.replace("Target\n", "Target,wide\n")
        .replace("0\na", "0,1\na")
        .replace(",0\n", ",0,1000\n")
        .replace(",1\n", ",1,1000\n")
    )
    root = make("a.png b.png", t_csv=text)
    manifest = read(root, labels={"Opacity": "Target"}, boxes={"label": "Opacity", **SIDES, **more})
    assert (manifest.labels, targets(manifest)) == (["Opacity"], [[0], [1]])
    if x < 1:
        assert manifest.boxes["x"].tolist()[0] == pytest.approx(x)
        assert manifest.boxes["image"].tolist() == ["b.png", "b.png"]
    else:
        assert len(manifest.boxes) == 0
        assert len(manifest.unusable_boxes) == 2


def test_chestx_det(make):
    records = [
        {"file_name": "a.png", "syms": [], "boxes": [], "polygons": []},
        {"file_name": "b.png", "syms": ["Mass", "Edema"], "boxes": [[10, 5, 30, 25], [0, 0, 50, 50]],
         "polygons": [[[10, 5], [30, 5], [20, 25]], [[0, 0], [50, 0], [50, 50]]]},
    ]  # fmt: skip
    root = make("a.png b.png")
    (root / "t.json").write_text(json.dumps(records))
    settings: dict[str, Any] = {
        "image_column": "file_name", "image_suffix": "", "classes": {"columns": "syms"},
    }  # fmt: skip
    expected = [["b.png", "Mass", 0.1, 0.1, 0.2, 0.4], ["b.png", "Edema", 0, 0, 0.5, 1]]
    for boxes in ({"column": "boxes", "corners": True}, {"column": "polygons"}):
        manifest = read(root, **settings, boxes={"label_column": "syms", **boxes})
        assert (manifest.labels, targets(manifest)) == (["Edema", "Mass"], [[0, 0], [1, 1]])
        assert manifest.boxes.to_numpy().tolist() == expected


def test_boxes_as_mappings_in_a_cell(make):
    text = "id,target,bbox\na,tb,\"{'xmin': 10.0, 'ymin': 5.0, 'width': 20.0, 'height': 20.0}\"\nb,no,none\n"
    boxes = {"label": "TB", "column": "bbox"}
    manifest = read(
        make("a.png b.png", t_csv=text),
        classes={"columns": "target", "words": {"tb": "TB", "no": None}},
        boxes=boxes,
    )
    assert manifest.boxes.to_numpy().tolist() == [["a.png", "TB", 0.1, 0.1, 0.2, 0.4]]


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ({"label": "Target", "x": "x"}, r"needs x, y, width and height, or .*it has \['x'\]"),
        ({"label": "Target", **SIDES, "column": "x"}, "one of these, whole"),
        (SIDES, "needs either label, the name of a label, or label_column"),
        ({"label": "Mass", **SIDES}, r"boxes\.label=Mass is none of the labels \['Target'\]"),
        ({"label": "Target", **SIDES, "unit": "pixels"}, r"has no key 'unit'; did you mean 'units'"),
        ({"label": "Target", **SIDES, "size": 1024}, r"size=1024 must be \[width, height\]"),
        ({"label": "Target", **SIDES, "units": "mm"}, r"units=mm must be one of"),
        ({"label": "Target", **SIDES, "x": "left"}, r"lacks the column 'left' of data\.reader\.boxes"),
        ({"label": "Target", **SIDES, "x": "note"}, r"Line 3 of .* holds \['left', '5', '20', '20'\]"),
    ],
)
def test_boxes_that_do_not_fit(make, boxes, message):
    text = RSNA.replace("Target\n", "Target,note\n").replace(",0\n", ",0,\n").replace(",1\n", ",1,left\n")
    with pytest.raises((ConfigError, DataError), match=message):
        read(make("a.png b.png", t_csv=text), labels=["Target"], boxes=boxes)


def test_run_lengths_mean_presence(make):
    text = "id, EncodedPixels\na,-1\nb,557374 2 1015 8\nb,514175 10\nc, -1\n"
    root = make("x/1/a.png x/1/b.png x/2/c.png", t_csv=text)
    manifest = read(
        root, presence={"Pneumothorax": {"column": "EncodedPixels"}}, image_folder="x", search=True
    )
    assert (images(manifest), targets(manifest)) == (["x/1/a.png", "x/1/b.png", "x/2/c.png"], [[0], [1], [0]])


# Where images lie


def test_several_folders_of_images(make):
    root = make("images_1/images/a.png images_2/images/b.png", t_csv="id,Mass\na,1\nb,0\nc,0\n")
    for folder in ("images_*/images", ["images_1/images", "images_2/images"]):
        manifest = read(root, image_folder=folder)
        assert images(manifest) == ["images_1/images/a.png", "images_2/images/b.png"]
        assert manifest.missing == ("images_1/images/c.png",)
    with pytest.raises(MissingFileError, match=r"No folder fits data\.reader\.image_folder=img_\*"):
        read(root, image_folder="img_*")


@pytest.mark.parametrize("settings", [{"image_folder": "x_*"}, {"search": True}])
def test_an_image_in_two_folders_is_an_error(make, settings):
    root = make("x_1/a.png x_2/a.png x_1/b.png", t_csv="id,Mass\na,1\nb,0\n")
    with pytest.raises(
        DataError, match=r"1 images of .* lie in more than one folder, for instance a\.png: \['x_1/a\.png', "
    ):
        read(root, **settings)


def test_the_error_that_no_image_is_there_says_what_is_near(make):
    root = make("Images/a.PNG", t_csv="id,Mass\na,1\n")
    for settings, near in (
        ({"image_folder": "images", "image_suffix": ".PNG"}, r"There is .*/Images, which differs in case"),
        ({"image_folder": "Images", "image_suffix": ""}, r"set data\.reader\.image_suffix=\.PNG"),
        ({"image_suffix": ".PNG"}, r"There is .*/Images/a\.PNG: set data\.reader\.image_folder \(or"),
    ):
        with pytest.raises(MissingFileError, match=near):
            read(root, **settings)


# Tables of any format


def test_covidx_without_header_and_with_blanks(make):
    root = make(
        "train/a.png train/b.png test/c.png",
        train_txt="1 a.png negative x\n2  b.png positive y\n",
        test_txt="3 c.png positive y\n",
    )
    manifest = read(
        root,
        tables={"train": "train.txt", "test": "test.txt"},
        columns=["patient", "image", "class", "source"],
        separator=" ",
        image_column="image",
        image_suffix="",
        image_folder=["train", "test"],
        patient_column="patient",
        classes={"columns": "class", "words": {"positive": "COVID-19", "negative": None}},
    )
    assert images(manifest) == ["train/a.png", "train/b.png", "test/c.png"]
    assert manifest.table["split"].tolist() == ["train", "train", "test"]
    assert targets(manifest) == [[0], [1], [1]]


def test_lines_by_a_regular_expression(make):
    root = make("a_1.png", t_txt="P 1: a_1.png positive\n\n")
    columns = r"(?P<patient>.+): (?P<id>\S+) (?P<class>\w+)"
    settings: dict[str, Any] = {"tables": "t.txt", "image_suffix": "", "classes": {"columns": "class"}}
    assert read(root, columns=columns, patient_column="patient", **settings).table["patient"].tolist() == [
        "P 1"
    ]
    with pytest.raises(DataError, match=r"Line 1 of .*t\.txt, 'P 1: a_1\.png positive', does not fit"):
        read(root, columns=r"(?P<id>\d+)", **settings)
    with pytest.raises(ConfigError, match=r"columns=\\d\+ must be a list of names, or a regular expression"):
        read(root, columns=r"\d+", **settings)


FRAME = pd.DataFrame({"id": ["a", "b"], "Mass": [1.0, None], "Edema": [True, False], "age": ["060Y", ">89"]})


@pytest.mark.parametrize(
    "suffix",
    [
        "xlsx",
        "parquet",
        "json",
        "jsonl",
        "columns.json",
        "pandas.json",
        "named.json",
        "json.gz",
        "utf16.json",
    ],
)
def test_one_table_in_every_format(make, suffix):
    root = make("a.png b.png")
    path = root / f"t.{suffix}"
    records = json.loads(FRAME.to_json(orient="records"))
    if suffix == "xlsx":
        FRAME.to_excel(path, index=False)
    elif suffix == "parquet":
        FRAME.to_parquet(path)
    elif suffix == "jsonl":
        path.write_text("\n".join(map(json.dumps, records)))
    elif suffix == "columns.json":
        path.write_text(
            json.dumps({"id": ["a", "b"], "Mass": [1, None], "Edema": [True, False], "age": ["060Y", ">89"]})
        )
    elif suffix == "pandas.json":
        path.write_text(FRAME.to_json())
    elif suffix == "utf16.json":
        path.write_text(json.dumps(records), "utf-16")
    elif suffix == "named.json":
        named = {
            record["id"]: {key: value for key, value in record.items() if key != "id"} for record in records
        }
        path.write_text(json.dumps(named))
    elif suffix == "json":
        path.write_text(json.dumps({"data": records}))
    else:
        path.write_bytes(gzip.compress(json.dumps(records).encode()))
    column = "image" if suffix == "named.json" else "id"
    manifest = read(root, image_column=column, labels=["Mass", "Edema"], covariates={"age": "age"})
    np.testing.assert_array_equal(manifest.targets, [[1, 1], [NAN, 0]])
    assert manifest.table["covariate/age"].tolist() == [60, 89]


@pytest.mark.parametrize("labels", [{"a.png": "Mass", "b.png": "Normal"}, {"a.png": ["Mass"], "b.png": []}])
def test_labels_by_image(make, labels):
    root = make("a.png b.png")
    (root / "t.json").write_text(json.dumps(labels))
    manifest = read(root, image_column="image", image_suffix="", classes={"columns": "label"})
    assert (images(manifest), targets(manifest)) == (["a.png", "b.png"], [[1], [0]])


def test_coco(make):
    coco = {
        "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
        "annotations": [{"image_id": 2, "category_id": 5, "bbox": [10, 5, 20, 20]}],
        "categories": [{"id": 5, "name": "TB"}],
    }
    root = make("a.png b.png")
    (root / "t.json").write_text(json.dumps(coco))
    manifest = read(
        root, image_column="file_name", image_suffix="", classes={"columns": "category"}, blank="negative",
        boxes={"label_column": "category", "column": "bbox"},
    )  # fmt: skip
    assert dict(zip(images(manifest), targets(manifest), strict=True)) == {"a.png": [0], "b.png": [1]}
    assert manifest.boxes.to_numpy().tolist() == [["b.png", "TB", 0.1, 0.1, 0.2, 0.4]]


def test_a_title_above_an_excel_table(make):
    root = make("a.png")
    FRAME.head(1).to_excel(root / "t.xlsx", index=False, startrow=2)
    assert images(read(root, labels=["Mass"])) == ["a.png"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.json", b"[1, 2]", "holds no table: a list of records"),
        ("t.json", b'[{"id": "a"', r"JSON file .*t\.json cannot be read"),
        ("t.json", b"[" * 100_000, "cannot be read"),
        ("t.xlsx", b"PK\x03\x04 [Content_Types].xml", r"Excel file .* cannot be read"),
        ("t.parquet", b"PAR1 no", r"Parquet file .* cannot be read"),
        ("t.xls", b"\xd0\xcf\x11\xe0", "it is an old Excel file"),
        ("t.csv", b"PK\x03\x04 a.txt", "it is a ZIP archive"),
    ],
)
def test_files_that_are_no_tables(make, name, content, message):
    root = make("a.png")
    (root / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(root, tables=name)


# MedMNIST


def medmnist(
    path: Path, *, seed: int = 0, shape: tuple[int, ...] = (28, 28), labels: int = 3
) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    arrays: dict[str, np.ndarray] = {}
    for part, number in (("train", 4), ("val", 2), ("test", 2)):
        arrays[f"{part}_images"] = random.integers(0, 256, (number, *shape), dtype=np.uint8)
        arrays[f"{part}_labels"] = random.integers(0, 2, (number, labels))
    np.savez(path, **arrays)
    return arrays


MED: dict[str, Any] = {"image_column": "image", "image_suffix": ""}


@pytest.mark.parametrize("shape", [(28, 28), (28, 28, 3)])
def test_medmnist(tmp_path, caplog, shape):
    arrays = medmnist(tmp_path / "chest.npz", shape=shape)
    with caplog.at_level(logging.INFO):
        manifest = read(tmp_path, columns=["Mass", "Edema", "Hernia"], **MED)
    assert manifest.labels == ["Mass", "Edema", "Hernia"]
    assert manifest.table["split"].tolist() == ["train"] * 4 + ["val"] * 2 + ["test"] * 2
    expected = np.concatenate([arrays[f"{part}_labels"] for part in ("train", "val", "test")])
    np.testing.assert_array_equal(manifest.targets, expected)
    with Image.open(tmp_path / images(manifest)[4]) as image:
        np.testing.assert_array_equal(np.asarray(image), arrays["val_images"][0])
    assert "the 8 images of " in caplog.text


def test_images_are_written_once_and_again_when_the_file_has_changed(tmp_path):
    medmnist(tmp_path / "chest.npz")
    first = images(read(tmp_path, **MED))
    (tmp_path / first[0]).write_bytes(b"kept")
    read(tmp_path, **MED)
    assert (tmp_path / first[0]).read_bytes() == b"kept"
    arrays = medmnist(tmp_path / "chest.npz", seed=1)
    read(tmp_path, **MED)
    with Image.open(tmp_path / first[0]) as image:
        np.testing.assert_array_equal(np.asarray(image), arrays["train_images"][0])


def test_arrays_that_are_no_images(tmp_path):
    np.savez(tmp_path / "t.npz", x=np.zeros(3))
    with pytest.raises(DataError, match=r"holds the arrays \['x'\]; train_images and train_labels"):
        read(tmp_path, **MED)
    np.savez(tmp_path / "t.npz", images=np.zeros((2, 4, 4)), labels=[0, 1])
    with pytest.raises(
        DataError, match=r"images of .* is of float64 with the shape \(2, 4, 4\); images are bytes"
    ):
        read(tmp_path, **MED)
    np.savez(tmp_path / "t.npz", images=np.zeros((2, 4, 4), np.uint8), labels=np.array([{}, 1], dtype=object))
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path, **MED)
    medmnist(tmp_path / "t.npz")
    with pytest.raises(ConfigError, match=r"columns names 1 labels, but .* holds 3 for each image"):
        read(tmp_path, columns=["A"], **MED)
    (tmp_path / "t_images" / "source.json").unlink(missing_ok=True)
    (tmp_path / "t_images").mkdir(exist_ok=True)
    with pytest.raises(DataError, match="is in the way"):
        read(tmp_path, **MED)


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    medmnist(tmp_path / "t.npz")

    def full(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("cxrlab.data.readers._npz.tempfile.mkdtemp", full)
    with pytest.raises(OutputError, match=r"cannot be written into .*t_images: Read-only file system\. Copy"):
        read(tmp_path, **MED)


# What is no label, and slips


def test_columns_of_other_kinds_are_not_taken_unasked(make, caplog):
    text = "id,Mass,sex_male,fold,frontal,PixelRepresentation,AP/PA,age_over_60,Support Devices\n"
    rows = "a,1,1,0,1,0,1,0,1\nb,0,0,1,1,0,0,1,0\n"
    root = make("a.png b.png", t_csv=text + rows)
    assert read(root).labels == ["Mass", "Support Devices"]
    assert "sex_male, fold, frontal, PixelRepresentation, AP/PA, age_over_60" in caplog.text
    assert "'data.reader.labels=[Mass,Support Devices,sex_male]'" in caplog.text
    assert read(root, labels=["fold"]).labels == ["fold"]


def test_one_bad_cell_is_refused_with_its_place_unless_it_may_be_ignored(make, caplog):
    rows = "".join(f"a{number},{number % 2},{number % 2}\n" for number in range(20))
    root = make(
        " ".join(f"a{number}.png" for number in range(21)), t_csv="id,Effusion,Mass\n" + rows + "a20,2,1\n"
    )
    for settings in ({}, {"labels": ["Effusion"]}):
        with pytest.raises(
            DataError, match=r"column 'Effusion' of .*t\.csv holds '2' in line 22.*on_bad_label=ignore"
        ):
            read(root, **settings)
    manifest = read(root, on_bad_label="ignore")
    assert manifest.labels == ["Effusion", "Mass"]
    np.testing.assert_array_equal(manifest.targets[-2:], [[1, 1], [NAN, 1]])
    assert "holds '2' in line 22; they are taken as unknown" in caplog.text
    with pytest.raises(ConfigError, match="on_bad_label=skip must be one of"):
        read(root, on_bad_label="skip")


def test_a_count_is_no_column_of_labels_with_slips(make):
    root = make("a.png b.png c.png d.png", t_csv="id,Mass,visits\na,1,0\nb,0,1\nc,1,2\nd,0,3\n")
    assert read(root).labels == ["Mass"]


@pytest.mark.parametrize(
    ("cells", "advice"), [("1 -1", "data.reader.uncertain=negative"), ("1 ,", "data.reader.blank=negative")]
)
def test_a_label_that_is_absent_nowhere_names_the_key(make, caplog, cells, advice):
    first, second = cells.split()
    read(make("a.png b.png", t_csv=f"id,Mass\na,{first}\nb,{second.strip(',')}\n"), labels=["Mass"])
    assert advice in caplog.text


def test_no_label_at_all_says_which_words_there_are(make):
    root = make("a.png b.png", t_csv="id,kind\na,Normal\nb,Pneumonia\n", u_txt="a.png x\nb.png y\n")
    with pytest.raises(DataError, match=r"No column .* 'data\.reader\.classes=\{columns: kind\}'"):
        read(root)
    with pytest.raises(DataError, match=r"If its first line is no header: data\.reader\.columns="):
        read(root, tables="u.txt", image_column="a.png x")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classes": {"column": "kind"}}, r"classes has no key 'column'; did you mean 'columns'"),
        ({"classes": {"words": {}}}, r"classes lacks \['columns'\]"),
        ({"classes": "kind"}, r"classes=kind must be a mapping"),
        ({"classes": {"columns": "sort"}}, r"lacks the column 'sort' of data\.reader\.classes\.columns"),
        ({"classes": {"columns": "kind", "others": "drop"}}, r"others=drop must be one of"),
        ({"classes": {"columns": "kind", "words": ["a"]}}, r"words=\['a'\] must be a mapping"),
        ({"presence": ["kind"]}, r"presence=\['kind'\] must be a mapping"),
        ({"presence": {"A": {"col": "kind"}}}, r"presence\.A has no key 'col'"),
        ({"join": "x.csv"}, r"join=x\.csv must be a list of mappings"),
        ({"derive": ["x"]}, r"derive=\['x'\] must be a mapping"),
        ({"separator": ";;"}, r"separator=';;' must be one character"),
        ({"labels": "kind"}, r"labels=kind must name one column or more"),
        (
            {"readers": {"rule": "mean"}, "classes": {"columns": "kind"}},
            r"rule=mean needs data\.reader\.readers\.column",
        ),
    ],
)
def test_settings_that_do_not_fit(make, settings, message):
    with pytest.raises((ConfigError, DataError), match=message):
        read(make("a.png b.png", t_csv="id,kind\na,Normal\nb,Pneumonia\n"), **settings)


def test_the_page_of_the_docs_names_keys_that_there_are():
    text = (Path(__file__).parents[3] / "docs/howto/tables.md").read_text(encoding="utf-8")
    blocks = [part.partition("```")[0] for part in text.split("```yaml\n")[1:]]
    keys = {key for block in blocks for key in yaml.safe_load(block)}
    named = set(re.findall(r"`(\w+)", text)) & set(inspect.signature(table.read).parameters)
    assert len(blocks) >= 5
    assert keys <= set(inspect.signature(table.read).parameters)
    assert {"tables", "files", "join", "derive", "explode", "classes", "presence", "on_bad_label"} <= named


@pytest.mark.parametrize(("suffix", "package"), [("xlsx", "openpyxl"), ("parquet", "pyarrow")])
def test_a_format_whose_package_is_not_installed(make, monkeypatch, suffix, package):
    root = make("a.png b.png")
    path = root / f"t.{suffix}"
    FRAME.to_excel(path, index=False) if suffix == "xlsx" else FRAME.to_parquet(path)
    for module in [package, *(name for name in sys.modules if name.startswith(f"{package}."))]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        MissingPackageError, match=rf"needs {package}, which is not installed: pip install 'cxrlab\[tables\]'"
    ):
        read(root, labels=["Mass"])
