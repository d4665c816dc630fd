from dataclasses import replace

import numpy as np
import pytest

from cxrlab.data.readers.nih import LABELS
from cxrlab.evaluation.caveats import are_of_nih, caveats, published_table, split_name
from cxrlab.evaluation.operating_point import given
from cxrlab.evaluation.results import PublishedValue
from cxrlab.metrics.bootstrap import Estimate


def kinds(flags):
    return [(one.kind, one.label) for one in flags]


def test_a_sound_test_has_no_reservation(make_predictions, make_settings):
    table = make_predictions()
    assert caveats(table, given(0.5, 2), make_settings()) == []


@pytest.mark.parametrize("part", ["train", "val"])
def test_parts_that_were_chosen_on_are_named(part, make_predictions, make_settings):
    flags = caveats(make_predictions(part=part), given(0.5, 2), make_settings())
    assert kinds(flags) == [(f"{part}_part", None)]


def test_unknown_patients_are_said_loudly(make_predictions, make_settings):
    table = make_predictions()
    table = replace(table, patients=np.arange(len(table)), patient_names=None)
    (flag,) = caveats(table, given(0.5, 2), make_settings())
    assert flag.kind == "patients_unknown"
    assert "too narrow" in flag.message


def test_few_positives_and_one_class_are_told_apart(make_predictions, make_settings):
    table = make_predictions(("Edema", "Mass", "Hernia"))
    targets = table.targets.copy()
    targets[:, 1] = 0.0
    targets[:, 2] = 0.0
    targets[table.patients < 9, 2] = 1.0
    flags = caveats(replace(table, targets=targets), given(0.5, 3), make_settings())
    assert kinds(flags) == [("one_class", "Mass"), ("few_positives", "Hernia")]
    assert "Mass has 0 positives and" in flags[0].message
    num = int((table.patients < 9).sum())
    assert num > 9
    assert f"only {num} positives, of 9 patients" in flags[1].message
    assert "the macro means leave it out" in flags[1].message
    targets[table.patients == 9, 2] = 1.0
    flags = caveats(replace(table, targets=targets), given(0.5, 3), make_settings())
    assert kinds(flags) == [("one_class", "Mass")]


def test_few_negatives_and_one_patient_are_named(make_predictions, make_settings):
    table = make_predictions(("Edema", "Mass"))
    targets = table.targets.copy()
    targets[:, 1] = np.where(table.patients < 2, 0.0, 1.0)
    targets[:, 0] = np.where(np.arange(len(table)) == 0, 1.0, 0.0)
    few = replace(table, targets=targets)
    flags = caveats(few, given(0.5, 2), make_settings())
    assert kinds(flags) == [("macro_of_few", None), ("few_positives", "Edema"), ("few_positives", "Mass")]
    assert "No label has 10 patients with it and as many without it" in flags[0].message
    assert flags[1].message == "Edema has only 1 positive, of 1 patient: its numbers say little."
    assert "negatives, of 2 patients" in flags[2].message
    unknown = replace(few, patients=np.arange(len(few)), patient_names=None)
    flags = caveats(unknown, given(0.5, 2), make_settings())
    assert [flag.message for flag in flags if flag.label == "Edema"] == [
        "Edema has only 1 positive: its numbers say little."
    ]


def test_a_threshold_that_is_missing_is_named(make_predictions, make_settings):
    table = make_predictions()
    assert kinds(caveats(table, None, make_settings())) == [("no_threshold", None)]
    one = replace(given(0.5, 2), values=np.array([0.5, np.nan]), source="validation")
    assert kinds(caveats(table, one, make_settings())) == [("no_threshold", "Mass")]


def estimates(labels):
    return {label: {"auroc": Estimate(0.7 + index / 100, 0.6, 0.9)} for index, label in enumerate(labels)}


MACRO = {"auroc": Estimate(0.8, 0.79, 0.81)}


