"""What no page may say again, whatever is evaluated: read as text, on pages of every kind."""

import re
from html.parser import HTMLParser

import pytest

from cxrlab.data.readers.nih import LABELS as NIH
from cxrlab.metrics.predictions import DataFacts
from cxrlab.report.comparison_page import write_comparison
from cxrlab.report.evaluation_page import write_report
from cxrlab.report.model_info import ModelInfo, NetworkInfo, TrainingData

TRAINED = {
    "trained_on": TrainingData(name="nih", parts={"train": (840, 280), "val": (120, 40)}),
    "networks": [NetworkInfo("resnet10t")],
}
RUN, ENSEMBLE = ModelInfo(kind="run", **TRAINED), ModelInfo(kind="ensemble", **TRAINED)
CASES = {
    "one label": (["Edema"], RUN, {}),
    "many labels": (list(NIH[:5]), RUN, {}),
    "classes": (["Edema", "Mass", "Hernia"], RUN, {"exclusive": True}),
    "predictions": (["Edema"], ModelInfo(), {"validation": False, "patients": False, "part": ""}),
    "validated predictions": (["Edema", "Mass"], ModelInfo(), {"part": "", "data": DataFacts("targets in x.csv")}),
    "ensemble": (["Edema", "Mass"], ENSEMBLE, {}),
}  # fmt: skip


class Text(HTMLParser):
    def __init__(self):
        super().__init__()
        self.words, self.hidden = [], 0

    def handle_starttag(self, tag, _):
        self.hidden += tag in ("style", "script", "pre")
        self.words.append(" " if tag in ("b", "span", "a", "small") else "\n")

    def handle_endtag(self, tag):
        self.hidden -= tag in ("style", "script", "pre")

    def handle_data(self, data):
        if not self.hidden:
            self.words.append(data)


def read(path):
    parser = Text()
    parser.feed(path.read_text(encoding="utf-8"))
    return "".join(parser.words)


@pytest.fixture(scope="module", params=CASES)
def page(request, evaluated, tmp_path_factory):
    labels, info, options = CASES[request.param]
    result = evaluated(labels, **options)
    path = write_report(tmp_path_factory.mktemp("page"), result, info)
    cards = "".join(file.read_text(encoding="utf-8") for file in sorted(path.parent.glob("*.md")))
    return request.param, result, info, read(path), cards


def check_words(text):
    assert not re.findall(r"\b(?:judged|verdict|foreign)\b", text, re.IGNORECASE)
    assert not re.findall(r"\b1 (?:images|patients|positives|negatives|labels|findings|models|gaps)\b", text)
    assert "split grouped" not in text
    assert "false alarm" not in text
    assert "in which the true value plausibly lies" not in text


def test_no_page_says_what_was_wrong(page):
    _, _, _, text, cards = page
    check_words(text + cards)
    assert "such as ethnicity or device, were not evaluated" not in text + cards


def test_counts_that_are_said_are_those_of_the_json(page):
    _, result, _, text, _ = page
    data = result.to_json()["data"]
    assert f"{data['images']} images" in text
    assert (f"of {data['patients']} patients" in text) == (data["patients"] is not None)
    assert sum(part["evaluated"] for part in result.to_json()["cohort"]["parts"]) == data["images"]


def test_of_predictions_nothing_is_claimed_of_a_network(page):
    _, _, info, text, cards = page
    is_known = info.kind != "predictions"
    assert ("Each image was seen by itself" in text + cards) == is_known
    assert ("is not recorded here" in cards) != is_known


def test_the_first_screen_is_headline_and_caveat(page):
    _, _, _, text, _ = page
    top = text[: text.index("On this page")]
    assert top.index("(AUROC") < (top.index("was trained on") if "was trained on" in top else len(top))


def test_a_comparison_says_none_of_it_either(compared, tmp_path):
    check_words(read(write_comparison(tmp_path, compared(["Edema", "Mass"]), None, images=True)))
