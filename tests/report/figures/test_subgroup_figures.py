import pytest

from cxrlab.report.figures.groups import forest

NOTHING = {"value": None, "low": None, "high": None}


def drawn(axes):
    """Return the value of each row by its name, which stands beside the first panel."""
    names = [text.get_text() for text in axes.figure.axes[0].get_yticklabels()]
    dots = [container.lines[0].get_xydata()[0] for container in axes.containers]
    return {names[int(y)]: x for x, y in dots}


@pytest.mark.parametrize(("labels", "label"), [(["Edema", "Mass"], "macro"), (["Edema"], "Edema")])
def test_a_row_is_a_group_beside_the_value_of_all(labels, label, sample_numbers):
    numbers = sample_numbers(labels)
    figure = forest(numbers)
    overall = numbers["macro"] if label == "macro" else numbers["labels"][label]
    rows = [row for row in numbers["subgroups"] if row["label"] == label]
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["AUROC", "sensitivity", "specificity"]
    for axes, metric in zip(figure.axes, ("auroc", "sensitivity", "specificity"), strict=True):
        wanted = {f"{row['group']} (n = {row['images']})": row[metric]["value"] for row in rows}
        assert drawn(axes) == wanted | {"all images (n = 600)": overall[metric]["value"]}
        assert any(list(line.get_xdata()) == [overall[metric]["value"]] * 2 for line in axes.lines)


def test_groups_stand_beneath_the_name_of_their_covariate(sample_numbers):
    axes = forest(sample_numbers(["Edema"])).axes[0]
    ticks = axes.get_yticklabels()
    assert [text.get_text().split(" (")[0] for text in ticks] == [
        "all images", "view", "AP", "PA", "sex", "F", "M", "age", "0 to 40", "40 to 60", "60 and more"
    ]  # fmt: skip
    assert [text.get_text() for text in ticks if text.get_fontweight() == "bold"] == ["view", "sex", "age"]


def test_a_distance_means_the_same_in_every_panel(sample_numbers):
    spans = [high - low for low, high in (axes.get_xlim() for axes in forest(sample_numbers(["Edema"])).axes)]
    assert spans == pytest.approx([spans[0]] * 3)
    assert spans[0] >= 0.1


def test_every_interval_is_in_sight(sample_numbers):
    numbers = sample_numbers(["Edema", "Hernia"])
    figure = forest(numbers, label="Hernia")
    for axes, metric in zip(figure.axes, ("auroc", "sensitivity", "specificity"), strict=True):
        known = [
            row[metric]
            for row in numbers["subgroups"]
            if row["label"] == "Hernia" and row[metric]["value"] is not None
        ]
        low, high = axes.get_xlim()
        assert low <= min(one["low"] for one in known)
        assert high >= max(one["high"] for one in known)


def test_a_label_a_metric_and_an_undefined_group_can_be_shown(sample_numbers):
    numbers = sample_numbers(["Edema", "Mass"])
    numbers["counts"]["Mass"]["images"] = 555  # known on fewer
    for row in numbers["subgroups"]:
        if row["group"] == "M":
            row["auroc"] = NOTHING
    figure = forest(numbers, ("auroc",), label="Mass")
    (axes,) = figure.axes
    assert "Mass" in figure.get_supxlabel()
    assert drawn(axes)["all images (n = 555)"] == numbers["labels"]["Mass"]["auroc"]["value"]
    assert [text.get_text() for text in axes.texts] == ["not defined"]
    assert axes.get_yticklabels()[axes.texts[0].get_position()[1]].get_text().startswith("M ")


def test_negatives_of_all_groups_are_told(sample_numbers):
    numbers = sample_numbers(["Edema"])
    assert "*" not in forest(numbers).get_supxlabel()
    for row in numbers["subgroups"]:
        row["negatives_from"] = "all" if row["covariate"] == "view" else "group"
    figure = forest(numbers)
    assert "negatives of all groups" in figure.get_supxlabel()
    marked = [text.get_text() for text in figure.axes[0].get_yticklabels() if "*" in text.get_text()]
    assert [name.split("*")[0] for name in marked] == ["AP", "PA"]


def test_what_is_nowhere_defined_gets_no_panel_or_no_figure(sample_numbers):
    numbers = sample_numbers(["Edema"], validation=False)
    assert [axes.get_title(loc="left") for axes in forest(numbers).axes] == ["AUROC"]
    assert forest(numbers, ("sensitivity",)) is None
    assert forest(numbers | {"subgroups": []}) is None
