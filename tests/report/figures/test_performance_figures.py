from dataclasses import replace

import matplotlib
import numpy as np
import pytest

from cxrlab.evaluation.results import LabelCounts
from cxrlab.report.figures.performance import (
    auroc_by_label,
    confusion,
    precision_recall,
    readable_on,
    roc,
)
from cxrlab.report.figures.style import SEQUENTIAL
from cxrlab.report.html import svg

LABELS = ["Edema", "1", "Mass", "Hernia"]


def lines(axes):
    return [line.get_xydata() for line in axes.lines]


def counted(tp, fp, tn, fn):
    return LabelCounts(tp + fp + tn + fn, tp + fn, fp + tn, 10, tp, fp, tn, fn)


def with_counts(result, **counts):
    return replace(result, counts={**result.counts, **counts})


@pytest.mark.parametrize(("draw", "curve", "short"), [(roc, "roc", "AUROC"), (precision_recall, "pr", "AP")])
def test_each_panel_shows_the_curve_of_its_label(draw, curve, short, evaluated):
    result = evaluated(LABELS, missing=["Mass"])
    curves = result.curves
    shuffled = curves.sample(frac=1, random_state=0).sort_values(["x"], kind="stable")
    figure = draw(replace(result, curves=curves.assign(label=curves["label"].replace("1", 1))))
    metric = {"roc": "auroc", "pr": "average_precision"}[curve]
    assert len(shuffled) == len(curves)
    for label, axes in zip(LABELS, figure.axes, strict=True):
        title = axes.get_title(loc="left").split("\n")
        assert title[0] == label
        if label == "Mass":
            assert not axes.lines
            assert "one class" in axes.texts[0].get_text()
            continue
        assert title[1].startswith(f"{short} {result.labels[label][metric].value:.3f} (")
        own = curves[(curves["label"] == label) & (curves["curve"] == curve)]
        wanted = own[["x", "y"]].to_numpy()
        assert any(np.array_equal(line, wanted) for line in lines(axes) if len(line) == len(wanted))
        extent = axes.collections[0].get_datalim(axes.transData)
        assert extent.y1 == pytest.approx(own["high"].fillna(own["y"]).max())


def test_the_operating_point_and_the_baseline_are_those_of_the_counts(evaluated):
    result = with_counts(evaluated(["Edema"]), Edema=counted(tp=30, fp=20, tn=140, fn=10))
    on_roc, on_pr = lines(roc(result).axes[0]), lines(precision_recall(result).axes[0])
    assert on_roc[0].tolist() == [[0, 0], [1, 1]]
    assert on_roc[-1].tolist() == [[20 / 160, 30 / 40]]
    assert on_pr[0].tolist() == [[0, 0.2], [1, 0.2]]
    assert on_pr[-1].tolist() == [[30 / 40, 30 / 50]]
    # A threshold that predicts nothing positive.
    result = with_counts(result, Edema=counted(tp=0, fp=0, tn=160, fn=40))
    assert lines(roc(result).axes[0])[-1].tolist() == [[0, 0]]
    assert len(lines(precision_recall(result).axes[0])) == 2


def test_without_a_threshold_there_is_no_operating_point(evaluated):
    for draw in (roc, precision_recall):
        figure = draw(evaluated(["Edema"], validation=False))
        assert len(figure.axes[0].lines) == 2
        assert "at the threshold" not in [text.get_text() for text in figure.legends[0].get_texts()]


def test_where_a_band_is_not_known_it_is_the_curve(evaluated):
    result = evaluated(["Edema"])
    figure = roc(replace(result, curves=result.curves.assign(low=np.nan, high=np.nan)))
    assert figure.axes[0].collections[0].get_datalim(figure.axes[0].transData).y1 == 1.0


