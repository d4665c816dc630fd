from cxrlab.report.html import Redaction
from cxrlab.report.model_card import model_card
from cxrlab.report.model_info import ModelInfo, TrainingData

LABELS = ("Edema", "Nodule/Mass")


def test_the_sections_of_the_usual_form(sample_numbers):
    trained = TrainingData(
        name="nih",
        parts={"train": (840, 280), "val": (120, None), "test": (0, 0)},
        split="official",
        fingerprint="f00",
    )
    session = {"versions": {"cxrlab": "0.1.0"}, "started": "2026-01-01", "commit": "abc"}
    model_info = ModelInfo(
        kind="run", network="resnet10t of /data/jane", trained_on=trained, provenance=session
    )
    card = dict(
        model_card(
            sample_numbers(LABELS), model_info, ["Beware of jane.csv."], Redaction(LABELS, active=True)
        )
    )
    assert list(card) == [
        "Model details", "Intended use", "Factors", "Metrics", "Evaluation data", "Training data",
        "Quantitative analyses", "Ethical considerations", "Caveats and recommendations",
    ]  # fmt: skip
    assert card["Model details"] == [
        "A network that gives each finding a probability.", "resnet10t of \u2026.",
        "Trained with cxrlab 0.1.0, started 2026-01-01.", "Code: commit abc.",
    ]  # fmt: skip
    assert card["Training data"] == [
        "nih, split official, fingerprint f00.",
        "train 840 images of 280 patients; val 120 images.",
    ]
    assert card["Factors"][0] == "PredictedImages by group: view, sex, age."
    assert "Nodule/Mass 7" in card["Evaluation data"][1]
    assert card["Quantitative analyses"][1].startswith("AUROC, Nodule/Mass: 0.")
    assert (
        card["Caveats and recommendations"][0] == "Beware of jane.csv."
    )  # flags come as the page shows them
    assert "diagnosis" in card["Intended use"][1]


def test_a_external_table_of_one_label(sample_numbers):
    numbers = sample_numbers(["Edema"], validation=False) | {"subgroups": [], "gaps": []}
    numbers["data"]["patients"], numbers["interval"]["unit"] = None, "image"
    card = dict(model_card(numbers, ModelInfo(), [], Redaction([], active=True)))
    assert card["Training data"] == ["Not recorded here."]
    assert len(card["Quantitative analyses"]) == 1
    assert card["Factors"][0].startswith("No group was evaluated")
    assert "patients unknown" in card["Evaluation data"][0]


def test_a_gap_that_is_shown_is_told(sample_numbers):
    numbers = sample_numbers(LABELS)
    numbers["gaps"][0] |= {"p_holm": 0.01, "description": "AP is better."}
    lines = dict(model_card(numbers, ModelInfo(), [], Redaction([], active=True)))["Quantitative analyses"]
    assert (
        lines[-1]
        == "Gap by view (AUROC, macro mean): AP minus PA 0.020 (\u22120.010 to 0.050); AP is better."
    )
