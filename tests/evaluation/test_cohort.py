import json
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest

from cxrlab.data.audit import Finding
from cxrlab.data.flow import FlowStep
from cxrlab.evaluation.cohort import (
    EVALUATED,
    external_cohort,
    manifest_cohort,
    predictions_cohort,
    run_cohort,
    table_cohort,
)
from cxrlab.evaluation.evaluate import evaluate
from cxrlab.files import RunDir
from cxrlab.metrics.predictions import PredictionTable
from cxrlab.metrics.settings import EvaluationSettings


def manifest(**changes):
    """Six patients; of a the sex, of b one age, of two images a label are unknown."""
    columns = {
        "image": list("123456789"),
        "patient": ["a", "a", "b", "b", "c", "d", "e", "e", "f"],
        "split": "",
        "part": ["train"] * 5 + ["val"] + ["test"] * 3,
        "covariate/sex": [np.nan, np.nan, "F", "F", "M", "F", "M", "M", "F"],
        "covariate/view": ["AP", "PA", "AP", "AP", "PA", "PA", "PA", "AP", "PA"],
        "covariate/age": [40.0, 50, 30, np.nan, 60, 70, 20, 22, 80],
        "label/Edema": [1.0, 0, 1, 1, np.nan, 0, 1, 0, 0],
        "label/Mass": [0.0, 0, 0, 0, np.nan, 1, np.nan, 0, 1],
    }
    return pd.DataFrame(columns | changes)


def by_part(rows, name, attribute="label"):
    return {row.part: row for row in rows if getattr(row, attribute) == name}


@pytest.fixture
def audited(tmp_path):
    """Write the ``audit.json`` of a run, with what is left of a report of nine images."""

    def write(**changes):
        report = {
            "data": {"name": "toy", "images": 10, "patients": 6, "listed": 14, "fingerprint": "f", "labels": []},
            "findings": [
                asdict(Finding("missing", "note", "2 of 14", 2)),
                asdict(Finding("unreadable", "warning", "1 file", 1)),
            ],
            "parts": [], "labels": [], "without_label": [], "cooccurrence": {"labels": [], "counts": []},
            "images_per_patient": [], "sizes": {"num_sizes": 0, "most_frequent": []}, "modes": {},
            "covariates": [], "drift": [], "duplicates": [],
        }  # fmt: skip
        files = RunDir(tmp_path)
        files.audit.write_text(json.dumps(report | changes))
        return files

    return write


def test_a_run_is_described_by_part(audited):
    steps = [FlowStep("missing", 2), FlowStep("filter", 2, 1, "view=PA"), FlowStep("unreadable", 1, 0)]
    files = audited(flow=[asdict(step) for step in steps])
    cohort = run_cohort(files, manifest(), "test", 3)
    assert (cohort.source, cohort.listed, cohort.steps) == ("manifest", 14, steps)
    train, val, test = cohort.parts
    assert (train.part, train.images, train.patients, train.images_per_patient) == ("train", 5, 3, 5 / 3)
    assert (train.most_images, train.without_label, train.evaluated) == (2, 1, 0)
    assert (val.images, val.patients, test.evaluated) == (1, 1, 3)
    assert cohort.shared_patients == 0
    edema = by_part(cohort.labels, "Edema")
    assert (edema["train"].positives, edema["train"].negatives, edema["train"].unknown) == (3, 1, 1)
    assert (edema["train"].positive_patients, by_part(cohort.labels, "Mass")["test"].unknown) == (2, 1)


def test_an_audit_that_did_not_record_the_flow_tells_what_its_findings_do(audited):
    cohort = run_cohort(audited(), manifest(), "test", 3)
    assert cohort.steps == [FlowStep("missing", 2), FlowStep("unreadable", 1), FlowStep("other", 2)]
    (audited().audit).unlink()
    without = run_cohort(audited().__class__(audited().path / "none"), manifest(), "test", 3)
    assert (without.listed, without.steps) == (None, [])


def test_what_never_varies_within_a_patient_counts_patients_all_else_images():
    cohort = manifest_cohort(manifest(), evaluated={"test": 3})
    sex = by_part(cohort.covariates, "sex", "covariate")
    assert (sex["train"].unit, sex["train"].counts, sex["train"].unknown) == ("patient", {"F": 1, "M": 1}, 1)
    view = by_part(cohort.covariates, "view", "covariate")
    assert (view["train"].unit, view["train"].counts) == ("image", {"PA": 2, "AP": 3})


