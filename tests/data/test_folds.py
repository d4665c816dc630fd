"""Folds of patients, and patients who are kept together."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrlab.data.manifest import PARTS, Manifest
from cxrlab.data.splits import Split
from cxrlab.errors import DataError

OPTIONS = {"method": "folds", "val_fraction": 0.1, "test_fraction": 0.2, "seed": 0}
OPTIONS |= {"fold": 0, "num_folds": 5, "file": None}


def split_by(manifest, *, groups=None, **options):
    return Split(**options)(manifest, groups=groups)


@st.composite
def data_sets(draw, min_groups):
    """Patients of 1 to 9 images in groups of 1 to 3 patients; a frequent label, a rare one, some unknown."""
    sizes = draw(
        st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=3), min_size=min_groups, max_size=25)
    )
    of_patient = np.repeat(np.arange(len(sizes)), [len(group) for group in sizes])
    patients = np.repeat(np.arange(len(of_patient)), np.concatenate(sizes))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    table = pd.DataFrame(
        {"image": [f"{i}.png" for i in range(len(patients))], "patient": patients.astype(str)}
    )
    table["split"] = np.where(of_patient[patients] % 3 == 0, "test", "train")
    table["label/Mass"] = rng.choice([0.0, 1.0, np.nan], len(table), p=[0.6, 0.3, 0.1])
    table["label/Hernia"] = (rng.random(len(table)) < 0.03).astype(float)
    groups = np.array([f"group {group}" for group in of_patient[patients]], dtype=object)
    return Manifest(Path("/data"), table), groups


def parts_of(manifest, **options):
    split = split_by(manifest, **OPTIONS | options)
    assert set(split.table["part"]) == set(PARTS)
    assert split.table["image"].tolist() == manifest.table["image"].tolist()
    return split.table["part"].to_numpy(dtype=object)


@given(data_sets(min_groups=6), st.integers(3, 5), st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_the_folds_hold_every_image_once_and_part_no_group(drawn, num_folds, seed):
    manifest, groups = drawn
    largest = max(np.unique(groups, return_counts=True)[1])
    options = {"num_folds": num_folds, "seed": seed, "groups": groups}
    tested = np.zeros(len(manifest), dtype=int)
    for fold in range(num_folds):
        parts = parts_of(manifest, fold=fold, **options)
        tested += parts == "test"
        assert all(len(set(parts[groups == name])) == 1 for name in set(groups))
        # The test part is a k-th up to whole groups, and so is validation its share of the rest.
        excess = (parts == "test").sum() - len(parts) / num_folds
        assert -(num_folds - 1) * largest < excess < largest
        share = 0.1 / (1 - 1 / num_folds)
        assert abs((parts == "val").sum() - share * (parts != "test").sum()) < largest
    assert (tested == 1).all()


@given(data_sets(min_groups=6), st.integers(0, 4), st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_the_order_of_rows_and_the_names_of_groups_have_no_influence(drawn, fold, seed):
    manifest, groups = drawn
    parts = parts_of(manifest, fold=fold, seed=seed, groups=groups)
    order = np.random.default_rng(seed).permutation(len(manifest))
    mixed = Manifest(Path("/data"), manifest.table.iloc[order])
    renamed = np.array([name[::-1] for name in groups[order]], dtype=object)
    np.testing.assert_array_equal(parts_of(mixed, fold=fold, seed=seed, groups=renamed), parts[order])


@given(data_sets(min_groups=6), st.sampled_from(["grouped", "official", "folds"]), st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_what_is_drawn_parts_no_group(drawn, method, seed):
    manifest, groups = drawn
    fold = 1 if method == "folds" else None
    parts = parts_of(manifest, method=method, fold=fold, seed=seed, groups=groups)
    assert all(len(set(parts[groups == name])) == 1 for name in set(groups))


def test_given_parts_stay_though_a_group_lies_on_both_sides():
    """Patients 0 and 39 share an image: the official parts are kept, and validation is drawn by group."""
    patients = np.repeat(np.arange(40), 2).astype(str)
    table = pd.DataFrame({"image": [f"{i}.png" for i in range(80)], "patient": patients})
    table["split"] = np.where(np.arange(80) < 60, "train", "test")
    table["label/Mass"] = np.arange(80) % 3 == 0
    groups = np.where(np.isin(patients, ["0", "39"]), "same", patients).astype(object)
    manifest = Manifest(Path("/data"), table.astype({"label/Mass": float}))
    parts = parts_of(manifest, method="official", fold=None, groups=groups)
    assert set(parts[:60]) == {"train", "val"}
    assert set(parts[60:]) == {"test"}


@pytest.mark.parametrize("num_folds", [5, 10])
def test_folds_agree_in_their_labels(num_folds):
    """2,000 patients of geometric size: every label in every fold within a patient's images or 2 percent."""
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(2000), rng.geometric(0.3, 2000)).astype(str)
    table = pd.DataFrame(
        {"image": [f"{i}.png" for i in range(len(patients))], "patient": patients, "split": ""}
    )
    for prevalence in (0.005, 0.02, 0.1, 0.3):
        prone = rng.random(2000) < 2 * prevalence
        table[f"label/{prevalence}"] = (prone[patients.astype(int)] & (rng.random(len(table)) < 0.5)).astype(
            float
        )
    manifest = Manifest(Path("/data"), table)
    largest = pd.DataFrame(manifest.targets).groupby(patients).sum().max().to_numpy()
    for fold in range(num_folds):
        test = manifest.rows(pd.Series(parts_of(manifest, fold=fold, num_folds=num_folds) == "test"))
        assert abs(len(test) - len(manifest) / num_folds) < 1.5
        expected = manifest.targets.sum(axis=0) / num_folds
        excess = np.abs(test.targets.sum(axis=0) - expected)
        assert (excess <= np.maximum(0.02 * expected, largest)).all()


def test_too_few_patients_and_groups_that_part_patients_are_rejected():
    table = pd.DataFrame({"image": [f"{i}.png" for i in range(8)], "patient": list("aabbccdd"), "split": ""})
    manifest = Manifest(Path("/data"), table.assign(**{"label/Mass": [0.0, 1.0] * 4}))
    with pytest.raises(DataError, match=r"4 patients of /data are too few for data\.split\.num_folds=5"):
        split_by(manifest, **OPTIONS)
    together = np.array(list("wwwwxxyy"), dtype=object)
    with pytest.raises(DataError, match=r"3 patients of /data are too few for data\.split\.num_folds=4"):
        split_by(manifest, **OPTIONS | {"num_folds": 4}, groups=together)
    with pytest.raises(DataError, match=r"too few for three parts"):
        split_by(manifest, **OPTIONS | {"num_folds": 2}, groups=np.array(list("wwwwxxxx"), dtype=object))
    with pytest.raises(ValueError, match=r"Patients stand in several groups: \['b'\]"):
        split_by(manifest, **OPTIONS | {"num_folds": 2}, groups=np.array(list("wwwxxxyy"), dtype=object))
    with pytest.raises(ValueError, match=r"3 groups were given for 8 images"):
        split_by(manifest, **OPTIONS, groups=np.array(list("wwx"), dtype=object))
