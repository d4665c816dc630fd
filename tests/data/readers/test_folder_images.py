import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrlab.data.audit import audit
from cxrlab.data.audit.run_audit import FACTS
from cxrlab.data.readers import folders, nih, table
from cxrlab.data.readers._class_folders import find_images
from cxrlab.data.readers._healthy import is_healthy
from cxrlab.errors import DataError, MissingFileError


def draw(path: Path, form: str, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16), dtype=np.uint8)
    Image.fromarray(pixels).save(path, format=form)


def counts(left_out):
    return {(entry.reason, entry.suffix): entry.count for entry in left_out}


@pytest.mark.parametrize(
    ("name", "form"),
    [("a.tif", "TIFF"), ("a.bmp", "BMP"), ("a.webp", "WEBP"), ("a.jfif", "JPEG"), ("a.jpe", "JPEG"), ("a", "PNG"),
     ("a.PNG", "PNG"), ("a.image", "JPEG"), ("a.1.2.840", "PNG"), ("a.txt", "PNG")],
)  # fmt: skip
def test_an_image_is_told_by_its_content(tmp_path, name, form):
    draw(tmp_path / "TB" / name, form)
    draw(tmp_path / "Normal" / "b.png", "PNG")
    files = find_images(tmp_path, None).files
    assert files["image"].tolist() == ["Normal/b.png", f"TB/{name}"]


def test_dicom_without_a_suffix_is_read_and_its_directory_is_not(tmp_path):
    (tmp_path / "TB" / "study").mkdir(parents=True)
    data = bytes(128) + b"DICM" + bytes(100)
    (tmp_path / "TB" / "study" / "IM0001").write_bytes(data)
    (tmp_path / "TB" / "DICOMDIR").write_bytes(data)
    draw(tmp_path / "Normal" / "b.png", "PNG")
    found = find_images(tmp_path, None)
    assert found.files["image"].tolist() == ["Normal/b.png", "TB/study/IM0001"]
    assert sum(entry.count for entry in found.left_out) == 1


def test_images_lie_at_any_depth_and_what_is_left_out_is_counted(make_tree, caplog):
    root = make_tree(
        "TB/1.png",
        "TB/a/2.png",
        "TB/b/c/3.png",
        "TB/.x.png",
        "TB/__MACOSX/1.png",
        "NORMAL/2019/4.png",
        "5.png",
    )
    (root / "TB/a/notes.txt").write_text("text")
    (root / "TB/Thumbs.db").write_text("system")
    (root / "TB/b/volume.nii").write_bytes(b"no image")
    (root / "TB/b/empty").touch()
    with caplog.at_level(logging.INFO):
        found = find_images(root, None)
    assert found.files["image"].tolist() == ["NORMAL/2019/4.png", "TB/1.png", "TB/a/2.png", "TB/b/c/3.png"]
    assert found.files["file"].tolist() == ["4.png", "1.png", "2.png", "3.png"]
    assert counts(found.left_out) == {
        ("hidden, or of the system", ".png"): 2,
        ("hidden, or of the system", ".db"): 1,
        ("no image", ".txt"): 1,
        ("no image that can be decoded", ".nii"): 1,
        ("no image that can be decoded", ""): 1,
        ("beside the class folders", ".png"): 1,
    }
    assert "3 files of" in caplog.text
    assert "1 .nii (no image that can be decoded)" in caplog.text
    assert "4 files of" in caplog.text


