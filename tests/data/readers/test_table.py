import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cxrlab.cli.config import plain
from cxrlab.data.manifest import Manifest
from cxrlab.data.readers import nih, synthetic, table
from cxrlab.data.readers import nih as nih_table
from cxrlab.data.readers._images import ImageFolders
from cxrlab.data.readers._labels import Labels
from cxrlab.data.readers._sheets import PART_WORDS, Sheet, open_sheets
from cxrlab.data.readers.table import Rows
from cxrlab.data.splits import Split
from cxrlab.errors import ConfigError, DataError, MissingFileError

NAN = np.nan
CHEXPERT_HEADER = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,"
    "Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)
COURSE_HEADER = (
    "Image,Atelectasis,Cardiomegaly,Consolidation,Edema,Effusion,Emphysema,Fibrosis,Hernia,Infiltration,Mass,Nodule,"
    "PatientId,Pleural_Thickening,Pneumonia,Pneumothorax"
)
Options = Callable[..., dict[str, Any]]


def split_by(manifest, *, groups=None, **options):
    return Split(**options)(manifest, groups=groups)


@pytest.fixture(scope="module")
def options(composed: Callable[..., Any]) -> Options:
    """The settings of the reader, or of the split, in a YAML file."""

    def function(name: str, node: str = "reader") -> dict[str, Any]:
        settings = plain(composed(f"data={name}", "data.root=/nowhere").data[node])
        return {key: value for key, value in settings.items() if not key.startswith("_")}

    return function


@pytest.fixture(scope="module")
def defaults(options: Options) -> dict[str, Any]:
    return options("table")


@pytest.fixture
def read(defaults: dict[str, Any], make_tree: Callable[..., Path]) -> Callable[..., Manifest]:
    """Read a table of text beside the images a.png, b.png and c.png, by conf/data/table.yaml and changes."""

    def function(*texts: str, **changes: object) -> Manifest:
        root = make_tree("a.png", "b.png", "c.png")
        for number, text in enumerate(texts):
            (root / f"{number}.csv").write_bytes(text.encode())
        return table.read(root, **defaults | changes)

    return function


def test_a_table_as_plain_as_can_be(read, caplog):
    with caplog.at_level(logging.INFO):
        manifest = read("image,patient,Edema,Mass,note\na.png,007,1,0,x\nb.png,0x1F,0,,\n")
    assert (manifest.name, len(manifest), manifest.num_listed) == ("tree", 2, 2)
    assert manifest.table["patient"].tolist() == ["007", "0x1F"]
    assert manifest.table["split"].tolist() == ["", ""]
    assert manifest.labels == ["Edema", "Mass"]
    np.testing.assert_array_equal(manifest.targets, [[1, 0], [0, NAN]])
    assert "columns that hold labels only: Edema, Mass" in caplog.text


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_byte_order_mark_line_ends_quotes_and_stray_blanks_at_once(read, separator):
    lines = [
        "\ufeffIMAGE, Patient,View , pneumonia",
        'a.png,"Smith, Jo",PA, 1.0',
        'b.png,"O""Neill",AP ,False',
    ]
    text = "\r\n".join(lines).replace(",", separator).replace(f"h{separator} J", "h, J")
    manifest = read(text, labels=["Pneumonia"], covariates={"view": "view", "sex": None})
    assert manifest.table["patient"].tolist() == ["Smith, Jo", 'O"Neill']
    assert manifest.table["covariate/view"].tolist() == ["PA", "AP"]
    assert (manifest.labels, manifest.covariates) == (["Pneumonia"], ["view"])
    assert manifest.targets.ravel().tolist() == [1.0, 0.0]


def test_columns_named_otherwise_are_no_labels(read):
    text = "image,patient,SEX,Age,part,Edema,empty\na.png,1,0,58,,1,\nb.png,1,1,old,,0,\n"
    manifest = read(text, covariates={"sex": "Sex", "note": "age"}, split_column="part")
    assert manifest.labels == ["Edema"]
    assert manifest.table["covariate/sex"].tolist() == [0.0, 1.0]
    assert manifest.table["covariate/note"].tolist() == ["58", "old"]


