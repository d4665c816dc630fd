import re
from dataclasses import replace

import pytest

from cxrlab.data.flow import FlowStep
from cxrlab.metrics.predictions import DataFacts
from cxrlab.models.weights.seen import timm_weights
from cxrlab.report.checklists import FACTS, Case, _checklists, checklist
from cxrlab.report.evaluation_page import SECTIONS
from cxrlab.report.model_info import ModelInfo, NetworkInfo, Session, TrainingData

TRIPOD_AI = ["1", "2", "3a", "3b", "3c", "4", "5a", "5b", "6a", "6b", "6c", "7", "8a", "8b", "8c", "9a", "9b", "9c", "10", "11", "12a", "12b", "12c", "12d", "12e", "12f", "12g", "13", "14", "15", "16", "17", "18a", "18b", "18c", "18d", "18e", "18f", "19", "20a", "20b", "20c", "21", "22", "23a", "23b", "24", "25", "26", "27a", "27b", "27c"]  # fmt: skip
CONFIG = {
    "data": {"image_size": 64, "channels": 1, "resize": "pad", "batch_size": 8, "sampling": "balanced"},
    "preprocess": {"normalize": "imagenet"},
    "model": {"pretrained": True, "checkpoint_path": None},
    "optimizer": {"_target_": "torch.optim.AdamW", "lr": 0.001},
    "loss": {"_target_": "cxrlab.losses.WeightedBCE"},
    "trainer": {"max_epochs": 3},
    "monitor": "val/auroc",
    "seed": 7,
}


def run_info(**changes):
    trained = TrainingData(name="nih", parts={"train": (840, 280), "val": (120, 40)})
    session = Session(versions={"cxrlab": "0.1.0", "torch": "2.9"}, commit="abc")
    values = {
        "kind": "run",
        "networks": [NetworkInfo("resnet10t", 64, 1)],
        "trained_on": trained,
        "provenance": session,
        "initial_weights": [timm_weights("resnet10t")],
    }
    return ModelInfo(**values | changes)  # fmt: skip


def items(name, case):
    """Return the lines of each item by its number, the first with its box."""
    text = checklist(name, case)
    found = re.findall(
        r"^- \[(x| )\] \*\*(\S+) (.*?)\*\*.*?\n(.*?)(?=^- \[|^## |\Z)", text, re.MULTILINE | re.DOTALL
    )
    return {number: (box == "x", body.strip()) for box, number, _, body in found}


@pytest.fixture
def run_case(evaluated):
    def build(**changes):
        result = evaluated(["Edema", "Mass"], data=DataFacts("nih", "official", "f00d"))
        table = result.cohort
        cohort = replace(table, source="manifest", listed=300, shared_patients=0,
                         steps=[FlowStep("missing", 5), FlowStep("filter", 55, 9), FlowStep("unreadable", 0, 0)],
                         parts=[replace(table.parts[0], part="train", evaluated=0), *table.parts])  # fmt: skip
        sections = {section.id: section.title for section in SECTIONS}
        return Case(replace(result, cohort=cohort), run_info(**changes), CONFIG, sections)

    return build


def test_every_item_stands_once_by_its_number():
    numbers = {
        name: [item["number"] for group in content["sections"].values() for item in group]
        for name, content in _checklists().items()
    }
    assert numbers == {"claim": [str(number) for number in range(1, 45)], "tripod_ai": TRIPOD_AI}


def test_items_ask_for_facts_that_there_are_and_every_fact_is_asked_for():
    asked = {
        fact
        for content in _checklists().values()
        for group in content["sections"].values()
        for item in group
        for fact in item.get("facts", ())
    }
    assert asked == set(FACTS)
    known = {"number", "topic", "of", "facts", "whole", "write"}
    for content in _checklists().values():
        for group in content["sections"].values():
            assert all(set(item) <= known and item["topic"] and item["write"] for item in group)