def test_the_audit_says_what_was_left_out(make_tree):
    root = make_tree("TB/1.png", "NORMAL/4.png", "NORMAL/5.png")
    (root / "TB/volume.nii").write_bytes(b"no image")
    (root / "TB/notes.txt").write_text("text")
    manifest = folders.read_folder(root)
    texts = dict.fromkeys(("error", "warning", "digest", "mode"), "")
    facts = pd.DataFrame(dict.fromkeys(FACTS, 50.0) | texts | {"width": 16, "height": 16}, index=range(3))
    pairs = pd.DataFrame({"one": [], "other": []}, dtype=int)
    report = audit(manifest, facts, identical=[], pairs=pairs, missing=0, extra=[], raw=None)
    found = {finding.kind: finding for finding in report.findings}
    assert (found["left_out_images"].severity, found["left_out_images"].count) == ("warning", 1)
    assert found["left_out_images"].details == ["1 .nii (no image that can be decoded)"]
    assert (found["left_out_files"].severity, found["left_out_files"].images) == ("note", ["TB/notes.txt"])


def test_symbolic_links_are_followed_but_not_in_a_circle(make_tree, tmp_path):
    root = make_tree("TB/1.png", "NORMAL/2.png")
    draw(tmp_path / "elsewhere/3.png", "PNG", 3)
    (root / "TB/more").symlink_to(tmp_path / "elsewhere")
    (root / "TB/again").symlink_to(root / "TB")
    assert find_images(root, None).files["image"].tolist() == ["NORMAL/2.png", "TB/1.png", "TB/more/3.png"]


@pytest.mark.parametrize("masks", ["masks", "Mask", "leftMask", "lung_segmentation", "annotations", "labels"])
def test_masks_are_no_class_and_no_images_of_one(make_tree, masks, caplog):
    root = make_tree(
        f"COVID/{masks}/1.png",
        "COVID/images/1.png",
        f"Normal/{masks}/2.png",
        "Normal/images/2.png",
        f"{masks}/1.png",
    )
    (root / "COVID.metadata.xlsx").write_bytes(b"PK")
    with caplog.at_level(logging.INFO):
        manifest = folders.read_folder(root)
    assert manifest.table["image"].tolist() == ["COVID/images/1.png", "Normal/images/2.png"]
    assert manifest.labels == ["COVID"]
    assert counts(manifest.left_out) == {
        ("masks, annotations or thumbnails, which are no class", ".png"): 3,
        ("no image", ".xlsx"): 1,
    }


def test_a_mask_beside_its_image_is_left_out(make_tree):
    root = make_tree(
        "benign/a (1).png",
        "benign/a (1)_mask.png",
        "benign/a (1)_mask_1.png",
        "tumor/b.png",
        "tumor/only_mask.png",
    )
    images = find_images(root, None).files["image"].tolist()
    assert images == ["benign/a (1).png", "tumor/b.png", "tumor/only_mask.png"]


@pytest.mark.parametrize(
    "names",
    [("images/1.png", "masks/1.png"), ("png_images/1.png", "png_masks/1.png"), ("leftMask/1.png", "rightMask/1.png"),
     ("CXR_png/1.png", "ManualMask/leftMask/1.png", "ManualMask/rightMask/1.png"), ("img/1.png", "label/1.png"),
     ("train_images/1.png", "train_masks/1.png")],
)  # fmt: skip
def test_images_are_not_told_apart_from_masks(make_tree, names):
    root = make_tree(*names)
    with pytest.raises(MissingFileError, match=r"folders of images or of masks are no classes") as error:
        folders.read_folder(root)
    assert "Set data.root" not in str(error.value)


def test_the_right_root_is_proposed_and_never_that_of_masks(make_tree):
    root = make_tree(
        "set/COVID/images/1.png", "set/COVID/masks/1.png", "set/Normal/images/2.png", "set/Normal/masks/2.png"
    )
    for given in (root, root / "set/COVID"):
        with pytest.raises(MissingFileError, match=rf"Set data\.root={root / 'set'}\."):
            folders.read_folder(given)
    shutil.rmtree(root / "set/Normal")
    for given in (root / "set", root):
        with pytest.raises((DataError, MissingFileError)) as error:
            folders.read_folder(given)
        assert "data.root=" in str(error.value)
        assert f"{root / 'set/COVID'}." not in str(error.value)


