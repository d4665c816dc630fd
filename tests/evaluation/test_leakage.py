import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from cxrlab.data.manifest import Manifest
from cxrlab.errors import DataError
from cxrlab.evaluation.external_data import _is_own, _same_ids, check_not_trained_on, check_validation_differs


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


@pytest.mark.parametrize("spelling", ["1.0", "0001", " 1 ", "\uff11"])
def test_a_patient_of_training_is_known_in_any_spelling(run, spelling):
    with pytest.raises(DataError, match=r"2 of the 3 images are of 1 patients"):
        check_not_trained_on(run, ["3", spelling, "1"])


def test_validation_patients_are_known_in_any_spelling(make_predictions):
    table = make_predictions()
    several = next(p for p in range(table.num_patients) if (table.patients == p).sum() > 1)
    rows = np.flatnonzero(table.patients == several)
    first, second = table.rows(rows[:1]), table.rows(rows[1:])
    first = replace(first, patient_names=np.array(["00000013"], dtype=object))
    second = replace(second, patient_names=np.array(["13.0"], dtype=object))
    (note,) = check_validation_differs(first, second)
    assert note.startswith("1 patients are in the validation part")


def test_ids_that_another_data_set_shares_with_the_training_are_told(run, tmp_path, caplog):
    names = ["a.png", "b.png", "c.png"]
    rows = pd.DataFrame({"image": names, "patient": ["02", "3", "9"], "split": ""})
    (note,) = _same_ids(run, Manifest(tmp_path, rows), [0, 1, 2])
    assert note.startswith("1 of the 3 patients have an id that a patient of the training")
    assert "02" in caplog.text
    assert _same_ids(run, Manifest(tmp_path, rows), [1, 2]) == ()
    unknown = Manifest(tmp_path, rows.assign(image=["1", "2", "3"], patient=["1", "2", "3"]))
    assert _same_ids(run, unknown, [0, 1, 2]) == ()


def test_other_images_of_the_folder_of_the_training_are_of_its_own_data_set(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "audit.json").write_text(json.dumps({"root": str(tmp_path)}))
    seen = pd.DataFrame({"image": ["a.png"], "patient": ["1"], "part": ["train"]})
    facts = SimpleNamespace(name="first")
    run = SimpleNamespace(manifest=seen, run_dir=tmp_path / "run", facts=facts)
    rows = pd.DataFrame({"image": ["b.png", "c.png"], "patient": ["1.0", "2"], "split": ""})
    assert _is_own(run, Manifest(tmp_path, rows, name="second"), [0, 1])
    assert not _is_own(run, Manifest(tmp_path / "other", rows, name="first"), [0, 1])


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
