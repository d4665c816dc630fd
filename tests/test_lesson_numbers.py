"""What the lessons 4 and 5 compute of published numbers, from their cells; the site runs them whole."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
import torch

LESSONS = Path(__file__).parents[1] / "docs" / "learn"


def run_cells(name: str, marks: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run the cells of a lesson that hold one of some marks, in their order, and return what they define."""
    monkeypatch.setattr(plt, "show", lambda: None)
    sources = [
        cell.source for cell in nbformat.read(LESSONS / name, as_version=4).cells if cell.cell_type == "code"
    ]
    cells = [source for source in sources if any(mark in source for mark in marks)]
    assert len(cells) == len(marks)
    names: dict[str, Any] = {"np": np, "pd": pd, "plt": plt, "torch": torch}
    for cell in cells:
        exec(cell, names)
    plt.close("all")
    return names


def test_plateau_rule_falls_as_published(monkeypatch: pytest.MonkeyPatch):
    names = run_cells("04_grey_vgg.ipynb", ["def replay", "def by_torch"], monkeypatch)
    assert names["falls"] == [7, 9, 11]
    assert names["by_torch"](2) == [8, 11]
    assert names["by_torch"](1) == [7, 9, 11]


def test_one_confusion_matrix_fits_the_published_report(monkeypatch: pytest.MonkeyPatch):
    names = run_cells("04_grey_vgg.ipynb", ["fitting = []"], monkeypatch)
    assert names["fitting"] == [[[196, 38], [9, 381]]]


def test_weighted_loss_on_four_images(monkeypatch: pytest.MonkeyPatch):
    marks = ["def terms", '"weighted, sum, epsilon = 1"', "WeightedBCE(frequencies=frequency"]
    names = run_cells("05_fourteen_findings.ipynb", marks, monkeypatch)
    table = pd.DataFrame(names["rows"])
    assert table.loc["unweighted, sum of findings"].tolist() == pytest.approx([1.9173, 2.7646], abs=5e-5)
    assert table.loc["weighted, sum of findings"].tolist() == pytest.approx([0.9754] * 2, abs=5e-5)
    assert table.loc["weighted, mean of findings"].tolist() == pytest.approx([0.3251] * 2, abs=5e-5)
    assert table.loc["weighted, sum, epsilon = 1"].tolist() == pytest.approx([-0.4956] * 2, abs=5e-5)
    logits = torch.full((4, 3), 0.7).logit()
    by_cxrlab = names["loss"](logits, torch.from_numpy(names["truth"]).float())
    assert float(by_cxrlab) == pytest.approx(table.loc["weighted, mean of findings", "says 0.7"], abs=1e-6)


def test_the_best_of_fourteen_equal_findings_look_better(monkeypatch: pytest.MonkeyPatch):
    names = run_cells("05_fourteen_findings.ipynb", ["best_four = []"], monkeypatch)
    assert np.mean(names["best_four"]) > 0.79  # of a true AUROC of 0.75


@pytest.mark.parametrize("name", ["04_grey_vgg.ipynb", "05_fourteen_findings.ipynb"])
def test_each_question_has_an_answer_that_is_folded_away(name: str):
    text = "\n\n".join(
        cell.source
        for cell in nbformat.read(LESSONS / name, as_version=4).cells
        if cell.cell_type == "markdown"
    )
    pieces = re.split(r"^\*\*Question (\d+)\.\*\*", text, flags=re.MULTILINE)[1:]
    assert [int(number) for number in pieces[::2]] == list(range(1, 12))
    # A blank line behind the summary: without one, Markdown in the answer is not rendered.
    assert all(piece.count("<details><summary>Answer</summary>\n\n") == 1 for piece in pieces[1::2])
    assert text.count("<details>") == text.count("</details>") == 11