def test_labels_stand_in_the_order_asked_for(read):
    text = "image,patient,Edema,Mass\na.png,1,0,1\n"
    assert read(text, labels=["Mass", "Edema"]).targets.tolist() == [[1, 0]]


@pytest.mark.parametrize("labels", [[], ["Edema", "Edema"]])
def test_labels_named_twice_or_not_at_all(read, labels):
    with pytest.raises(
        ConfigError, match=r"data\.reader\.labels=.* must name one column or more, none twice"
    ):
        read("image,patient,Edema\na.png,1,0\n", labels=labels)


def test_no_column_of_labels(read):
    with pytest.raises(DataError, match=r"No column of .*0\.csv holds labels only .*'patient', 'grade'\]"):
        read("image,patient,grade\na.png,1,3\n")


def test_policies_by_label(read):
    text = "image,patient,Edema,Mass,Nodule\na.png,1,-1,-1,-1\nb.png,1,,,1\n"
    manifest = read(text, uncertain={"Edema": "positive", "Mass": "negative"}, blank="negative")
    np.testing.assert_array_equal(manifest.targets, [[1, 0, NAN], [0, 0, 1]])


def test_tables_by_part_share_columns_in_any_order_and_case(read):
    tables = {"train": ["0.csv"], "test": "1.csv"}
    manifest = read("image,patient,Edema\na.png,1,0\n", "edema,Patient,Image\n1,2,b.png\n", tables=tables)
    assert manifest.table["split"].tolist() == ["train", "test"]
    assert manifest.targets.ravel().tolist() == [0, 1]
    with pytest.raises(ConfigError, match=r"split_column=part and data\.reader\.tables both give the parts"):
        read(tables=tables, split_column="part")


def test_a_label_that_one_table_lacks_is_no_label_of_the_set(read):
    tables = {"train": "0.csv", "test": "1.csv"}
    texts = ("image,patient,Edema,Mass\na.png,1,0,1\n", "image,patient,Edema\nb.png,2,1\n")
    assert read(*texts, tables=tables).labels == ["Edema"]
    with pytest.raises(DataError, match=r"1\.csv lacks the column 'Mass' of data\.reader\.labels"):
        read(tables=tables, labels=["Edema", "Mass"])


def test_a_covariate_may_be_absent_from_one_table_but_not_from_all(read, caplog):
    tables = {"train": "0.csv", "test": "1.csv"}
    texts = ("image,patient,Age,Edema\na.png,1,58,0\n", "image,patient,Edema\nb.png,2,1\n")
    manifest = read(*texts, tables=tables, covariates={"age": "Age"})
    np.testing.assert_array_equal(manifest.table["covariate/age"], [58, NAN])
    assert "1.csv: no column 'Age'; the covariate age is unknown there" in caplog.text
    with pytest.raises(DataError, match=r"lacks the column 'Sex' of data\.reader\.covariates\.sex"):
        read(tables=tables, covariates={"sex": "Sex"})


def test_a_row_that_stands_twice_is_dropped_and_counted(read, caplog):
    text = "image,patient,Edema,x\na.png,1,1,4\n./a.png,1,1.0,5\na.png,1,True,6\nb.png,2,0,7\n"
    manifest = read(text, labels=["Edema"])
    assert (len(manifest), manifest.num_listed) == (2, 2)
    assert "2 rows of" in caplog.text
    assert "repeat another row, for instance that of a.png" in caplog.text


