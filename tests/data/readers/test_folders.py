import logging
import re
import shutil
from pathlib import Path

import pytest

from cxrlab.data.readers import folders
from cxrlab.data.readers._class_folders import find_images
from cxrlab.errors import ConfigError, DataError, MissingFileError


def column(manifest, name):
    return dict(zip(manifest.table["image"], manifest.table[name], strict=True))


def test_pneumonia_patients_are_kept_apart_by_folder(pneumonia_root):
    patients = column(folders.read_pneumonia(pneumonia_root), "patient")
    assert patients["train/PNEUMONIA/person1_bacteria_1.jpeg"] == "train/person1"
    assert patients["train/PNEUMONIA/person1_bacteria_2.jpeg"] == "train/person1"
    assert patients["train/PNEUMONIA/person1037_virus_1714_2.jpeg"] == "train/person1037"
    assert patients["test/PNEUMONIA/person1_virus_6.jpeg"] == "test/person1"
    assert patients["train/NORMAL/IM-0131-0001.jpeg"] == "train/IM-0131"
    assert patients["train/NORMAL/IM-0666-0001-0002.jpeg"] == "train/IM-0666"
    assert patients["train/NORMAL/NORMAL2-IM-0479-0001-0002.jpeg"] == "train/NORMAL2-IM-0479"
    assert patients["val/PNEUMONIA/person1946_bacteria_4874.jpeg"] == "val/person1946"


def test_pneumonia_labels_causes_and_split(pneumonia_root):
    manifest = folders.read_pneumonia(pneumonia_root)
    assert (manifest.name, manifest.labels, manifest.covariates) == ("pneumonia", ["Pneumonia"], ["cause"])
    assert (manifest.table["label/Pneumonia"] == manifest.table["image"].str.contains("/PNEUMONIA/")).all()
    assert manifest.table["split"].value_counts().to_dict() == {"train": 9, "test": 2}
    causes = column(manifest, "covariate/cause")
    assert causes["train/PNEUMONIA/person1_bacteria_1.jpeg"] == "bacteria"
    assert causes["test/PNEUMONIA/person1_virus_6.jpeg"] == "virus"
    assert causes["test/NORMAL/IM-0131-0001.jpeg"] == ""


@pytest.mark.parametrize(
    ("by_cause", "labels"),
    [(False, ["Normal", "Pneumonia"]), (True, ["Normal", "Bacterial Pneumonia", "Viral Pneumonia"])],
)
def test_pneumonia_as_exclusive_classes(pneumonia_root, by_cause, labels):
    manifest = folders.read_pneumonia_classes(pneumonia_root, by_cause=by_cause)
    assert manifest.labels == labels
    assert (manifest.targets.sum(axis=1) == 1).all()
    plain = folders.read_pneumonia(pneumonia_root)
    for name in ("image", "patient", "split", "covariate/cause"):
        assert manifest.table[name].tolist() == plain.table[name].tolist()
    assert column(manifest, "label/Normal")["train/NORMAL/IM-0131-0001.jpeg"] == 1
    if by_cause:
        viral = column(manifest, "label/Viral Pneumonia")
        assert viral["test/PNEUMONIA/person1_virus_6.jpeg"] == 1
        assert viral["train/PNEUMONIA/person1_bacteria_1.jpeg"] == 0


def test_a_pneumonia_without_a_cause_is_named(pneumonia_root, make_tree):
    make_tree("train/PNEUMONIA/person7_other_1.jpeg", root="chest_xray")
    with pytest.raises(
        DataError, match=r"1 names of files in PNEUMONIA tell no cause, .*person7_other_1\.jpeg"
    ):
        folders.read_pneumonia_classes(pneumonia_root, by_cause=True)
    assert len(folders.read_pneumonia_classes(pneumonia_root, by_cause=False))


def test_pneumonia_needs_train(make_tree):
    root = make_tree("test/NORMAL/IM-0131-0001.jpeg", "test/PNEUMONIA/person1_virus_6.jpeg")
    with pytest.raises(MissingFileError, match=r"has no folder train; it holds test/"):
        folders.read_pneumonia(root)


