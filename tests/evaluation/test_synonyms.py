import pytest
from omegaconf import OmegaConf

from cxrlab.cli.config import config_dir
from cxrlab.data.readers.nih import LABELS
from cxrlab.errors import ConfigError, DataError
from cxrlab.evaluation.synonyms import check_groups, match_labels

GROUPS = [["Effusion", "Pleural Effusion"], ["Edema", "Oedema", "Pulmonary Edema"]]


def shipped():
    return OmegaConf.to_container(OmegaConf.load(config_dir() / "synonyms" / "default.yaml"))


def test_the_same_spelling_comes_first():
    available = ["pleural effusion", "Pleural Effusion", "Effusion", "effusion"]
    assert match_labels(["Effusion"], available, GROUPS) == {"Effusion": "Effusion"}


def test_another_spelling_comes_before_a_synonym():
    assert match_labels(["Effusion"], ["Pleural Effusion", "effusion"], GROUPS) == {"Effusion": "effusion"}


@pytest.mark.parametrize("name", ["pleural thickening", "PLEURAL-THICKENING", " Pleural  Thickening "])
def test_case_blanks_underscores_and_hyphens_do_not_matter(name):
    assert match_labels(["Pleural_Thickening"], [name], []) == {"Pleural_Thickening": name}


def test_synonyms_are_found_from_either_side_in_any_spelling():
    assert match_labels(["Effusion", "oedema"], ["pleural_effusion", "Pulmonary Edema"], GROUPS) == {
        "Effusion": "pleural_effusion",
        "oedema": "Pulmonary Edema",
    }


def test_a_label_that_matches_nothing_is_left_out():
    assert match_labels(["Mass", "Edema"], ["Nodule", "Edema"], GROUPS) == {"Edema": "Edema"}


@pytest.mark.parametrize(
    ("wanted", "available"),
    [("Edema", ["Oedema", "Pulmonary Edema"]), ("Mass", ["mass", "MASS"])],
)
def test_two_columns_for_one_label_are_rejected(wanted, available):
    with pytest.raises(DataError, match=f"'{available[0]}', '{available[1]}'.* fit the label '{wanted}'"):
        match_labels([wanted], available, GROUPS)


def test_one_column_for_two_labels_is_rejected():
    with pytest.raises(DataError, match="'Effusion' and 'Pleural Effusion' both fit the column 'Effusion'"):
        match_labels(["Effusion", "Pleural Effusion"], ["Effusion"], GROUPS)


def test_a_name_in_two_groups_is_rejected():
    groups = [*GROUPS, ["pulmonary_edema", "Wet Lung"]]
    with pytest.raises(ConfigError, match=r"'pulmonary_edema' stands in two groups .*'Oedema'.*'Wet Lung'"):
        check_groups(groups)
    with pytest.raises(ConfigError, match="two groups"):
        match_labels([], [], groups)


@pytest.mark.parametrize("groups", [["Effusion"], [["Effusion", 3]]])
def test_a_group_that_is_no_list_of_names_is_rejected(groups):
    with pytest.raises(ConfigError, match=r"synonyms.groups\[0\]=.* is no list of names"):
        check_groups(groups)


def test_spellings_may_repeat_within_a_group():
    check_groups([["Pleural_Thickening", "Pleural Thickening"]])


def test_the_shipped_groups_keep_findings_apart_that_differ():
    config = shipped()
    assert list(config) == ["groups"]
    check_groups(config["groups"])
    chexpert = OmegaConf.to_container(OmegaConf.load(config_dir() / "data" / "chexpert.yaml"))
    assert match_labels(LABELS, chexpert["reader"]["labels"], config["groups"]) == {
        "Atelectasis": "Atelectasis",
        "Cardiomegaly": "Cardiomegaly",
        "Effusion": "Pleural Effusion",
        "Pneumonia": "Pneumonia",
        "Pneumothorax": "Pneumothorax",
        "Consolidation": "Consolidation",
        "Edema": "Edema",
    }
