import io

import numpy as np
import pandas as pd
import pytest

from cxrlab.report.figures.performance import auroc_by_label, precision_recall, roc
from cxrlab.report.html import inline_svg

LABELS = ["Edema", "1", "Mass", "Hernia"]


def lines(axes):
    return [line.get_xydata() for line in axes.lines]


@pytest.mark.parametrize(("draw", "curve", "short"), [(roc, "roc", "AUROC"), (precision_recall, "pr", "AP")])
def test_each_panel_shows_the_curve_of_its_label(draw, curve, short, sample_numbers, sample_curves):
    numbers = sample_numbers(LABELS, missing=["Mass"])
    curves = (
        sample_curves(LABELS, missing=["Mass"]).sample(frac=1, random_state=0).sort_values("x", kind="stable")
    )
    read = pd.read_csv(io.StringIO(curves.to_csv(index=False)))
    figure = draw(read, numbers)
    metric = {"roc": "auroc", "pr": "average_precision"}[curve]
    for label, axes in zip(LABELS, figure.axes, strict=True):
        title = axes.get_title(loc="left").split("\n")
        assert title[0] == label
        if label == "Mass":
            assert not axes.lines
            assert "one class" in axes.texts[0].get_text()
            continue
        assert title[1].startswith(f"{short} {numbers['labels'][label][metric]['value']:.3f} (")
        wanted = curves[(curves["label"] == label) & (curves["curve"] == curve)][["x", "y"]].to_numpy()
        assert any(np.array_equal(found, wanted) for found in lines(axes) if len(found) == len(wanted))
        extent = axes.collections[0].get_datalim(axes.transData)
        assert extent.y1 == pytest.approx(
            curves[(curves["label"] == label) & (curves["curve"] == curve)]["high"].max()
        )


def test_the_operating_point_and_the_baseline_are_those_of_the_counts(sample_numbers, sample_curves):
    numbers, curves = sample_numbers(["Edema"]), sample_curves(["Edema"])
    numbers["counts"]["Edema"] = {
        "images": 200,
        "positives": 40,
        "negatives": 160,
        "tp": 30,
        "fn": 10,
        "fp": 20,
        "tn": 140,
    }
    on_roc, on_pr = lines(roc(curves, numbers).axes[0]), lines(precision_recall(curves, numbers).axes[0])
    assert on_roc[0].tolist() == [[0, 0], [1, 1]]
    assert on_roc[-1].tolist() == [[20 / 160, 30 / 40]]
    assert on_pr[0].tolist() == [[0, 0.2], [1, 0.2]]
    assert on_pr[-1].tolist() == [[30 / 40, 30 / 50]]
    numbers["counts"]["Edema"] |= {"tp": 0, "fn": 40, "fp": 0, "tn": 160}  # a threshold that calls nothing
    assert lines(roc(curves, numbers).axes[0])[-1].tolist() == [[0, 0]]
    assert len(lines(precision_recall(curves, numbers).axes[0])) == 2


def test_without_a_threshold_there_is_no_operating_point(sample_numbers, sample_curves):
    numbers = sample_numbers(["Edema"], validation=False)
    for draw in (roc, precision_recall):
        figure = draw(sample_curves(["Edema"]), numbers)
        assert len(figure.axes[0].lines) == 2
        assert "at the threshold" not in [text.get_text() for text in figure.legends[0].get_texts()]


def test_where_a_band_is_not_known_it_is_the_curve(sample_numbers, sample_curves):
    curves = sample_curves(["Edema"]).assign(low=np.nan, high=np.nan)
    figure = roc(curves, sample_numbers(["Edema"]))
    assert figure.axes[0].collections[0].get_datalim(figure.axes[0].transData).y1 == 1.0


def test_labels_stand_in_the_order_of_their_auroc_with_the_published_beside(sample_numbers):
    numbers = sample_numbers(missing=["Mass"])
    axes = auroc_by_label(numbers).axes[0]
    names = [text.get_text() for text in axes.get_yticklabels()]
    values = {label: metrics["auroc"]["value"] for label, metrics in numbers["labels"].items()}
    assert names == [*sorted(set(values) - {"Mass"}, key=lambda label: -values[label]), "Mass"]
    solid, hollow = (container.lines[0] for container in axes.containers)
    for x, y in [*solid.get_xydata(), *hollow.get_xydata()]:
        assert x == values[names[int(y)]]
    assert [names[int(y)] for y in hollow.get_ydata()] == ["Hernia"]
    assert hollow.get_markerfacecolor() == "white"
    theirs = dict(zip(names, axes.lines[-1].get_xdata(), strict=True))
    assert theirs == numbers["published"]["rows"][0]["values"]
    assert axes.lines[0].get_xdata() == [numbers["macro"]["auroc"]["value"]] * 2
    assert axes.texts[0].get_text().startswith("not defined")
    assert axes.texts[0].get_position()[1] == 13


def test_one_label_has_no_mean_and_chance_is_in_sight(sample_numbers):
    numbers = sample_numbers(["Edema"])
    axes = auroc_by_label(numbers).axes[0]
    assert len(axes.lines) == 1
    assert axes.get_xlim()[0] <= 0.5
    assert axes.get_xlim()[1] >= 1


def test_nothing_to_draw_gives_none(sample_numbers, sample_curves):
    numbers, none = sample_numbers(["Edema"], missing=["Edema"]), sample_curves(["Edema"]).iloc[:0]
    assert roc(none, numbers) is None
    assert precision_recall(none, numbers) is None
    assert auroc_by_label(numbers) is None


def test_fourteen_labels_stay_small(sample_numbers, sample_curves):
    # Steps have twice the corners of a line: the larger of the two figures.
    assert len(inline_svg(precision_recall(sample_curves(), sample_numbers()), "a", "")) < 300_000