def test_pneumonia_suggests_the_folder_in_the_folder(make_tree):
    root = make_tree("chest_xray/train/NORMAL/IM-1-1.jpeg", "chest_xray/train/PNEUMONIA/person1_virus_6.jpeg")
    with pytest.raises(MissingFileError, match=r"Set data\.root=.*tree/chest_xray\."):
        folders.read_pneumonia(root)


@pytest.mark.parametrize("name", ["scan7.jpeg", "person_virus_1.jpeg", "IM-.jpeg"])
def test_pneumonia_names_a_file_without_a_patient(pneumonia_root, make_tree, name):
    make_tree(f"train/NORMAL/{name}", root="chest_xray")
    with pytest.raises(
        DataError, match=rf"1 file names tell no patient, for instance \['train/NORMAL/{name}'\]"
    ):
        folders.read_pneumonia(pneumonia_root)


def malaria_names(part=""):
    return [
        f"{part}Parasitized/C100P61ThinF_IMG_20150918_144104_cell_162.png",
        f"{part}Parasitized/C51AP12thinF_IMG_20150724_154330_cell_99.png",
        f"{part}Parasitized/C51BP12thinF_IMG_20150724_154330_cell_9.png",
        f"{part}Uninfected/C174P135NThinF_IMG_20151127_135311_cell_198.png",
        f"{part}Uninfected/C213ThinF_IMG_20150727_123456_cell_3.png",
        f"{part}Uninfected/C1_thinF_IMG_20150604_104722_cell_15.png",
    ]


def test_malaria_as_originally_published(make_tree):
    manifest = folders.read_malaria(make_tree(*malaria_names()))
    assert (manifest.name, manifest.labels) == ("malaria", ["Parasitized"])
    assert manifest.table["patient"].tolist() == ["C100P61", "C51P12", "C51P12", "C174P135", "C1", "C213"]
    assert manifest.targets[:, 0].tolist() == [1, 1, 1, 0, 0, 0]
    assert set(manifest.table["split"]) == {""}


def test_malaria_in_parts(make_tree):
    names = [name for part in ("train/", "validation/", "test/") for name in malaria_names(part)]
    table = folders.read_malaria(make_tree(*names)).table
    assert table["split"].value_counts().to_dict() == {"train": 6, "val": 6, "test": 6}
    assert table["patient"].nunique() == 5


def test_malaria_names_a_file_without_a_patient(make_tree):
    root = make_tree("Parasitized/cell_1.png", "Uninfected/C1_thinF_1.png")
    with pytest.raises(DataError, match=r"1 file names tell no patient.*'Parasitized/cell_1\.png'"):
        folders.read_malaria(root)


@pytest.fixture
def two_classes(make_tree):
    return make_tree("sick/P1_a.png", "sick/P2_a.png", "healthy/P1_b.png")


def test_two_classes_make_one_label_of_the_second(two_classes):
    manifest = folders.read_folder(two_classes, patient_pattern=r"^(P\d+)_", positive_class=None)
    assert (manifest.name, manifest.labels) == ("tree", ["sick"])
    assert column(manifest, "label/sick") == {"healthy/P1_b.png": 0, "sick/P1_a.png": 1, "sick/P2_a.png": 1}
    assert manifest.table["patient"].tolist() == ["P1", "P1", "P2"]


def test_the_positive_class_can_be_chosen(two_classes):
    manifest = folders.read_folder(two_classes, patient_pattern=r"P\d+", positive_class="healthy")
    assert column(manifest, "label/healthy") == {
        "healthy/P1_b.png": 1,
        "sick/P1_a.png": 0,
        "sick/P2_a.png": 0,
    }
    with pytest.raises(ConfigError, match=r"positive_class=ill is no class of .*\['healthy', 'sick'\]"):
        folders.read_folder(two_classes, patient_pattern=r"P\d+", positive_class="ill")


