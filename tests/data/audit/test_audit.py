import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest

from cxrlab.data.audit import AuditReport, audit, summary, tables, terminal_table, whole
from cxrlab.errors import DataError


def test_a_clean_set_has_no_finding_and_its_report_is_json(case):
    report = case.report()
    assert report.findings == []
    assert AuditReport.from_json(json.loads(json.dumps(asdict(report), allow_nan=False))) == report
    assert report.data.images == 240
    assert report.data.patients == 120
    assert report.data.fingerprint == case.manifest.fingerprint()


def test_faults_come_first_and_a_report_with_gaps_is_json(case):
    case.table.loc[239, "patient"] = "P000"
    case.table.loc[case.table["part"] == "val", ["label/Edema", "label/Mass", "covariate/age"]] = np.nan
    case.facts.loc[:2, ["brightness", "contrast"]] = np.nan
    case.facts.loc[:2, "error"] = "broken"
    case.pairs = [(0, 1)]
    report = case.report()
    severities = [finding.severity for finding in report.findings]
    assert severities == sorted(severities, key=["fault", "warning", "note"].index)
    assert severities[0] == "fault"
    assert AuditReport.from_json(json.loads(json.dumps(asdict(report), allow_nan=False))) == report


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda case: setattr(case, "facts", case.facts.drop(columns="polarity")),
            r"lack the columns \['polarity'\]",
        ),
        (lambda case: setattr(case, "facts", case.facts.iloc[1:]), "facts of 239 images"),
        (lambda case: setattr(case, "identical", [[0, 240]]), r"rows \[240\]"),
        (lambda case: setattr(case, "pairs", [(-1, 3)]), r"rows \[-1\]"),
    ],
)
def test_facts_that_do_not_fit_are_rejected(case, change, message):
    change(case)
    with pytest.raises(DataError, match=message):
        case.report()


def test_an_empty_manifest_is_rejected(case):
    empty = case.manifest.rows(case.table["image"] == "none")
    with pytest.raises(DataError, match="no rows"):
        audit(
            empty, case.facts.iloc[:0], identical=[], pairs=pd.DataFrame(columns=["one", "other"]), missing=0,
            extra=[], raw=None,
        )  # fmt: skip


def test_parts_are_those_that_have_rows_or_all(case):
    case.table.loc[case.table["part"] == "val", "part"] = ""
    assert {name: int(rows.sum()) for name, rows in case.evidence().parts.items()} == {
        "train": 120,
        "test": 60,
    }
    case.table["part"] = ""
    assert list(case.evidence().parts) == ["all"]


def test_at_most_ten_images_are_named(case):
    assert case.evidence().images(np.arange(12)) == [f"images/{row:04d}.png" for row in range(10)]


def test_counts_of_labels_add_up_and_prevalence_leaves_the_unknown_out(case):
    case.table.loc[:29, "label/Edema"] = np.nan
    case.table.loc[case.table["part"] == "test", "label/Mass"] = np.nan
    rows = {(row.label, row.part): row for row in tables.labels(case.evidence())}
    edema = rows["Edema", "train"]
    # Rows 30 to 119 are patients 15 to 59, the odd ones of which are positive: 23 of 45.
    assert (edema.positive, edema.negative, edema.unknown) == (46, 44, 30)
    assert edema.prevalence == 46 / 90
    assert rows["Mass", "test"].prevalence is None
    assert all(
        row.positive + row.negative + row.unknown == {"train": 120, "val": 60, "test": 60}[row.part]
        for row in rows.values()
    )


def test_labels_that_occur_together(case):
    # Odd patients have Edema, every third Mass; of 120, the numbers 1, 7, 13, ... have both.
    assert tables.cooccurrence(case.evidence()) == tables.Cooccurrence(
        labels=["Edema", "Mass"], counts=[[120, 40], [40, 80]]
    )


def test_images_without_a_label_are_known_only_where_all_labels_are(case):
    case.table.loc[0, "label/Edema"] = np.nan  # patient 0 has no label
    case.table.loc[2, "label/Mass"] = np.nan  # patient 1 has Edema, whatever else
    train = tables.without_label(case.evidence())[0]
    # Patients 0, 2, 6, 8, ...: even ones but 4, 10, 16, ...: 20 of 60.
    assert train == tables.WithoutLabel("train", 39 / 119)


def test_images_per_patient_and_parts(case):
    case.table.loc[:24, "patient"] = "P000"
    train = tables.images_per_patient(case.evidence())[0]
    assert train.patients == {"1": 1, "2": 47, "20+": 1}
    assert (train.maximum, train.median) == (25, 2.0)
    assert tables.parts(case.evidence())[0] == tables.PartCounts(
        part="train", images=120, readable=120, patients=49
    )


def test_sizes_and_modes_are_of_readable_files(case):
    case.facts.loc[:9, ["width", "height"]] = [2000, 1500]
    case.facts.loc[0, "error"] = "broken"
    case.facts.loc[9, "mode"] = "RGBA"
    sizes = tables.sizes(case.evidence())
    assert sizes.num_sizes == 2
    assert sizes.most_frequent[1] == tables.SizeCount(width=2000, height=1500, images=9)
    assert tables.modes(case.evidence()) == {"L": 238, "RGBA": 1}


def test_covariates_are_numbers_categories_or_text_that_is_not_repeated(case):
    case.table["covariate/accession"] = [f"secret {row}" for row in range(240)]
    case.table.loc[case.table["part"] == "val", "covariate/age"] = np.nan
    rows = {(row.covariate, row.part): row for row in tables.covariates(case.evidence())}
    assert rows["view", "train"].counts == {"PA": 80, "AP": 40}
    assert rows["age", "train"].median == 44.5
    assert (rows["age", "val"].unknown, rows["age", "val"].median) == (60, None)
    assert rows["accession", "test"].num_values == 60
    assert "secret" not in str(rows)


def test_the_summary_counts_and_tells_the_three_worst(case):
    case.table.loc[239, "patient"] = "P000"
    case.facts.loc[5, "polarity"] = -0.8
    case.extra = ["x.png"]
    case.facts.loc[7, "spread"] = 1.0
    lines = summary(case.report().findings).splitlines()
    assert lines[0] == "Audit: 1 fault, 2 warnings, 1 note; see audit.json."
    assert "more than one part" in lines[1]
    assert len(lines) == 5
    assert lines[4] == "  ... and 1 more: audit.json"


def test_the_page_has_every_finding(case):
    case.table.loc[239, "patient"] = "P000"
    case.extra = ["x.png"]
    findings = case.report().findings
    lines = whole(findings).splitlines()
    assert lines[0] == summary(findings).splitlines()[0]
    assert [line.split(maxsplit=1)[1] for line in lines[1:]] == [finding.message for finding in findings]
    assert "note" in {finding.severity for finding in findings}


def test_notes_alone_are_no_alarm(case):
    case.extra = ["x.png"]
    assert summary(case.report().findings) == "Audit: no fault, no warning. 1 note in audit.json."


def test_the_table_shows_parts_in_order_prevalence_and_findings(case):
    text = terminal_table(case.report())
    assert text.splitlines()[0].split() == ["train", "val", "test"]
    assert "Nothing was found." in text
    assert [line.split()[1:] for line in text.splitlines() if line.startswith("Edema")] == [["50.00%"] * 3]
    case.table["label/Mass"] = float("nan")
    text = terminal_table(case.report())
    assert [line.split()[1:] for line in text.splitlines() if line.startswith("Mass")] == [["-"] * 3]
    assert "warning 1 label without a positive or a negative in train: Mass." in text
