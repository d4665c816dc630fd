from dataclasses import replace

import pytest

from cxrlab.metrics.bootstrap import Estimate
from cxrlab.report.figures.groups import auroc_by_model, differences, forest, leaderboard

LABELS = ["Edema", "Mass", "Hernia"]
UNDEFINED = Estimate(None)
FOREST_METRICS = ("auroc", "sensitivity", "specificity")


def drawn(axes):
    """Return the value of each row by its name, which stands beside the first panel."""
    names = [text.get_text() for text in axes.figure.axes[0].get_yticklabels()]
    dots = [container.lines[0].get_xydata()[0] for container in axes.containers]
    return {names[int(y)]: x for x, y in dots}


def with_groups(result, change):
    return replace(result, subgroups=[change(row) for row in result.subgroups])


@pytest.mark.parametrize(("labels", "label"), [(["Edema", "Mass"], "macro"), (["Edema"], "Edema")])
def test_a_row_is_a_group_beside_the_value_of_all(labels, label, evaluated):
    result = evaluated(labels)
    figure = forest(result)
    overall = result.labels["Edema"]  # of two labels the other is too rare for the means of groups
    rows = [row for row in result.subgroups if row.label == label]
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["AUROC", "sensitivity", "specificity"]
    for axes, metric in zip(figure.axes, FOREST_METRICS, strict=True):
        wanted = {f"{row.group} (n = {row.images})": getattr(row, metric).value for row in rows}
        value = pytest.approx(overall[metric].value)
        assert drawn(axes) == wanted | {"all images (n = 240)": value}
        assert any(list(line.get_xdata()) == [value] * 2 for line in axes.lines)


def test_groups_stand_beneath_the_name_of_their_covariate(evaluated):
    result = evaluated(["Edema"])
    ticks = forest(result).axes[0].get_yticklabels()
    wanted = ["all images"]
    for covariate in ("view", "sex", "age"):
        wanted += [covariate, *(row.group for row in result.subgroups if row.covariate == covariate)]
    assert [text.get_text().split(" (")[0] for text in ticks] == wanted
    assert [text.get_text() for text in ticks if text.get_fontweight() == "bold"] == ["view", "sex", "age"]


def test_a_distance_means_the_same_in_every_panel(evaluated):
    spans = [high - low for low, high in (axes.get_xlim() for axes in forest(evaluated(["Edema"])).axes)]
    assert spans == pytest.approx([spans[0]] * 3)
    assert spans[0] >= 0.1


def test_every_interval_is_in_sight(evaluated):
    result = evaluated(["Edema", "Hernia"])
    for axes, metric in zip(forest(result, label="Hernia").axes, FOREST_METRICS, strict=True):
        estimates = [getattr(row, metric) for row in result.subgroups if row.label == "Hernia"]
        bounds = [(estimate.low, estimate.high) for estimate in estimates if estimate.low is not None]
        low, high = axes.get_xlim()
        assert low <= min(start for start, _ in bounds)
        assert high >= max(end for _, end in bounds)


def test_a_label_a_metric_and_an_undefined_group_can_be_shown(evaluated):
    result = evaluated(["Mass", "Edema"])
    fewer = replace(result.counts["Mass"], images=222)  # known on fewer
    result = replace(result, counts={**result.counts, "Mass": fewer})
    result = with_groups(result, lambda row: replace(row, auroc=UNDEFINED) if row.group == "M" else row)
    figure = forest(result, ("auroc",), label="Mass")
    (axes,) = figure.axes
    assert "Mass" in figure.get_supxlabel()
    assert drawn(axes)["all images (n = 222)"] == result.labels["Mass"]["auroc"].value
    assert [text.get_text() for text in axes.texts] == ["not defined"]
    assert axes.get_yticklabels()[axes.texts[0].get_position()[1]].get_text().startswith("M ")


def test_negatives_of_all_groups_are_told(evaluated):
    result = evaluated(["Edema"])
    assert "*" not in forest(result).get_supxlabel()
    result = with_groups(
        result, lambda row: replace(row, negatives_from="all" if row.covariate == "view" else "group")
    )
    figure = forest(result)
    assert "negatives of all groups" in figure.get_supxlabel()
    marked = [text.get_text() for text in figure.axes[0].get_yticklabels() if "*" in text.get_text()]
    assert [name.split("*")[0] for name in marked] == ["AP", "PA"]


def test_what_is_nowhere_defined_gets_no_panel_or_no_figure(evaluated):
    result = evaluated(["Edema"], validation=False)
    assert [axes.get_title(loc="left") for axes in forest(result).axes] == ["AUROC"]
    assert forest(result, ("sensitivity",)) is None
    assert forest(replace(result, subgroups=[])) is None


def test_the_dashed_line_is_the_mean_of_the_labels_of_the_points(evaluated):
    """Mass is too rare for the groups' means; with it, the mean of all images would be another one."""
    result = evaluated(["Edema", "Mass"])
    figure = forest(result)
    assert {row.mean_of for row in result.subgroups if row.label == "macro"} == {("Edema",)}
    for axes, metric in zip(figure.axes, FOREST_METRICS, strict=True):
        value = result.labels["Edema"][metric].value
        assert value != pytest.approx(result.labels["Mass"][metric].value, abs=0.01)
        (line,) = [line for line in axes.lines if line.get_linestyle() == "--"]
        assert list(line.get_xdata()) == pytest.approx([value] * 2)
        assert drawn(axes)["all images (n = 240)"] == pytest.approx(value)
    assert figure.get_supxlabel().startswith("mean of 1 label, ")