def test_data_sets_side_by_side_are_no_classes(make_tree):
    root = make_tree("Montgomery/CXR_png/1.png", "Montgomery/ManualMask/1.png", "China/CXR_png/2.png")
    with pytest.raises(MissingFileError) as error:
        folders.read_folder(root / "Montgomery")
    assert "Set data.root" not in str(error.value)
    two = make_tree("a/normal/1.png", "a/tb/2.png", "b/normal/3.png", "b/tb/4.png", root="two")
    with pytest.raises(MissingFileError, match=r"Set data\.root to one of"):
        folders.read_folder(two)


def test_a_copy_of_the_data_set_within_it_is_left_out(make_tree, caplog):
    root = make_tree(
        "Parasitized/C1_1.png",
        "Uninfected/C2_2.png",
        "cell_images/Parasitized/C1_1.png",
        "cell_images/Uninfected/C2_2.png",
    )
    for read in (folders.read_folder, folders.read_malaria):
        caplog.clear()
        manifest = read(root)
        assert manifest.table["image"].tolist() == ["Parasitized/C1_1.png", "Uninfected/C2_2.png"]
        assert manifest.labels == ["Parasitized"]
        assert counts(manifest.left_out) == {("beside the class folders", ".png"): 2}
        assert "['cell_images'] are no classes" in caplog.text


def test_a_folder_of_documents_is_no_class_and_an_empty_one_is_named(make_tree, caplog):
    root = make_tree("TB/1.png", "Normal/2.png")
    (root / "ClinicalReadings").mkdir()
    (root / "ClinicalReadings/1.txt").write_text("male 45yrs")
    manifest = folders.read_folder(root)
    assert manifest.labels == ["TB"]
    assert counts(manifest.left_out) == {("no image", ".txt"): 1}
    assert "ClinicalReadings holds no image, and is taken for no class" in caplog.text
    (root / "Pneumonia").mkdir()
    with pytest.raises(DataError, match=r"class folder .*Pneumonia holds no image.*Fill it, or remove it"):
        folders.read_folder(root)


def test_runs_within_the_data_are_passed_over(make_tree, caplog):
    root = make_tree("TB/1.png", "Normal/2.png", "outputs/day/hour/figures/1.png", "TB/run/figures/1.png")
    for run in ("outputs/day/hour", "TB/run"):
        (root / run / ".hydra").mkdir()
        (root / run / ".hydra/config.yaml").write_text("seed: 0")
    manifest = folders.read_folder(root)
    assert manifest.table["image"].tolist() == ["Normal/2.png", "TB/1.png"]
    assert manifest.labels == ["TB"]


@pytest.mark.skipif(os.name != "posix", reason="names of files are bytes on POSIX only")
def test_names_that_are_no_utf8_are_left_out_and_shown_escaped(make_tree, caplog):
    root = make_tree("TB/1.png", "Normal/2.png")
    shutil.copy(root / "TB/1.png", os.fsencode(root / "TB") + b"/r\xf6ntgen.png")
    with caplog.at_level(logging.WARNING):
        manifest = folders.read_folder(root)
    assert manifest.table["image"].tolist() == ["Normal/2.png", "TB/1.png"]
    (entry,) = manifest.left_out
    assert (entry.reason, entry.count, entry.is_loss) == ("names that are no UTF-8", 1, True)
    assert entry.examples == ("TB/r\\xf6ntgen.png",)
    assert "r\\xf6ntgen" in caplog.text


def test_a_class_folder_that_may_not_be_read_is_named(make_tree, monkeypatch):
    root, scandir = make_tree("TB/1.png", "Normal/2.png"), os.scandir

    def denied(path):
        if Path(path).name == "TB":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(
        DataError, match=r"TB of the data set cannot be listed: Permission denied\. Make it readable"
    ):
        folders.read_folder(root)