def test_more_classes_make_a_label_each(make_tree):
    root = make_tree("train/a/1.png", "train/b/2.png", "train/c/3.png", "val/b/4.png")
    manifest = folders.read_folder(root, patient_pattern=r"\d", positive_class=None)
    assert manifest.labels == ["a", "b", "c"]
    assert manifest.targets.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 0]]
    assert manifest.table["split"].tolist() == ["train", "train", "train", "val"]
    one = folders.read_folder(root, patient_pattern=r"\d", positive_class="b")
    assert (one.labels, one.targets[:, 0].tolist()) == (["b"], [0, 1, 0, 1])


def test_one_class_is_rejected(make_tree):
    with pytest.raises(DataError, match=r"one class folder, \['a'\]"):
        folders.read_folder(make_tree("a/1.png"), patient_pattern=None, positive_class=None)


def test_without_a_pattern_each_file_is_a_patient_and_that_is_said(two_classes, caplog):
    with caplog.at_level(logging.WARNING):
        manifest = folders.read_folder(two_classes, patient_pattern=None, positive_class=None)
    assert manifest.table["patient"].tolist() == manifest.table["image"].tolist()
    assert "patients cannot be kept apart" in caplog.text


def test_a_pattern_that_misses_files_is_rejected(two_classes):
    with pytest.raises(DataError, match=r"patient_pattern=.* does not match 2 of 3 file names, .*sick/P1_a"):
        folders.read_folder(two_classes, patient_pattern=r"P\d+_b", positive_class=None)
    with pytest.raises(DataError, match=r"Take a pattern that fits all, .* or rename or remove these files"):
        folders.read_folder(two_classes, patient_pattern=r"P\d+_b", positive_class=None)


def test_an_empty_match_is_no_patient(two_classes):
    with pytest.raises(DataError, match=r"does not match 3 of 3 file names"):
        folders.read_folder(two_classes, patient_pattern=r"x*", positive_class=None)


def test_the_class_without_the_label_keeps_its_name(make_tree, pneumonia_root):
    assert folders.read_pneumonia(pneumonia_root).negative == "Normal"
    assert folders.read_pneumonia_classes(pneumonia_root).negative == ""
    cells = make_tree("Parasitized/C1P1thin_1.png", "Uninfected/C2P1thin_1.png")
    assert folders.read_malaria(cells).negative == "Uninfected"
    three = make_tree("x/A/1.png", "x/b/2.png", "x/c/3.png") / "x"
    assert folders.read_folder(three, patient_pattern=r"\d", positive_class="b").negative == ""
    assert folders.read_folder(three, patient_pattern=r"\d").negative == ""


def test_an_invalid_pattern_is_rejected(two_classes):
    with pytest.raises(ConfigError, match=r"data\.reader\.patient_pattern=\(P is no regular expression"):
        folders.read_folder(two_classes, patient_pattern="(P", positive_class=None)


@pytest.mark.real_data
def test_real_pneumonia(real_data: Path):
    manifest = folders.read_pneumonia(real_data / "chest_xray")
    assert len(manifest) == 5216
    assert manifest.table["label/Pneumonia"].sum() == 3875
    assert manifest.table["covariate/cause"].value_counts().to_dict() == {
        "bacteria": 2530,
        "virus": 1345,
        "": 1341,
    }
    assert set(manifest.table["split"]) == {"train"}


@pytest.mark.real_data
def test_real_malaria(real_data: Path):
    manifest = folders.read_malaria(real_data / "cell_images")
    assert (len(manifest), manifest.table["label/Parasitized"].sum()) == (600, 300)
    shared = manifest.table.groupby("patient")["split"].nunique() == 2
    assert shared.sum() == 66