def test_rows_that_contradict_one_another_are_rejected(read):
    text = "image,patient,Edema,Mass\na.png,1,1,0\na.png,1,,0\nb.png,2,0,1\n"
    with pytest.raises(
        DataError, match=r"1 images are listed more than once .*\['a\.png'\].* \['label/Edema'\]"
    ):
        read(text)
    text = "image,patient,Edema\na.png,1,1\n"
    with pytest.raises(
        DataError, match=r"listed more than once .*0\.csv, .*1\.csv .* differs in \['split'\]"
    ):
        read(text, text, tables={"train": "0.csv", "test": "1.csv"})


def test_a_patient_in_two_parts_is_left_to_the_split(read):
    texts = ("image,patient,Edema\na.png,1,0\n", "image,patient,Edema\nb.png,1,1\n")
    manifest = read(*texts, tables={"train": "0.csv", "test": "1.csv"})
    assert manifest.table["patient"].tolist() == ["1", "1"]


def test_images_that_are_not_there_are_counted_and_left_out(read, caplog):
    manifest = read("image,patient,Edema\na.png,1,0\nx.png,1,1\nsub/a.png,2,1\nb.png,2,1\n")
    assert manifest.table["image"].tolist() == ["a.png", "b.png"]
    assert manifest.targets.ravel().tolist() == [0, 1]
    assert (manifest.num_listed, manifest.missing) == (4, ("x.png", "sub/a.png"))
    assert "2 of 4 images listed in " in caplog.text
    assert "for instance ['x.png', 'sub/a.png']; using the 2 that are there" in caplog.text


def test_no_image_at_all_is_an_error_that_shows_where_it_looked(read):
    with pytest.raises(
        MissingFileError, match=r"None of the 1 images .* there is no .*/small/a\.png\. .*image_folder"
    ):
        read("image,patient,Edema\na.png,1,0\n", image_folder="small")


def test_an_image_outside_the_root_is_rejected(read):
    with pytest.raises(DataError, match=r"1 rows of .*0\.csv name an image outside data\.root"):
        read("image,patient,Edema\na.png,1,0\n../tree/b.png,1,1\n")


def test_a_linked_folder_of_images_is_fine(read, make_tree):
    elsewhere = make_tree("scan.png", root="archive")
    (make_tree() / "images").mkdir(parents=True, exist_ok=True)
    (make_tree() / "images/archive").symlink_to(elsewhere)
    manifest = read("image,patient,Edema\narchive/scan.png,1,0\n", image_folder="images")
    assert manifest.table["image"].tolist() == ["images/archive/scan.png"]


def test_paths_with_blanks_and_letters_beyond_ascii(read, make_tree):
    make_tree("Röntgen 1/ä b.png")
    manifest = read("image,patient,Edema\nRöntgen 1/ä b,1,0\n", image_suffix=".png")
    assert (manifest.root / manifest.table["image"].iloc[0]).is_file()


@pytest.fixture(params=["CheXpert-v1.0-small", "CheXpert-v1.0"])
def chexpert_root(request: pytest.FixtureRequest, make_tree: Callable[..., Path]) -> Path:
    name = request.param
    train = [f"train/patient{n:05d}/study{1 + n % 2}/view1_frontal.jpg" for n in range(1, 21)]
    lateral, valid = (
        "train/patient00001/study2/view2_lateral.jpg",
        "valid/patient64541/study1/view1_frontal.jpg",
    )
    root = make_tree(*train, lateral, valid, root=name)
    rows = [f"{name}/{path},Male,{40 + n},Frontal,AP{',1.0' * (n % 2)}" for n, path in enumerate(train)]
    rows = [row + "," * (18 - row.count(",")) for row in rows]
    rows.append(f"{name}/{lateral},Unknown,68,Lateral,,,,-1.0,0.0,,,,,,,,,1.0,")
    (root / "train.csv").write_text("\n".join([CHEXPERT_HEADER, *rows]) + "\n")
    last = f"{name}/{valid},Female,73,Frontal,PA" + ",0.0" * 13 + ",1.0"
    (root / "valid.csv").write_text(f"{CHEXPERT_HEADER}\n{last}\n")
    return root


