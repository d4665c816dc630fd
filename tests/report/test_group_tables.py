from cxrlab.report import tables as group_tables

LABELS = ("Edema", "Mass")


def test_calibration_before_and_after(sample_numbers):
    numbers = sample_numbers(LABELS)
    table = group_tables.calibration_table(numbers)
    assert table.columns[1:3] == ["calibration error before", "calibration error after"]
    assert table.rows[0].cells[-1].text == numbers["calibration"]["labels"]["Edema"]["description"]
    assert group_tables.recalibration_table(numbers).rows[0].cells[1].text == "\u22121.000"


def test_calibration_without_validation(sample_numbers):
    numbers = sample_numbers(LABELS, validation=False)
    assert group_tables.calibration_table(numbers).columns == [
        "label",
        "calibration error",
        "bias",
        "Brier score",
        "in words",
    ]
    assert group_tables.recalibration_table(numbers) is None
    assert group_tables.calibration_table(numbers | {"calibration": None}) is None


def test_each_covariate_has_a_table(sample_numbers):
    numbers = sample_numbers(LABELS)
    tables = dict(group_tables.subgroup_tables(numbers))
    assert list(tables) == ["view", "sex", "age"]
    assert tables["view"].rows[0].name == "macro mean"
    assert tables["view"].caption == ""
    for row in numbers["subgroups"]:
        row["negatives_from"] = "all"
    assert "those of all groups" in dict(group_tables.subgroup_tables(numbers))["view"].caption


def gap(label, difference, p_holm):
    return {"covariate": "sex", "label": label, "metric": "auroc", "groups": ["F", "M"], "images": [10, 1200], "p": p_holm,
            "difference": {"value": difference, "low": None, "high": None}, "p_holm": p_holm, "description": "words"}  # fmt: skip


def test_the_gaps_that_are_shown_come_first_then_the_least_likely_by_chance():
    gaps = [gap("a", 0.3, 0.9), gap("b", -0.01, 0.001), gap("c", -0.2, 0.04), gap("d", None, None)]
    table = group_tables.gap_table({"gaps": gaps})
    assert [row.name for row in table.rows] == ["c", "b", "a", "d"]
    assert [cell.text for cell in table.rows[1].cells[2:]] == [
        "F \u2212 M",
        "\u22120.010",
        "0.001",
        "words",
    ]
    assert table.caption == ""
    assert len(group_tables.gap_table({"gaps": gaps * 3}).rows) == 6
    assert "6 clearest of 12 gaps" in group_tables.gap_table({"gaps": gaps * 3}).caption
    assert group_tables.gap_table({"gaps": []}) is None
