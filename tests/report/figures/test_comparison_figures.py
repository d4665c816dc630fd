import pytest

from cxrlab.report.figures.groups import auroc_by_model, differences, leaderboard

LABELS = ["Edema", "Mass", "Hernia"]
NOTHING = {"value": None, "low": None, "high": None}


def dots(axes):
    return [point for container in axes.containers for point in container.lines[0].get_xydata().tolist()]


def names(axes):
    return [text.get_text() for text in axes.get_yticklabels()]


def test_the_leaderboard_has_both_means_of_each_model_best_first(sample_comparison):
    comparison = sample_comparison(LABELS)
    figure = leaderboard(comparison)
    assert names(figure.axes[0]) == [row["name"] for row in comparison["models"]]
    for axes, metric in zip(figure.axes, ("macro_auroc", "macro_average_precision"), strict=True):
        assert dots(axes) == [[row[metric]["value"], place] for place, row in enumerate(comparison["models"])]
        assert axes.get_ylim()[0] > axes.get_ylim()[1]


def test_a_model_without_a_mean_has_a_row_without_a_point(sample_comparison):
    comparison = sample_comparison(LABELS)
    comparison["models"][-1]["macro_auroc"] = NOTHING
    figure = leaderboard(comparison)
    assert len(dots(figure.axes[0])) == 2
    assert len(names(figure.axes[0])) == 3
    for row in comparison["models"]:
        row |= {"macro_auroc": NOTHING, "macro_average_precision": NOTHING}
    assert leaderboard(comparison) is None


@pytest.mark.parametrize("turned", [False, True])
def test_differences_are_the_best_minus_each_other_whichever_way_the_pair_is_told(turned, sample_comparison):
    comparison = sample_comparison(LABELS)
    best, *others = [row["macro_auroc"]["value"] for row in comparison["models"]]
    if turned:
        for pair in comparison["pairs"]:
            value, low, high = (pair["difference"][key] for key in ("value", "low", "high"))
            pair["models"].reverse()
            pair["difference"] = {"value": -value, "low": -high, "high": -low}
    comparison["pairs"][0] |= {"p_holm": 0.00004}
    comparison["pairs"][1] |= {"p_holm": None}
    axes, beside = differences(comparison).axes
    found = dots(axes)
    assert [x for x, _ in found] == pytest.approx([best - other for other in others])
    assert names(axes) == [f"minus {row['name']}" for row in comparison["models"][1:]]
    assert names(beside) == ["p < 0.001", ""]
    low, high = axes.containers[0].lines[2][0].get_segments()[0][:, 0]
    pair = comparison["pairs"][0]["difference"]
    assert sorted([abs(low), abs(high)]) == pytest.approx(sorted([abs(pair["low"]), abs(pair["high"])]))


def test_one_model_has_nobody_to_differ_from(sample_comparison):
    comparison = sample_comparison(LABELS, models=["alone"])
    assert differences(comparison) is None
    assert leaderboard(comparison) is not None
    assert auroc_by_model(comparison) is not None
    empty = comparison | {"models": []}
    assert leaderboard(empty) is differences(empty) is auroc_by_model(empty) is None


def test_every_label_has_the_points_of_every_model_side_by_side(sample_comparison):
    comparison = sample_comparison(LABELS)
    comparison["models"][1]["labels"]["Mass"] = NOTHING
    figure = auroc_by_model(comparison)
    axes = figure.axes[0]
    assert names(axes) == LABELS
    for row, container in zip(comparison["models"], axes.containers, strict=True):
        known = [label for label in LABELS if row["labels"][label]["value"] is not None]
        points = container.lines[0].get_xydata()
        assert [LABELS[round(y)] for _, y in points] == known
        assert [x for x, _ in points] == [row["labels"][label]["value"] for label in known]
    heights = [y for _, y in dots(axes)]
    assert len(set(heights)) == 8
    assert len(figure.legends[0].get_texts()) == 3


def test_of_many_models_the_best_seven_are_shown_by_label_and_that_is_said(sample_comparison):
    figure = auroc_by_model(sample_comparison(LABELS, models=[f"_{number}" for number in range(9)]))
    assert len(figure.axes[0].containers) == len(figure.legends[0].get_texts()) == 7
    assert "the 7 best of 9 models" in figure.get_supxlabel()
    assert "best of" not in auroc_by_model(sample_comparison(LABELS)).get_supxlabel()