def test_parts_within_class_folders(make_tree):
    names = [
        f"{name}/{part}/{part}{name}.png" for name in ("Normal", "TB") for part in ("train", "Test", "valid")
    ]
    table = folders.read_folder(make_tree(*names)).table
    assert dict(zip(table["image"], table["split"], strict=True))["TB/valid/validTB.png"] == "val"
    assert table["split"].value_counts().to_dict() == {"train": 2, "test": 2, "val": 2}


@pytest.mark.parametrize("folders_of_parts", [("Training Set", "Test Set"), ("train_images", "test_images")])
def test_folders_of_parts_with_more_in_their_name(make_tree, folders_of_parts):
    names = [f"{part}/{name}/{part}{name}.png" for part in folders_of_parts for name in ("Normal", "TB")]
    manifest = folders.read_folder(make_tree(*names))
    assert manifest.labels == ["TB"]
    assert manifest.table["split"].value_counts().to_dict() == {"train": 2, "test": 2}


def test_parts_with_other_classes_and_other_case(make_tree, caplog):
    root = make_tree(
        "Train/NORMAL/1.png", "Train/TB/2.png", "Train/COVID/3.png", "TEST/normal/4.png", "TEST/tb/5.png"
    )
    manifest = folders.read_folder(root)
    assert manifest.labels == ["COVID", "NORMAL", "TB"]
    assert manifest.table.groupby("split")["label/TB"].sum().to_dict() == {"train": 1, "test": 1}
    assert "have not the same classes: test lacks COVID" in caplog.text


@pytest.mark.parametrize(
    ("names", "positive"),
    [(("Normal", "Covid"), "Covid"), (("abnormal", "normal"), "abnormal"), (("TB", "Healthy"), "TB"),
     (("negative", "positive"), "positive"), (("COVID", "non-COVID"), "COVID"), (("NoPneumonia", "Pneumonia"), "Pneumonia"),
     (("infected", "uninfected"), "infected"), (("control", "case"), "case"), (("0", "1"), "1"),
     (("NoFinding", "Finding"), "Finding"), (("nontb", "tb"), "tb"), (("malignant", "benign"), "malignant"),
     (("no_tumor", "glioma"), "glioma"), (("COVID negative", "COVID positive"), "COVID positive"),
     (("yes", "no"), "yes"), (("CT_COVID", "CT_NonCOVID"), "CT_COVID"),
     (("COVID19", "noncovid19"), "COVID19"), (("not normal", "normal"), "not normal"), (("Nodule", "Normal"), "Nodule"),
     (("Normal", "Non-COVID pneumonia"), "Non-COVID pneumonia"), (("Négatif", "Positif"), "Positif"),
     (("doente", "saudável"), "doente"), (("ohne Befund", "Befund"), "Befund"), (("Hasta", "Sa\u011fl\u0131kl\u0131"), "Hasta"),
     (("正常", "肺炎"), "肺炎"), (("здоровые", "больные"), "больные"), (("sin_neumonia", "neumonia"), "neumonia"),
     (("tb_yes", "tb_no"), "tb_yes"), (("TB+", "TB-"), "TB+"), (("class_0", "class_1"), "class_1"),
     (("clear", "opacity"), "opacity"), (("cancer", "cancer-free"), "cancer")],
)  # fmt: skip
def test_the_healthy_class_is_never_the_finding(make_tree, names, positive, caplog):
    root = make_tree(*(f"{name}/{number}.png" for number, name in enumerate(names)))
    with caplog.at_level(logging.INFO):
        manifest = folders.read_folder(root)
    assert manifest.labels == [positive]
    is_in = manifest.table["image"].str.startswith(f"{positive}/")
    assert (manifest.table[f"label/{positive}"] == is_in).all()
    assert f"the label {positive} of" in caplog.text


@pytest.mark.parametrize("names", [("bacterial", "viral"), ("Normal", "control"), ("A", "B")])
def test_which_class_is_the_finding_is_said_where_the_names_do_not_tell(make_tree, names, caplog):
    root = make_tree(*(f"{name}/{number}.png" for number, name in enumerate(names)))
    second, first = sorted(names)[1], sorted(names)[0]
    assert folders.read_folder(root).labels == [second]
    assert f"data.reader.positive_class={first}" in caplog.text
    assert folders.read_folder(root, positive_class=first.swapcase()).labels == [first]