def test_all_findings_have_means_beside_them():
    table = published_table(estimates(LABELS), MACRO, "nih", "official", is_nih=True)
    assert [one.label for one in table.ours] == [*LABELS, "macro"]
    assert table.ours[1] == PublishedValue(0.71, 0.6, 0.9, label="Cardiomegaly")
    assert table.ours[-1] == PublishedValue(0.8, 0.79, 0.81, label="macro")
    means = {row.name: row.macro for row in table.rows}
    assert means == {
        "CheXNet": 0.8414,
        "Wang et al. 2017": 0.745,
        "DNetLoc": 0.807,
        "DenseNet121, 320 px": 0.811,
        "Swin-T, 320 px": 0.818,
        "MAE study, DenseNet121": 0.822,
        "AE-CNN": 0.824,
        "MAE study, ViT-B/16": 0.830,
        "Ark-6": 0.8305,
        "EVA-X-B": 0.835,
    }
    best_of_test = {row.name for row in table.rows if "best epoch of the test part" in row.source}
    assert best_of_test == {"MAE study, DenseNet121", "MAE study, ViT-B/16", "EVA-X-B"}
    assert {row.name for row in table.rows if row.split != "official"} == {"CheXNet"}
    assert all(row.split and row.source for row in table.rows)


def test_chexnet_stands_in_the_order_of_the_reader():
    values = published_table(estimates(LABELS), MACRO, "nih", None, is_nih=True).rows[0].values
    assert list(values) == list(LABELS)
    # As the paper spells them.
    assert values["Atelectasis"] == 0.8094
    assert values["Pneumonia"] == 0.7680
    assert values["Emphysema"] == 0.9371
    assert values["Pleural_Thickening"] == 0.8062
    assert values["Hernia"] == 0.9164


def test_the_note_says_what_may_be_set_beside_what():
    official = published_table(estimates(LABELS), MACRO, "nih", "official", is_nih=True).note
    assert "cannot be mixed" in official
    assert "9.15 images a patient and the rest 3.09" in official
    assert "may be set beside those of the official split" in official
    assert "left out" not in official
    grouped = published_table(estimates(LABELS), MACRO, "nih", "grouped", is_nih=True).note
    assert "Ours is on the split 'grouped', so none of these may be set beside it" in grouped
    assert (
        "a split that is not known"
        in published_table(estimates(LABELS), MACRO, "nih", None, is_nih=True).note
    )


@pytest.mark.parametrize(
    "labels",
    [LABELS[:13], (*LABELS, "No Finding"), ("Pneumonia", "COVID-19")],
    ids=["one finding less", "a label more", "one in common"],
)
def test_other_labels_have_no_means(labels):
    table = published_table(estimates(labels), MACRO, "NIH ChestX-ray14", "official", is_nih=True)
    shared = [label for label in labels if label in LABELS]
    assert [one.label for one in table.ours] == shared
    assert [row.name for row in table.rows] == ["CheXNet"]
    assert list(table.rows[0].values) == shared
    assert table.rows[0].macro is None
    assert "published means are left out" in table.note


def test_an_undefined_finding_leaves_the_means_out():
    labels = estimates(LABELS) | {"Hernia": {"auroc": Estimate(None)}}
    table = published_table(labels, MACRO, "nih", "official", is_nih=True)
    assert table.ours[-1] == PublishedValue(None, label="Hernia")
    assert [row.macro for row in table.rows] == [None]


@pytest.mark.parametrize(("is_nih", "labels"), [(False, LABELS), (True, ("abnormal",))])
def test_other_data_have_no_published_values(is_nih, labels):
    assert published_table(estimates(labels), MACRO, "nih", "official", is_nih=is_nih) is None


def test_images_of_nih_are_known_by_their_own_names():
    assert are_of_nih(["00000013_005.png", "images_001/images/00012345_000.jpg", "00000001_001"])
    for other in ("monihan_1.png", "0000013_005.png", "00000013_0005.png", "patient00013/view1.png"):
        assert not are_of_nih(["00000013_005.png", other])


@pytest.mark.parametrize("name", ["nih_course", "nih_sample", "my copy of NIH"])
def test_a_sample_with_lists_of_its_own_is_not_on_the_official_split(name):
    note = published_table(estimates(LABELS), MACRO, name, "official", 420, is_nih=True).note
    assert f"Ours is on the own split of {name}, which is not the official one, so none of these may" in note
    assert "may be set beside those" not in note
    assert split_name(name, "official") == f"that of {name}"
    assert split_name(name, "grouped") == "grouped"


def test_a_part_of_the_official_test_part_is_said_to_be_one():
    whole = published_table(estimates(LABELS), MACRO, "nih", "official", 25_596, is_nih=True).note
    assert "may be set beside those of the official split" in whole
    part = published_table(estimates(LABELS), MACRO, "nih", "official", 984, is_nih=True).note
    assert "Ours is of 984 images and not of the 25,596 of the official test part" in part
    assert "may be set beside those" not in part
    assert split_name("nih", "official") == "official"