def test_numbers_count_each_patient_once_and_their_range_each_image():
    age = by_part(manifest_cohort(manifest(), evaluated={}).covariates, "age", "covariate")
    train = age["train"]
    assert (train.unit, train.known, train.unknown) == ("patient", 3, 0)
    assert (train.mean, train.median) == (pytest.approx(np.mean([45, 30, 60])), 45)
    assert train.sd == pytest.approx(np.std([45, 30, 60], ddof=1))
    assert (train.q25, train.q75, train.minimum, train.maximum) == (37.5, 52.5, 30, 60)
    assert (age["val"].sd, age["test"].minimum, age["test"].maximum) == (None, 20, 80)


def test_of_unknown_patients_images_are_counted():
    cohort = manifest_cohort(manifest(patient=list("123456789")), evaluated={"test": 3})
    assert not cohort.patients_known
    assert cohort.shared_patients is None
    assert by_part(cohort.covariates, "sex", "covariate")["train"].unit == "image"
    assert cohort.labels[0].positive_patients is None


def test_a_patient_in_two_parts_is_counted():
    table = manifest()
    table.loc[[5, 6], "patient"] = "a"
    assert manifest_cohort(table, evaluated={}).shared_patients == 1


def test_free_text_is_not_repeated_and_words_for_unknown_are_unknown():
    table = pd.concat([manifest()] * 4, ignore_index=True)
    table["image"] = [str(row) for row in range(len(table))]
    table["covariate/note"] = [f"text {row}" for row in range(len(table))]
    table["covariate/sex"] = ["unknown", *["F"] * (len(table) - 1)]
    cohort = manifest_cohort(table, evaluated={})
    assert by_part(cohort.covariates, "note", "covariate")["train"].counts == {}
    assert by_part(cohort.covariates, "note", "covariate")["train"].num_values == 20
    assert "unknown" not in by_part(cohort.covariates, "sex", "covariate")["train"].counts


def test_of_another_data_set_the_evaluated_images_are_described(audited):
    cohort = external_cohort(manifest(), [5, 6, 7], 4, None)
    assert (cohort.listed, cohort.steps) == (None, [FlowStep("part", 5), FlowStep("trained_on", 1)])
    assert [(part.part, part.images, part.evaluated) for part in cohort.parts] == [(EVALUATED, 3, 3)]
    assert cohort.shared_patients is None


def predictions(rows, names, part=""):
    table = manifest().iloc[rows]
    numbers, found = pd.factorize(table["patient"])
    return PredictionTable(
        images=table["image"].to_numpy(dtype=object),
        patients=numbers,
        labels=("Edema",),
        targets=table[["label/Edema"]].to_numpy(),
        probabilities=np.full((len(rows), 1), 0.5),
        covariates=table[["covariate/view"]].rename(columns={"covariate/view": "view"}).reset_index(drop=True),
        patient_names=np.asarray([names.get(name, name) for name in found], dtype=object) if names is not None else None,
        part=part,
    )  # fmt: skip


def test_predictions_and_their_validation_are_two_parts_whose_patients_are_compared():
    val, test = predictions([0, 1, 2], {"a": "007"}), predictions([0, 5, 6, 7], {"a": "7"})
    cohort = predictions_cohort({"val": val, EVALUATED: test})
    assert (cohort.source, cohort.listed, cohort.shared_patients) == ("predictions", None, 1)
    assert [(part.part, part.images, part.evaluated) for part in cohort.parts] == [("val", 3, 0), (EVALUATED, 4, 4)]  # fmt: skip
    assert by_part(cohort.labels, "Edema")[EVALUATED].positives == 2
    unknown = predictions_cohort({"val": val, EVALUATED: predictions([5, 6], None)})
    assert (unknown.patients_known, unknown.shared_patients) == (False, None)


def test_evaluate_describes_the_table_where_nothing_else_is_known():
    table = predictions([0, 1, 2, 3, 5, 6, 7, 8], {}, part="test")
    result = evaluate(table, settings=EvaluationSettings(num_resamples=100))
    assert result.cohort == table_cohort(table)
    content = result.to_json()["cohort"]
    assert content["parts"][0]["part"] == "test"
    assert json.loads(json.dumps(content)) == content


def test_what_was_asked_for_can_be_left_out():
    step = FlowStep("filter", 2, 1, "ward=jane")
    cohort = replace(manifest_cohort(manifest(), evaluated={}), steps=[step])
    assert cohort.without_details().steps == [FlowStep("filter", 2, 1)]