def test_the_healthy_one_of_several_classes_stays_a_label_and_is_named(make_tree, caplog):
    with caplog.at_level(logging.INFO):
        manifest = folders.read_folder(make_tree("COVID/1.png", "Normal/2.png", "Viral Pneumonia/3.png"))
    assert manifest.labels == ["COVID", "Normal", "Viral Pneumonia"]
    assert """'data.labels=["COVID","Viral Pneumonia"]'""" in caplog.text


def test_a_part_without_class_folders_is_left_out_with_a_warning(make_tree, caplog):
    found = find_images(make_tree("train/TB/1.png", "train/Normal/2.png", "test/3.png", "test/4.png"), None)
    assert found.files["part"].tolist() == ["train", "train"]
    assert [entry.count for entry in found.left_out if entry.is_loss] == [2]
    assert "['test'] are no parts, or hold no class folders" in caplog.text


def test_a_test_folder_beside_classes_is_no_class(make_tree, caplog):
    found = find_images(make_tree("TB/1.png", "Normal/2.png", "test/3.png"), None)
    assert sorted(found.files["class"]) == ["Normal", "TB"]
    assert "['test'] are no classes" in caplog.text


def test_a_trainval_folder_is_for_training(make_tree):
    tree = make_tree("trainval/TB/1.png", "trainval/Normal/2.png", "test/TB/3.png", "test/Normal/4.png")
    assert find_images(tree, None).files["part"].tolist() == ["test", "test", "train", "train"]


def test_parts_lie_below_the_images_of_a_class(make_tree):
    tree = make_tree("TB/images/train/1.png", "TB/images/test/2.png", "Normal/images/train/3.png")
    assert sorted(find_images(tree, None).files["part"]) == ["test", "train", "train"]


def test_one_class_in_two_forms_of_its_letters_is_one(make_tree):
    tree = make_tree(
        "train/Ne\u0301gatif/1.png", "test/N\u00e9gatif/2.png", "train/No_TB/3.png", "test/No TB/4.png"
    )
    assert find_images(tree, None).files["class"].nunique() == 2


def test_thumbnails_are_not_the_images_once_more(make_tree):
    tree = make_tree("TB/1.png", "TB/thumbnails/1.png", "Normal/2.png", "heatmaps/1.png")
    assert find_images(tree, None).files["image"].tolist() == ["Normal/2.png", "TB/1.png"]


def test_a_folder_of_masks_is_not_proposed_as_the_root(make_tree):
    root = make_tree("images/TB/1.png", "images/Normal/2.png", "masks/TB/1.png", "masks/Normal/2.png")
    with pytest.raises(MissingFileError, match=r"Set data\.root=\S+/images\.$"):
        find_images(root, None)


def test_names_of_health():
    assert not any(
        map(is_healthy, ["Nodule", "abnormal", "non-normal", "pneumonia", "1", "nonspecific"[:3], "MDR-TB"])
    )


def test_patients_may_be_folders_below_the_class(make_tree):
    root = make_tree("TB/P01/a.png", "TB/P01/b.png", "Normal/x/P02/a.png")
    manifest = folders.read_folder(root, patient_pattern=r"(P\d+)/")
    assert manifest.table["patient"].tolist() == ["P02", "P01", "P01"]


@pytest.mark.parametrize(
    "names",
    [("parasite/C1P2thinF_1.png", "uninfected/C3P4thinF_2.png"), ("PARASITIZED/C1P2_1.png", "UNINFECTED/C3P4_2.png"),
     ("Train/Parasite/C1P2_1.png", "Train/Uninfected/C3P4_2.png")],
)  # fmt: skip
def test_malaria_under_the_names_of_its_copies(make_tree, names):
    manifest = folders.read_malaria(make_tree(*names))
    assert manifest.labels == ["Parasitized"]
    assert manifest.targets[:, 0].tolist() == [1, 0]
    assert manifest.table["patient"].tolist() == ["C1P2", "C3P4"]