def test_chexpert_as_distributed(chexpert_root, options, caplog):
    manifest = table.read(chexpert_root, **options("chexpert"))
    assert (manifest.name, len(manifest), manifest.num_listed) == ("chexpert", 22, 22)
    assert (manifest.labels[0], manifest.labels[-1], len(manifest.labels)) == (
        "No Finding",
        "Support Devices",
        14,
    )
    rows = manifest.table.set_index("image")
    lateral = rows.loc["train/patient00001/study2/view2_lateral.jpg"]
    assert lateral[["patient", "split", "covariate/view", "covariate/plane"]].tolist() == [
        "00001",
        "train",
        "",
        "Lateral",
    ]
    assert lateral["covariate/age"] == 68
    # Cardiomegaly is uncertain, Lung Opacity absent, Fracture present, and all others are not mentioned.
    expected = [0, 0, NAN, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]
    np.testing.assert_array_equal(
        lateral[[f"label/{name}" for name in manifest.labels]].astype(float), expected
    )
    assert rows.loc["valid/patient64541/study1/view1_frontal.jpg", "split"] == "test"
    assert not caplog.records
    split = split_by(manifest, **options("chexpert", "split"))
    assert set(split.table["part"][split.table["split"] == "train"]) == {"train", "val"}


def test_the_sample_of_the_course(make_tree, options):
    images = {"train": range(1, 21), "valid": range(19, 23), "test": range(30, 33)}
    root = make_tree(
        *(f"images-small/{n:08d}_{part}.png" for part, numbers in images.items() for n in numbers)
    )
    for part, numbers in images.items():
        rows = [f"{n:08d}_{part}.png,{n % 2}{',0' * 9},1,{n},0,0,1" for n in numbers]
        name = "test.csv" if part == "test" else f"{part}-small.csv"
        (root / name).write_text("\n".join([COURSE_HEADER, *rows]) + "\n")
    manifest = table.read(root, **options("nih_course"))
    assert tuple(manifest.labels) == nih_table.LABELS
    row = manifest.table.set_index("image").loc["images-small/00000003_train.png"]
    assert row["patient"] == "3"
    present = [name for name in manifest.labels if row[f"label/{name}"] == 1]
    assert present == ["Atelectasis", "Nodule", "Pneumothorax"]
    # Patients 19 and 20 are in the course's training and validation table, so that both are one part here.
    split = split_by(manifest, **options("nih_course", "split")).table
    assert split["split"].value_counts().to_dict() == {"train": 24, "test": 3}
    assert (split.groupby("patient")["part"].nunique() == 1).all()


def test_a_manifest_that_a_run_wrote(defaults, tmp_path):
    drawn = synthetic.read(tmp_path / "synthetic", num_patients=12, size=32, seed=0)
    given = drawn.table.assign(split=np.resize(["train", "val", ""], len(drawn)), part="train")
    path = tmp_path / "run" / "manifest.csv"
    path.parent.mkdir()
    Manifest(drawn.root, given).to_csv(path)
    again = table.read(drawn.root, **defaults | {"tables": str(path)})
    assert (again.labels, again.covariates) == (drawn.labels, drawn.covariates)
    np.testing.assert_array_equal(again.targets, drawn.targets)
    assert again.table["split"].tolist() == given["split"].tolist()
    assert again.table["part"].unique().tolist() == [""]
    for name in ("image", "patient", "covariate/view", "covariate/sex", "covariate/age"):
        assert again.table[name].tolist() == drawn.table[name].tolist(), name
    # The parts of that run, as the data set's own.
    assert set(
        table.read(drawn.root, **defaults | {"tables": str(path), "split_column": "part"}).table["split"]
    ) == {"train"}


