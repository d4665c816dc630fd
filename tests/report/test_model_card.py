from dataclasses import replace

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
        "nih, split official, fingerprint f00.",
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
    assert len(card["Quantitative analyses"]) == 1
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