def test_pneumonia_in_lower_case_and_with_other_parts(make_tree):
    root = make_tree(
        "TRAIN/normal/IM-0001-0001.jpeg", "TRAIN/pneumonia/person1_bacteria_1.jpeg",
        "Validation/Normal/im-0002-0001.jpeg", "Validation/Pneumonia/person2_virus_1.jpeg",
        "Test/normal/IM-0003-0001.jpeg", "Test/pneumonia/PERSON3_virus_1.jpeg",
    )  # fmt: skip
    manifest = folders.read_pneumonia(root)
    assert manifest.table["split"].value_counts().to_dict() == {"train": 4, "test": 2}
    assert manifest.targets.sum() == 3
    assert manifest.table["covariate/cause"].tolist().count("virus") == 2


def test_other_class_folders_are_pointed_to(make_tree):
    with pytest.raises(
        MissingFileError, match=r"Other class folders, such as COVID and Normal, are read by data=folder"
    ):
        folders.read_malaria(make_tree("COVID/1.png", "Normal/1.png"))


@pytest.mark.skipif(os.name != "posix", reason="names of files are bytes on POSIX only")
def test_a_root_whose_name_is_no_utf8_is_refused(make_tree, tmp_path):
    root = tmp_path / os.fsdecode(b"r\xf6ntgen")
    make_tree("TB/1.png", "Normal/1.png").rename(root)
    with pytest.raises(DataError, match=r"r\\xf6ntgen has a name that is no UTF-8"):
        folders.read_folder(root)


@pytest.mark.skipif(os.name != "posix", reason="names of files are bytes on POSIX only")
def test_names_that_are_no_utf8_are_passed_over_by_the_other_readers(make_nih, make_tree, caplog):
    root = make_nih()
    image = next((root / "images").iterdir())
    shutil.copy(image, os.fsencode(root / "images") + b"/r\xf6.png")
    shutil.copy(image, root / "images/copy.jpg")
    manifest = nih.read(root)
    assert len(manifest) == 60
    assert counts(manifest.left_out) == {
        ("names that are no UTF-8", ".png"): 1,
        ("images that are not PNG as those of the table", ".jpg"): 1,
    }
    tree = make_tree("img/a_0.png", "img/b_1.png")
    shutil.copy(tree / "img/a_0.png", os.fsencode(tree / "img") + b"/r\xf6_1.png")
    derive = {"TB": {"from": "image", "pattern": r"_([01])\.png$"}}
    manifest = table.read(tree, files="img/*.png", derive=derive, patient_column=None, labels=["TB"])
    assert manifest.table["image"].tolist() == ["img/a_0.png", "img/b_1.png"]
    assert "img/r\\xf6_1.png, and are left out" in caplog.text


def test_a_table_says_what_lies_in_its_folder_of_images_besides(make_tree, caplog):
    root = make_tree("img/a.png", "img/more/b.png", "img/masks/a.png", "other/c.png")
    (root / "img/volume.nii").write_bytes(b"no image")
    (root / "labels.csv").write_text("image,patient,TB\na.png,1,0\n")
    manifest = table.read(root, image_folder="img")
    assert manifest.extra == ("img/more/b.png",)
    assert counts(manifest.left_out) == {
        ("no image that can be decoded", ".nii"): 1,
        ("masks, annotations or thumbnails, which are no class", ".png"): 1,
    }
    assert "1 .nii (no image that can be decoded)" in caplog.text
    (root / "labels.csv").write_text("image,patient,TB\nimg/a.png,1,0\n")
    manifest = table.read(root)
    assert (manifest.extra, manifest.left_out) == ((), ())
