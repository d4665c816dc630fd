from dataclasses import replace

import pytest
import yaml

from cxrlab.cli.config import config_dir
from cxrlab.data.public import RADIOGRAPHS
from cxrlab.metrics.predictions import DataFacts
from cxrlab.report.model_card import model_card
from cxrlab.report.model_info import ModelInfo, NetworkInfo, Session, TrainingData

LABELS = ("Edema", "Nodule/Mass")


def test_the_sections_of_the_usual_form(evaluated):
    parts = {"train": (840, 280), "val": (120, None), "test": (0, 0)}
    trained = TrainingData(name="nih", parts=parts, split="official", fingerprint="f00")
    session = Session(versions={"cxrlab": "0.1.0"}, started="2026-01-01", commit="abc")
    model_info = ModelInfo(
        kind="run", networks=[NetworkInfo("resnet10t", num_parameters=1000)], trained_on=trained,
        provenance=session, notes=["Beware."],
    )  # fmt: skip
    result = evaluated(LABELS)
    card = dict(model_card(result, model_info))
    assert list(card) == [
        "Model details", "Intended use", "Factors", "Metrics", "Evaluation data", "Training data",
        "Quantitative analyses", "Ethical considerations", "Caveats and recommendations",
    ]  # fmt: skip
    assert card["Model details"] == [
        "A network that gives each finding a probability.", "resnet10t, 1,000 parameters.",
        "Trained with cxrlab 0.1.0, started 2026-01-01.", "Code: commit abc.",
    ]  # fmt: skip
    assert card["Training data"] == [
        "nih, split the data set's own (official), fingerprint f00.",
        "train 840 images of 280 patients; val 120 images.",
    ]
    assert card["Factors"][0] == "Evaluated by group: view, sex, age."
    assert "Nodule/Mass 7" in card["Evaluation data"][1]
    assert card["Quantitative analyses"][1].startswith("AUROC, Nodule/Mass: 0.")
    assert card["Caveats and recommendations"][0] == "Beware."


def test_what_is_not_known_is_left_out(evaluated):
    result = evaluated(["Edema"], validation=False, patients=False)
    card = dict(model_card(replace(result, subgroups=[], gaps=[]), ModelInfo()))
    assert card["Training data"] == ["Not recorded here."]
    assert [line.split(":")[0] for line in card["Quantitative analyses"]] == [
        "AUROC, Edema", "Calibration, Edema"
    ]  # fmt: skip
    assert card["Factors"][0].startswith("No group was evaluated")
    assert "patients unknown" in card["Evaluation data"][0]
    assert "there is none" in card["Metrics"][1]


def test_a_gap_that_is_shown_is_told(evaluated):
    result = evaluated(LABELS)
    first = replace(result.gaps[0], outcome="better", description="the first is better.")
    lines = dict(model_card(replace(result, gaps=[first]), ModelInfo()))["Quantitative analyses"]
    assert lines[-1].startswith(f"Gap by {first.covariate} (AUROC, ")
    assert lines[-1].endswith("; the first is better.")
    unclear = replace(first, outcome="unclear")
    lines = dict(model_card(replace(result, gaps=[unclear]), ModelInfo()))["Quantitative analyses"]
    assert "no difference was shown" in lines[-1]


@pytest.mark.parametrize(
    ("name", "what", "companion"),
    [
        ("nih", "chest radiographs", "tubes"),
        ("malaria", "images", "way of recording"),
        ("", "images", "device"),
    ],
)
def test_the_card_says_radiographs_only_of_data_sets_that_hold_them(evaluated, name, what, companion):
    result = evaluated(["Edema"], data=DataFacts(name))
    card = dict(model_card(result, ModelInfo(kind="run", networks=[NetworkInfo("resnet10t")])))
    assert card["Intended use"][0].startswith(f"Research on the classification of {what}:")
    assert companion in card["Ethical considerations"][2]
    assert ("radiograph" in " ".join(card["Ethical considerations"])) == (what == "chest radiographs")
    assert card["Caveats and recommendations"][-1].startswith("Each image was seen by itself")


def test_of_predictions_the_card_claims_nothing_of_what_made_them(evaluated):
    card = dict(model_card(evaluated(["Edema"]), ModelInfo(kind="predictions")))
    assert "is not recorded" in card["Intended use"][0]
    assert "is not recorded" in card["Caveats and recommendations"][-1]
    assert not any("by itself" in line for line in card["Caveats and recommendations"])


def test_groups_that_were_evaluated_are_not_among_those_that_were_not(evaluated):
    result = evaluated(LABELS)
    groups = [replace(group, covariate="ethnicity") for group in result.subgroups]
    factors = dict(model_card(replace(result, subgroups=groups), ModelInfo()))["Factors"]
    assert factors == ["Evaluated by group: ethnicity.", "Groups by anything else were not evaluated."]


def test_every_data_set_of_radiographs_that_has_a_name_is_known_by_it():
    names = set()
    for path in (config_dir() / "data").glob("*.yaml"):
        reader = yaml.safe_load(path.read_text()).get("reader")
        names.add(reader.get("name") if isinstance(reader, dict) else None)
    assert names - {None} <= RADIOGRAPHS
    assert not {"malaria", "synthetic"} & RADIOGRAPHS