@pytest.mark.real_data
def test_the_table_of_nih_reads_as_its_own_reader_does(real_data: Path, defaults, tmp_path, caplog):
    listed = nih_table.read_table(real_data / "nih/Data_Entry_2017_v2020.csv.gz")[0]
    listed.to_csv(tmp_path / "labels.csv", index=False)
    (tmp_path / "images").symlink_to(real_data / "nih/images")
    manifest = table.read(tmp_path, **defaults | {"image_folder": "images"})
    expected = nih.read(real_data / "nih")
    assert "111820 of 112120 images listed in " in caplog.text
    pd.testing.assert_frame_equal(manifest.table, expected.table.assign(split=""))


CELLS = pd.DataFrame(
    {
        "Path": ["set/patient7/study1/a.png", "set/patient8/study2/b.png"],
        "Who": ["7", "08"],
        "Part": ["Valid", ""],
        "Age": ["58", ""],
        "edema": ["-1", ""],
    },
    index=[2, 3],
)


def rows_of(table: Sheet, *, labels: dict[str, str] | None = None, **changes: object) -> pd.DataFrame:
    columns = labels or {"Edema": "Edema"}
    options = {
        "folders": ImageFolders(Path(), "", search=False),
        "image_column": "path",
        "path_prefix": "set/",
        "image_suffix": "",
        "patient_column": "Who",
        "patient_pattern": None,
        "split_column": None,
        "words": PART_WORDS,
        "covariates": {"age": "Age"},
        "labels": Labels(tuple(columns), columns, None, {}, {"Edema": "positive"}, "negative"),
    }
    return Rows(**options | changes).of(table)


def sheet(part: str = "", **changes: list[str]) -> Sheet:
    return Sheet(Path("x.csv"), part, CELLS.assign(**changes))


def test_rows_are_those_of_a_manifest():
    table = rows_of(sheet("train"))
    assert table.to_dict("list") == {
        "image": ["patient7/study1/a.png", "patient8/study2/b.png"],
        "patient": ["7", "08"],
        "split": ["train", "train"],
        "covariate/age": ["58", ""],
        "label/Edema": [1.0, 0.0],
    }
    assert table.index.tolist() == [2, 3]


@pytest.mark.parametrize(
    ("pattern", "patients"),
    [(r"patient(\d+)", ["7", "8"]), (r"patient\d", ["patient7", "patient8"]), (r"(?i)STUDY(\d)", ["1", "2"])],
)
def test_the_patient_in_the_path(pattern, patients):
    assert rows_of(sheet(), patient_pattern=pattern)["patient"].tolist() == patients


def test_a_path_that_tells_no_patient():
    with pytest.raises(
        DataError, match=r"patient_pattern=patient7 finds no patient in 1 of 2 images, .*b\.png"
    ):
        rows_of(sheet(), patient_pattern="patient7")
    with pytest.raises(ConfigError, match=r"data\.reader\.patient_pattern=\( is no regular expression"):
        rows_of(sheet(), patient_pattern="(")


def test_a_row_without_a_patient():
    with pytest.raises(DataError, match=r"'Who' of x\.csv is empty for 1 of 2 images, .* in line 3"):
        rows_of(sheet(Who=["7", ""]))


def test_without_patients_each_image_is_one_and_that_is_said(caplog):
    with caplog.at_level(logging.WARNING):
        table = rows_of(sheet(), patient_column=None)
    assert table["patient"].tolist() == table["image"].tolist()
    assert "patients cannot be kept apart" in caplog.text


def test_parts_in_a_column():
    assert rows_of(sheet(), split_column="part")["split"].tolist() == ["val", ""]
    with pytest.raises(
        DataError, match=r"'part' of x\.csv holds 'fold 3' in line 3; parts are train, val and test"
    ):
        rows_of(sheet(Part=["train", "fold 3"]), split_column="part")


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"image_column": "file"}, "image_column"),
        ({"patient_column": "file"}, "patient_column"),
        ({"split_column": "file"}, "split_column"),
        ({"labels": {"Edema": "file"}}, "labels"),
    ],
)
def test_a_missing_column_is_named_with_its_key_and_those_there(change, key):
    with pytest.raises(
        DataError, match=rf"x\.csv lacks the column 'file' of data\.reader\.{key}; it has \['Path'"
    ):
        rows_of(sheet(), **change)