def test_classes_below_parts(make_tree):
    root = make_tree("train/b/2.png", "train/a/1.JPG", "validation/a/3.jpeg", "Test/b/4.PNG", "valid/a/5.png")
    files = find_images(root, None).files
    assert files["image"].tolist() == [
        "Test/b/4.PNG",
        "train/a/1.JPG",
        "train/b/2.png",
        "valid/a/5.png",
        "validation/a/3.jpeg",
    ]
    assert files["part"].tolist() == ["test", "train", "train", "val", "val"]
    assert files["class"].tolist() == ["b", "a", "b", "a", "a"]
    assert files["file"].tolist() == ["4.PNG", "1.JPG", "2.png", "5.png", "3.jpeg"]


def test_classes_below_the_root(make_tree):
    files = find_images(make_tree("b/1.png", "a/1.png"), ("a", "b")).files
    assert files[["image", "part"]].to_numpy().tolist() == [["a/1.png", ""], ["b/1.png", ""]]


def test_hidden_and_other_files_are_passed_over(make_tree):
    root = make_tree("a/1.png", "a/._1.png", "b/1.png", "__MACOSX/a/1.png", ".cache/1.png")
    (root / "a/.DS_Store").touch()
    (root / "a/Thumbs.db").touch()
    assert find_images(root, None).files["image"].tolist() == ["a/1.png", "b/1.png"]


def test_an_empty_class_folder_is_named(make_tree):
    root = make_tree("train/a/1.png")
    (root / "train/b").mkdir()
    (root / "train/b/scan.nii").touch()
    message = rf"class folder {re.escape(str(root / 'train/b'))} holds no image .*it holds scan\.nii"
    with pytest.raises(DataError, match=message):
        find_images(root, None)


def test_a_missing_class_folder_is_named(make_tree):
    root = make_tree("train/a/1.png", "train/b/1.png", "test/a/1.png")
    with pytest.raises(MissingFileError, match=r"test lacks the class folders \['b'\]; it holds a/"):
        find_images(root, ("a", "b"))


def test_a_part_without_folders_is_named(make_tree):
    with pytest.raises(MissingFileError, match=r"train lacks class folders; it holds 1\.png"):
        find_images(make_tree("train/1.png"), None)


@pytest.mark.parametrize("classes", [None, ("a", "b")])
def test_a_nested_root_is_suggested(make_tree, classes):
    root = make_tree("inner/train/a/1.png", "inner/train/b/1.png", "__MACOSX/train/a/1.png")
    with pytest.raises(MissingFileError, match=rf"Set data\.root={re.escape(str(root / 'inner'))}\.$"):
        find_images(root, classes)


def test_the_root_is_suggested_where_one_of_its_classes_was_given_and_a_sheet_is_named(make_tree):
    root = make_tree("normal/1.png", "normal/2.png", "sick/1.png")
    with pytest.raises(MissingFileError, match=rf"Set data\.root={re.escape(str(root))}\.$"):
        find_images(root / "normal", None)
    other = make_tree("scans/1.png")
    for path in (other / "normal", other / "sick"):
        shutil.rmtree(path)
    (other / "radiology list.csv").touch()
    with pytest.raises(
        MissingFileError,
        match=r"radiology list\.csv lies beside: cxrlab prepare data=auto data\.root=.* writes a",
    ):
        find_images(other, None)


@pytest.mark.parametrize("classes", [None, ("a", "b")])
def test_nothing_is_suggested_where_nothing_fits(tmp_path, classes):
    (tmp_path / "notes.txt").touch()
    (tmp_path / "papers").mkdir()
    with pytest.raises(
        MissingFileError, match=r"holds neither class folders.*it holds notes\.txt, papers/\.$"
    ):
        find_images(tmp_path, classes)


def test_folders_beside_parts_are_mentioned(make_tree, caplog):
    root = make_tree("train/a/1.png", "train/b/1.png", "extra/a/1.png")
    with caplog.at_level(logging.WARNING):
        assert len(find_images(root, None).files) == 2
    assert "['extra'] are no parts, or hold no class folders, and are left out" in caplog.messages[0]


def test_no_root(tmp_path):
    with pytest.raises(MissingFileError, match=r"data\.root=.*absent does not exist"):
        find_images(tmp_path / "absent", None)