def test_labels_stand_in_the_order_of_their_auroc_with_the_published_beside(evaluated):
    result = evaluated(missing=["Mass"])
    axes = auroc_by_label(result).axes[0]
    names = [text.get_text() for text in axes.get_yticklabels()]
    values = {label: metrics["auroc"].value for label, metrics in result.labels.items()}
    assert names == [*sorted(set(values) - {"Mass"}, key=lambda label: -values[label]), "Mass"]
    solid, hollow = (container.lines[0] for container in axes.containers)
    for x, y in [*solid.get_xydata(), *hollow.get_xydata()]:
        assert x == values[names[int(y)]]
    assert [names[int(y)] for y in hollow.get_ydata()] == ["Hernia"]
    assert hollow.get_markerfacecolor() == "white"
    theirs = dict(zip(names, axes.lines[-1].get_xdata(), strict=True))
    assert theirs == result.published.rows[0].values
    assert axes.lines[0].get_xdata() == [result.macro["auroc"].value] * 2
    assert axes.texts[0].get_text().startswith("not defined")
    assert axes.texts[0].get_position()[1] == 13


def test_one_label_has_no_mean_and_chance_is_in_sight(evaluated):
    axes = auroc_by_label(evaluated(["theirs"])).axes[0]
    assert len(axes.lines) == 1
    assert axes.get_xlim()[0] <= 0.5
    assert axes.get_xlim()[1] >= 1


def test_nothing_to_draw_gives_none(evaluated):
    result = evaluated(["Edema"], missing=["Edema"])
    assert roc(result) is None
    assert precision_recall(result) is None
    assert auroc_by_label(result) is None


def test_fourteen_labels_stay_small(evaluated):
    # Steps have twice the corners of a line: the larger of the two figures.
    assert len(svg(precision_recall(evaluated()), "a")) < 500_000


def cells(axes):
    """Return the text of each cell by true row and predicted column."""
    return {(text.get_position()[1], text.get_position()[0]): text.get_text() for text in axes.texts}


def test_each_label_has_its_four_counts_with_shares_of_the_row(evaluated):
    result = with_counts(evaluated(["Edema", "Mass"]), Edema=counted(tp=30, fp=1200, tn=1200, fn=10))
    edema = confusion(result).axes[0]
    assert edema.get_title(loc="left") == "Edema"
    assert cells(edema) == {(0, 0): "50%\n1,200", (0, 1): "50%\n1,200", (1, 0): "25%\n10", (1, 1): "75%\n30"}
    assert edema.collections[0].get_array().ravel().tolist() == [0.5, 0.5, 0.25, 0.75]
    assert [text.get_text() for text in edema.get_yticklabels()] == ["absent", "present"]
    assert edema.get_ylim()[0] > edema.get_ylim()[1]  # the first row is on top


def test_labels_without_positives_or_threshold_say_so(evaluated):
    result = evaluated(["Edema", "Mass"], missing=["Edema"])
    without = replace(result.counts["Mass"], tp=None, fp=None, tn=None, fn=None)
    first, second = confusion(with_counts(result, Mass=without)).axes
    assert "no images" in cells(first).values()
    assert list(cells(second).values()) == ["no threshold"]
    assert confusion(evaluated(["Edema"], validation=False)) is None


@pytest.mark.parametrize("count", [3, 6, 14])
def test_classes_that_exclude_one_another_share_one_matrix(count, evaluated):
    labels = [f"class {number}" for number in range(count)]
    result = evaluated(labels, exclusive=True)
    matrix = np.array(result.classification_report.matrix)
    (axes,) = confusion(result).axes
    shares = matrix / matrix.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(axes.collections[0].get_array(), shares)
    assert [text.get_text() for text in axes.get_yticklabels()] == labels
    assert [text.get_text() for text in axes.get_xticklabels()] == labels
    share, number = shares[1, 1], matrix[1, 1]
    assert cells(axes)[1, 1] == (f"{share:.0%}\n{number}" if count <= 12 else f"{100 * share:.0f}")


def test_a_binary_task_is_shown_by_its_label(evaluated):
    result = evaluated(["Edema"])
    assert result.classification_report.kind == "binary"
    assert [axes.get_title(loc="left") for axes in confusion(result).axes] == ["Edema"]


def test_text_on_every_cell_has_the_contrast_that_wcag_asks_of_small_text():
    for share in np.linspace(0, 1, 101):
        colour = np.array(matplotlib.colormaps[SEQUENTIAL](share)[:3])
        linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
        luminance = linear @ [0.2126, 0.7152, 0.0722]
        text = {"black": 0.0, "white": 1.0}[readable_on(share)]
        low, high = sorted([luminance, text])
        assert (high + 0.05) / (low + 0.05) >= 4.5