def test_a_covariate_that_this_table_lacks_is_unknown():
    assert rows_of(sheet(), covariates={"sex": "Sex"})["covariate/sex"].tolist() == ["", ""]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    for name in ("train.csv", "valid.csv", "sub/test.csv"):
        (tmp_path / name).write_text(f"image, edema\n{Path(name).stem}.png,1\n")
    return tmp_path


def parts(root: Path, tables: object) -> list[tuple[str, str]]:
    return [(sheet.part, sheet.path.name) for sheet in open_sheets(root, tables)]


def test_one_table_or_several_by_part(root):
    assert parts(root, "train.csv") == [("", "train.csv")]
    assert parts(root, str(root / "sub/test.csv")) == [("", "test.csv")]
    tables = {"Train": ["train.csv", "valid.csv"], "val": None, "test": "sub/test.csv"}
    assert parts(root, tables) == [("train", "train.csv"), ("train", "valid.csv"), ("test", "test.csv")]
    assert parts(root, {"validation": "valid.csv"}) == [("val", "valid.csv")]


def test_the_only_table_needs_no_name(root):
    assert parts(root / "sub", None) == [("", "test.csv")]
    with pytest.raises(
        ConfigError, match=r"holds 2 CSV files, \['train\.csv', 'valid\.csv'\]: set data\.reader"
    ):
        open_sheets(root, None)
    (root / "empty").mkdir()
    with pytest.raises(MissingFileError, match=r"holds no CSV file; it holds nothing"):
        open_sheets(root / "empty", None)


def test_a_missing_table_is_named_with_what_is_there(root, monkeypatch):
    with pytest.raises(
        MissingFileError, match=r"no table .*/tests\.csv, which .*; .* holds sub/, train\.csv"
    ):
        open_sheets(root, "tests.csv")
    monkeypatch.chdir(root / "sub")
    with pytest.raises(MissingFileError, match=rf"working directory write {root}/sub/test\.csv"):
        open_sheets(root, "test.csv")


def test_a_part_that_is_none(root):
    with pytest.raises(ConfigError, match=r"the part 'holdout'; parts are train, val and test"):
        open_sheets(root, {"holdout": "train.csv"})


@pytest.mark.parametrize("tables", [{}, {"train": None}, {"train": []}])
def test_no_table_at_all(root, tables):
    with pytest.raises(ConfigError, match="names no table"):
        open_sheets(root, tables)


def test_a_table_without_rows(root):
    (root / "train.csv").write_text("image,Edema\n,\n")
    with pytest.raises(DataError, match=r"train\.csv lists nothing: below its header \['image', 'Edema'\]"):
        open_sheets(root, "train.csv")


def test_columns_are_found_in_any_case(root):
    (sheet,) = open_sheets(root, "train.csv")
    assert sheet.column("Edema", "some.key").tolist() == ["1"]
    assert sheet.find(" IMAGE ") == "image"
    assert sheet.find("Mass") is None
    with pytest.raises(DataError, match=r"lacks the column 'Mass' of some\.key; it has \['image', 'edema'\]"):
        sheet.column("Mass", "some.key")


def test_columns_that_differ_in_case_only_are_told_apart(root):
    (root / "train.csv").write_text("image,Edema,EDEMA\na.png,1,0\n")
    (sheet,) = open_sheets(root, "train.csv")
    assert sheet.column("EDEMA", "some.key").tolist() == ["0"]
    with pytest.raises(DataError, match=r"has the columns \['Edema', 'EDEMA'\]: write 'edema' as one"):
        sheet.find("edema")


