import pytest

from cxrlab.report import tables

LABELS = ("Edema", "Mass", "Hernia")


def names(table):
    return [row.name for row in table.rows]


def test_the_main_table_has_labels_means_and_marks(sample_numbers):
    numbers = sample_numbers(LABELS)
    table = tables.main_table(numbers)
    assert table.columns[:4] == ["label", "positives", "AUROC", "average precision"]
    assert names(table) == [*LABELS, "macro mean of 3", "micro, all pooled"]
    assert all(len(row.cells) == len(table.columns) - 1 for row in table.rows)
    auroc = numbers["labels"]["Mass"]["auroc"]
    assert table.rows[1].cells[1] == (f"{auroc['value']:.3f}", f"{auroc['low']:.3f} to {auroc['high']:.3f}")
    assert [bool(row.mark) for row in table.rows] == [False, False, True, False, False]
    assert "7 positives" in table.rows[2].mark


def test_one_label_has_no_means(sample_numbers):
    assert names(tables.main_table(sample_numbers(["Edema"]))) == ["Edema"]


def test_columns_without_any_value_are_left_out(sample_numbers):
    table = tables.main_table(sample_numbers(LABELS, validation=False))
    assert table.columns == ["label", "positives", "AUROC", "average precision"]
    further = tables.further_table(sample_numbers(LABELS, validation=False))
    assert "accuracy" not in further.columns
    assert "AUROC, DeLong by patient" in further.columns


@pytest.mark.parametrize(
    ("prevalence", "name"), [(0.1, "PPV at 10 %"), (0.005, "PPV at 0.5 %"), (0.025, "PPV at 2.5 %")]
)
def test_the_prevalence_stands_in_the_heading(sample_numbers, prevalence, name):
    assert name in tables.further_table(sample_numbers(LABELS) | {"prevalence": prevalence}).columns


def test_counts_and_thresholds(sample_numbers):
    numbers = sample_numbers(LABELS)
    row = tables.count_table(numbers).rows[0]
    counts = numbers["counts"]["Edema"]
    assert [cell.text for cell in row.cells[:7]] == [
        "0.500",
        "youden",
        "validation",
        *(str(counts[n]) for n in ("tp", "fp", "tn", "fn")),
    ]
    without = sample_numbers(LABELS, validation=False) | {"thresholds": {}}
    assert [cell.text for cell in tables.count_table(without).rows[0].cells[:4]] == ["\u2013"] * 4


def test_the_classification_report(sample_numbers):
    assert tables.class_table(sample_numbers(LABELS)) is None
    numbers = sample_numbers(LABELS, exclusive=True)
    table = tables.class_table(numbers)
    assert names(table) == [*LABELS, "accuracy"]
    assert table.rows[-1].cells[-1].text == "600"
    assert table.rows[-1].cells[2].text == f"{numbers['classification_report']['accuracy']['value']:.3f}"


def test_published_values_stand_beside_ours(sample_numbers):
    numbers = sample_numbers()
    assert tables.published_by_label(numbers).rows[0].cells[1].text == "0.809"
    means = tables.published_means(numbers)
    assert names(means)[:2] == ["ours", "CheXNet"]
    assert means.rows[0].cells[0].text == "\u2013"  # no mean of ours was put beside theirs
    numbers["published"]["ours"].append({"label": "macro", "value": 0.8, "low": 0.7, "high": 0.9})
    assert tables.published_means(numbers).rows[0].cells[0] == ("0.800", "0.700 to 0.900")
    assert tables.published_by_label(numbers).rows[-1].cells[1].text == "0.841"
    assert tables.published_means(sample_numbers(LABELS)) is None
    assert tables.published_by_label(sample_numbers(LABELS)) is None