def test_a_run_answers_what_it_knows_and_where(run_case):
    claim = items("claim", run_case())
    assert len(claim) == 44
    assert claim["9"] == (True, 'Every file is decoded to a grey image of 64 x 64 pixels (data.resize=pad) and normalised '
                          '(preprocess.normalize=imagenet). (report.html, "The network, and what it sees" and "How to repeat it")')  # fmt: skip
    assert claim["12"][0]
    assert "5 listed images not on disk and 0 that could not be read" in claim["12"][1]
    assert "No patient is in two parts" in claim["20"][1]
    assert "licence apache-2.0, trained on imagenet-1k." in claim["24"][1]
    assert "55 images left out by data.filter" in claim["8"][1]
    assert claim["44"] == (False, "To write: Who paid and what they had a say in.")
    tripod = items("tripod_ai", run_case())
    assert list(tripod) == TRIPOD_AI
    assert tripod["20a"][0]
    assert tripod["17"][1].startswith("To write:")


def test_the_boxes_are_counted(run_case):
    case = run_case()
    counted = re.search(r"(\d+) items are answered, (\d+) in part; (\d+) are", checklist("claim", case))
    found = items("claim", case)
    whole = sum(box for box, _ in found.values())
    still_open = sum(body.startswith("To write:") for _, body in found.values())
    assert [int(number) for number in counted.groups()] == [whole, 44 - whole - still_open, still_open]


@pytest.mark.parametrize("validation", [True, False])
def test_of_predictions_nothing_is_claimed_of_what_made_them(evaluated, validation):
    result = evaluated(["Edema"], validation=validation, data=DataFacts("targets in x.csv"), part="")
    case = Case(
        result,
        ModelInfo(kind="predictions"),
        None,
        {"labels": "Results by label", "calibration": "Calibration"},
    )
    claim, tripod = items("claim", case), items("tripod_ai", case)
    for number in (
        "1",
        "9",
        "10",
        "20",
        "22",
        "23",
        "24",
        "25",
        "26",
        "27",
        "30",
        "31",
        "32",
        "33",
        "35",
        "43",
    ):
        assert claim[number][1].startswith("To write:"), number
    for number in ("9a", "12b", "12c", "16", "22", "27a"):
        assert tripod[number][1].startswith("To write:"), number
    assert claim["38"][0] == validation
    text = checklist("claim", case) + checklist("tripod_ai", case)
    assert ("corrected by a fit on validation" in text) == validation
    for word in ("Deep learning", "best.ckpt", "The epoch with", "manifest.csv"):
        assert word not in text


def test_another_data_set_is_an_external_test(run_case):
    own, external = run_case(), run_case(is_external=True, unseen=True)
    assert items("claim", own)["32"][0]
    assert not items("claim", own)["33"][0]
    assert not items("claim", external)["32"][0]
    assert items("claim", external)["33"][0]
    assert "Training and evaluation are parts of one data set." in items("tripod_ai", own)["16"][1]
    assert "Trained on nih, evaluated on nih." in items("tripod_ai", external)["16"][1]
    assert not items("tripod_ai", external)["22"][0]


def test_an_ensemble_and_one_network_are_told_apart(run_case):
    two = run_case(kind="ensemble", networks=[NetworkInfo("a"), NetworkInfo("b")])
    assert "mean of the probabilities of 2 networks" in items("claim", two)["27"][1]
    assert "no models were combined" in items("claim", run_case())["27"][1]


def test_patients_in_two_parts_are_said_there_too(run_case):
    case = run_case()
    case = replace(case, result=replace(case.result, cohort=replace(case.result.cohort, shared_patients=3)))
    assert "3 patients are in more than one of" in items("claim", case)["20"][1]


def test_a_place_that_the_page_lacks_is_not_named(run_case):
    case = replace(run_case(), sections={"labels": "Results by label"})
    text = checklist("claim", case)
    assert "How to repeat it" not in text
    assert set(re.findall(r'report\.html, (?:its top and )?"(.*?)"', text)) == {"Results by label"}


def test_net_benefit_and_changed_images_are_answered_where_the_page_has_them(run_case):
    assert "Net benefit." in items("tripod_ai", run_case())["12e"][1]
    assert items("claim", run_case())["30"][0]
    without = replace(run_case(), sections={"labels": "Results by label"})
    assert "Net benefit." not in items("tripod_ai", without)["12e"][1]
    assert not items("claim", without)["30"][0]