def test_where_covariates_have_means_of_other_labels_each_has_its_own_line(evaluated):
    """Among the three groups by age, the one of 80 images has too few patients with a mass."""
    result = evaluated(LABELS)
    figure = forest(result)
    names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert [name for name in names if "mean of" in name] == [
        "view, mean of 2 labels", "sex, mean of 2 labels", "age, mean of 1 label"
    ]  # fmt: skip
    assert sum(name.startswith("all images") for name in names) == 3
    lines = [line for line in figure.axes[0].lines if line.get_linestyle() == "--"]
    values = [result.labels[label]["auroc"].value for label in ("Edema", "Mass")]
    assert [line.get_xdata()[0] for line in lines] == pytest.approx([sum(values) / 2] * 2 + values[:1])
    ends = [place for line in lines for place in line.get_ydata()]
    assert ends == sorted(ends)
    assert figure.get_supxlabel().startswith("means of the labels that have enough patients in every group")


def dots(axes):
    return [point for container in axes.containers for point in container.lines[0].get_xydata().tolist()]


def names(axes):
    return [text.get_text() for text in axes.get_yticklabels()]


def test_the_leaderboard_has_both_means_of_each_model_best_first(compared):
    comparison = compared(LABELS)
    figure = leaderboard(comparison)
    assert names(figure.axes[0]) == [model.name for model in comparison.models]
    for axes, metric in zip(figure.axes, ("macro_auroc", "macro_average_precision"), strict=True):
        assert dots(axes) == [
            [getattr(model, metric).value, place] for place, model in enumerate(comparison.models)
        ]
        assert axes.get_ylim()[0] > axes.get_ylim()[1]


def test_a_model_without_a_mean_has_a_row_without_a_point(compared):
    comparison = compared(LABELS)
    *others, last = comparison.models
    figure = leaderboard(replace(comparison, models=[*others, replace(last, macro_auroc=UNDEFINED)]))
    assert len(dots(figure.axes[0])) == 2
    assert len(names(figure.axes[0])) == 3
    undefined = [
        replace(model, macro_auroc=UNDEFINED, macro_average_precision=UNDEFINED)
        for model in comparison.models
    ]
    assert leaderboard(replace(comparison, models=undefined)) is None


@pytest.mark.parametrize("is_turned", [False, True])
def test_differences_are_the_best_minus_each_other_whichever_way_the_pair_is_told(is_turned, compared):
    comparison = compared(LABELS)
    best, *others = [model.macro_auroc.value for model in comparison.models]
    pairs = list(comparison.pairs)
    if is_turned:
        pairs = [replace(pair, models=pair.models[::-1], difference=-pair.difference) for pair in pairs]
    pairs[0] = replace(pairs[0], p_holm=0.00004)
    pairs[1] = replace(pairs[1], p_holm=None)
    axes, beside = differences(replace(comparison, pairs=pairs)).axes
    assert [x for x, _ in dots(axes)] == pytest.approx([best - other for other in others])
    assert names(axes) == [f"minus {model.name}" for model in comparison.models[1:]]
    assert names(beside) == ["p < 0.001", ""]
    low, high = axes.containers[0].lines[2][0].get_segments()[0][:, 0]
    difference = comparison.pairs[0].difference
    assert [low, high] == pytest.approx([difference.low, difference.high])


def test_one_model_has_nobody_to_differ_from(compared):
    comparison = compared(LABELS)
    alone = replace(comparison, models=comparison.models[:1], pairs=[])
    assert differences(alone) is None
    assert leaderboard(alone) is not None
    assert auroc_by_model(alone) is not None
    empty = replace(comparison, models=[], pairs=[])
    assert leaderboard(empty) is differences(empty) is auroc_by_model(empty) is None


def test_every_label_has_the_points_of_every_model_side_by_side(compared):
    comparison = compared(LABELS)
    first, second, third = comparison.models
    second = replace(second, labels={**second.labels, "Mass": UNDEFINED})
    comparison = replace(comparison, models=[first, second, third])
    figure = auroc_by_model(comparison)
    axes = figure.axes[0]
    assert names(axes) == LABELS
    for model, container in zip(comparison.models, axes.containers, strict=True):
        known = [label for label in LABELS if model.labels[label].value is not None]
        points = container.lines[0].get_xydata()
        assert [LABELS[round(y)] for _, y in points] == known
        assert [x for x, _ in points] == [model.labels[label].value for label in known]
    heights = [y for _, y in dots(axes)]
    assert len(set(heights)) == 8
    assert len(figure.legends[0].get_texts()) == 3


def test_of_many_models_the_best_seven_are_shown_by_label_and_that_is_said(compared):
    figure = auroc_by_model(compared(LABELS, models=[f"_{number}" for number in range(9)]))
    assert len(figure.axes[0].containers) == len(figure.legends[0].get_texts()) == 7
    assert "the 7 best of 9 models" in figure.get_supxlabel()
    assert "best of" not in auroc_by_model(compared(LABELS)).get_supxlabel()
