import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest

from cxrlab.data.audit import AuditReport, audit
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
