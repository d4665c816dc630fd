from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrlab.errors import OutputError
from cxrlab.report.figures.learning import draw_learning_curves, learning_curves


def test_learning_curves_are_drawn_for_many_labels_and_for_one(tmp_path: Path):
    frame = pd.DataFrame(
        {"epoch": range(4), "train/loss": [0.5, 0.4, 0.3, 0.2], "val/loss": [0.6, 0.5, 0.5, np.nan]}
    )
    for count in (1, 14):
        for label in range(count):
            frame[f"val/auroc/finding {label}"] = np.linspace(0.5, 0.9, 4)
        frame["val/auroc"] = 0.7
        learning_curves(frame, tmp_path / f"{count}.png")
        pixels = np.asarray(Image.open(tmp_path / f"{count}.png").convert("L"))
        assert pixels.shape[1] > 1000
        assert (pixels < 128).mean() > 0.005


def test_a_run_without_validation_still_has_a_picture(tmp_path: Path):
    learning_curves(pd.DataFrame({"epoch": [0], "train/loss": [0.5]}), tmp_path / "one.png")
    assert (tmp_path / "one.png").stat().st_size > 1000


def test_the_mean_is_told_apart_from_thirty_labels_and_no_two_curves_look_alike():
    frame = pd.DataFrame({"epoch": range(3), "train/loss": 0.5, "val/auroc": 0.7})
    for label in range(30):
        frame[f"val/auroc/_{label} $x$"] = 0.5
    losses, scores = draw_learning_curves(frame).axes
    assert [line.get_xdata().tolist() for line in losses.lines] == [[1, 2, 3]]
    looks = {(line.get_color(), str(line._dash_pattern), line.get_linewidth()) for line in scores.lines}
    assert len(looks) == len(scores.lines) == 31
    assert scores.lines[0].get_linewidth() > scores.lines[1].get_linewidth()
    names = [text.get_text().strip() for text in scores.get_legend().get_texts()]
    assert names == ["macro mean", *(f"_{label} $x$" for label in range(30))]


def test_accuracies_and_losses_with_a_penalty_have_panels_of_their_own():
    frame = pd.DataFrame({"epoch": range(3), "train/loss": [0.6, 0.4, 0.2], "val/loss": [0.6, 0.5, 0.7]})
    frame = frame.assign(**{"train/accuracy": [0.6, 0.8, 0.9], "val/accuracy": 0.7, "val/auroc": 0.8})
    assert [axes.get_ylabel() for axes in draw_learning_curves(frame).axes] == [
        "loss", "accuracy", "validation AUROC"
    ]  # fmt: skip
    frame = frame.assign(**{"train/penalty": [9.0, 3.0, 1.0], "val/loss_with_penalty": frame["val/loss"] + 1})
    axes = {one.get_ylabel(): one for one in draw_learning_curves(frame).axes}
    assert list(axes) == ["loss", "accuracy", "loss with the penalty on weights", "validation AUROC"]
    lines = axes["loss with the penalty on weights"].lines
    assert lines[0].get_ydata().tolist() == pytest.approx([9.6, 3.4, 1.2])
    assert lines[1].get_ydata().tolist() == pytest.approx([1.6, 1.5, 1.7])


def test_a_folder_that_is_not_there_is_told(tmp_path: Path):
    with pytest.raises(OutputError, match="nowhere"):
        learning_curves(pd.DataFrame({"epoch": [0], "train/loss": [0.5]}), tmp_path / "nowhere" / "a.png")


@pytest.mark.parametrize("count", [1, 7, 45])
def test_a_linear_probe_is_drawn_over_its_strengths_whatever_their_order(count: int):
    strengths = np.logspace(-5, 5, count)[::-1]
    frame = pd.DataFrame({"epoch": range(count), "strength": strengths, "val/auroc": 0.7, "train/loss": 0.5})
    figure = draw_learning_curves(frame)
    losses, scores = figure.axes
    assert losses.lines[0].get_xdata().tolist() == sorted(strengths)
    for axes in (losses, scores):
        assert axes.get_xscale() == "log"
        assert axes.get_xlabel().startswith("strength C")
        labels = [label.get_text() for label in axes.get_xticklabels()]
        assert labels[0] == f"{strengths[-1]:g}"
        assert len(labels) == min(count, 8 if count < 9 else len(strengths[:: -(-count // 8)]))
