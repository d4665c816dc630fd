from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from cxrlab.errors import DataError
from cxrlab.evaluation.external_data import check_not_trained_on, check_validation_differs


@pytest.fixture
def run():
    manifest = pd.DataFrame({"patient": ["1", "2", "3"], "part": ["train", "val", "test"]})
    return SimpleNamespace(manifest=manifest, run_dir="outputs/run")


def test_patients_of_training_and_validation_are_rejected_by_name(run):
    with pytest.raises(
        DataError, match=r"3 of the 4 images are of 2 patients that outputs/run was trained .*'1', '2'"
    ):
        check_not_trained_on(run, ["3", "1", "1", "2"])


def test_patients_of_the_test_part_and_new_ones_are_let_through(run):
    check_not_trained_on(run, ["3", "4", "3"])


def test_a_validation_part_that_is_evaluated_too_is_rejected(make_predictions):
    table = make_predictions()
    with pytest.raises(DataError, match=r"1 images are in simulated predictions and in .*0000.png"):
        check_validation_differs(table.rows(np.array([0])), table)
    several = next(p for p in range(table.num_patients) if (table.patients == p).sum() > 1)
    rows = np.flatnonzero(table.patients == several)
    (note,) = check_validation_differs(table.rows(rows[:1]), table.rows(rows[1:]))
    assert note.startswith("1 patients are in the validation part")
    assert (
        check_validation_differs(table.rows(rows), table.rows(np.flatnonzero(table.patients != several)))
        == ()
    )


def test_a_file_name_tells_where_one_table_gives_no_folders(make_predictions):
    table = make_predictions()
    named = replace(table, images=np.array([f"images/{name}" for name in table.images], dtype=object))
    with pytest.raises(DataError, match="images are in"):
        check_validation_differs(named, table)
    elsewhere = replace(table, images=np.array([f"val/{name}" for name in table.images], dtype=object))
    patients = replace(
        elsewhere, patient_names=np.array([f"v{p}" for p in range(table.num_patients)], dtype=object)
    )
    assert check_validation_differs(patients, named) == ()