def test_a_join_may_go_by_a_derived_column(make_images, tmp_path):
    root = make_images(4)
    (root / "facts.csv").write_text("number,Edema\n000,1\n001,0\n002,1\n003,0\n")
    manifest = table.read(
        root,
        files="*.png",
        derive={"number": {"from": "image", "pattern": r"(\d+)\.png"}, "named": "{number}-{Edema}"},
        join=[{"table": "facts.csv", True: "number"}],  # as YAML reads the bare word on
        patient_column="named",
        labels=["Edema"],
    )
    assert manifest.targets[:, 0].tolist() == [1, 0, 1, 0]
    assert manifest.table["patient"].tolist() == ["000-1", "001-0", "002-1", "003-0"]


def test_a_table_without_the_readers_column_is_of_one_reader(make_images):
    root = make_images(2)
    (root / "train.csv").write_text("image,reader,Edema\n000.png,A,1\n000.png,B,0\n000.png,C,1\n")
    (root / "test.csv").write_text("image,Edema\n001.png,1\n")
    settings = {
        "tables": {"train": "train.csv", "test": "test.csv"},
        "patient_column": None,
        "labels": ["Edema"],
    }
    for readers in (
        {"rule": "majority", "column": "reader"},
        {"rule": "one", "column": "reader", "reader": "A"},
    ):
        assert table.read(root, **settings, readers=readers).targets[:, 0].tolist() == [1, 1]
    with pytest.raises(DataError, match=r"lacks the column 'rad' of data\.reader\.readers\.column"):
        table.read(root, **settings, readers={"rule": "majority", "column": "rad"})


def test_words_for_nothing_are_no_classes_and_yes_is_a_word(make_images):
    root = make_images(3)
    (root / "labels.csv").write_text("image,finding\n000.png,Edema\n001.png,nan\n002.png,normal\n")
    read = table.read(root, patient_column=None, classes={"columns": "finding"})
    assert read.labels == ["Edema"]
    assert [str(value) for value in read.targets[:, 0]] == ["1.0", "nan", "0.0"]
    (root / "labels.csv").write_text("image,finding\n000.png,yes\n001.png,NO\n002.png,Yes\n")
    words = {True: "Edema", False: None}  # as YAML reads yes and no
    read = table.read(root, patient_column=None, classes={"columns": "finding", "words": words})
    assert read.targets[:, 0].tolist() == [1, 0, 1]


def test_words_must_name_every_word_but_those_for_no_finding(make_images, caplog):
    root = make_images(4)
    (root / "labels.csv").write_text("image,finding\n000.png,Edema\n001.png,NAD\n002.png,Mass\n003.png,odd\n")
    words = {"Edema": "Edema", **{f"word {number}": "Edema" for number in range(4)}}
    with pytest.raises(
        DataError,
        match=r"holds 'Mass' in line 4, .*'no findings', .* and 5 more\. Once words is given, it must name every "
        r"word .* \(null: no finding\), or set data\.reader\.classes\.others=ignore, which takes",
    ):
        table.read(root, patient_column=None, classes={"columns": "finding", "words": words})
    classes = {"columns": "finding", "words": words, "others": "ignore", "unknown": ["odd"]}
    read = table.read(root, patient_column=None, classes=classes)
    assert [str(value) for value in read.targets[:, 0]] == ["1.0", "0.0", "0.0", "nan"]
    assert "looks like" not in caplog.text


def test_a_table_one_folder_off_or_packed_is_found_or_hinted_at(make_images):
    root = make_images(2)
    (root / "labels.csv").write_text("image,Edema\n000.png,1\n001.png,0\n")
    read = table.read(root, tables="labels.csv.gz", patient_column=None)
    assert read.labels == ["Edema"]
    with pytest.raises(MissingFileError, match=rf"There is no table .* Set data\.root={root}\."):
        table.read(root.parent, tables="labels.csv", patient_column=None)
