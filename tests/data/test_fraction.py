"""Learning curves: part of the training patients."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cxrlab.data.manifest import Manifest
from cxrlab.data.splits import take_fraction
from cxrlab.data.stratify import nested_share
from cxrlab.errors import ConfigError


def split_set(sizes, seed=0):
    """Patients of so many images, seven in ten of them for training; patient 0 has a box on each image."""
    patients = np.repeat(np.arange(len(sizes)), sizes)
    table = pd.DataFrame(
        {"image": [f"{i}.png" for i in range(len(patients))], "patient": patients.astype(str)}
    )
    table["split"] = ""
    table["part"] = np.array(["train"] * 7 + ["val", "test", "test"])[patients % 10]
    table["label/Mass"] = (np.random.default_rng(seed).random(len(table)) < 0.3).astype(float)
    boxes = table[["image"]].assign(label="Mass", x=0.1, y=0.1, width=0.2, height=0.2)
    return Manifest(Path("/data"), table, boxes=boxes)


def patients_of(manifest, part="train"):
    return set(manifest.part(part).table["patient"])


@given(
    st.lists(st.integers(1, 9), min_size=10, max_size=40),
    st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted),
    st.integers(0, 99),
)
@settings(deadline=None)
def test_a_fraction_is_whole_patients_and_among_those_of_a_larger_one(sizes, fractions, seed):
    given_set = split_set(sizes)
    total = len(patients_of(given_set))
    small, large = (take_fraction(given_set, fraction=fraction, seed=seed) for fraction in fractions)
    assert patients_of(small) <= patients_of(large) <= patients_of(given_set)
    for taken, fraction in ((small, fractions[0]), (large, fractions[1])):
        assert abs(len(patients_of(taken)) - fraction * total) <= 0.5
        whole = given_set.table["patient"].isin(patients_of(taken)) | (given_set.table["part"] != "train")
        assert taken.table["image"].tolist() == given_set.table["image"][whole].tolist()
        assert taken.boxes["image"].tolist() == taken.table["image"].tolist()


@given(st.lists(st.integers(1, 9), min_size=10, max_size=40), st.floats(0.01, 1), st.integers(0, 99))
@settings(deadline=None, max_examples=50)
def test_the_order_of_rows_and_a_name_for_each_patient_have_no_influence(sizes, fraction, seed):
    given_set = split_set(sizes)
    taken = take_fraction(given_set, fraction=fraction, seed=seed)
    mixed = Manifest(Path("/data"), given_set.table.sample(frac=1, random_state=seed))
    names = np.array([f"group {name}" for name in mixed.table["patient"]], dtype=object)
    again = take_fraction(mixed, fraction=fraction, seed=seed, groups=names)
    assert again.fingerprint() == taken.fingerprint()


@given(st.integers(1, 20), st.floats(0.01, 1), st.integers(0, 99), st.data())
@settings(deadline=None, max_examples=50)
def test_groups_stay_whole(num_groups, fraction, seed, data):
    codes = data.draw(arrays.arrays(np.int64, 40, elements=st.integers(0, num_groups - 1)))
    groups = codes.astype(str).astype(object)
    drawn = nested_share(groups, (np.arange(40) % 3 == 0).astype(np.float32)[:, None], fraction, seed)
    kept, left = set(groups[drawn]), set(groups[~drawn])
    assert not kept & left
    assert len(kept) == round(fraction * len(kept | left))


def test_all_is_the_manifest_itself_and_another_seed_takes_other_patients():
    given_set = split_set([2] * 100)
    assert take_fraction(given_set, fraction=1.0, seed=0) is given_set
    one, other = (take_fraction(given_set, fraction=0.5, seed=seed) for seed in (0, 1))
    assert len(patients_of(one)) == len(patients_of(other)) == 35
    assert 8 < len(patients_of(one) & patients_of(other)) < 28
    assert len(given_set.table) == 200


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.6])
def test_labels_keep_their_prevalence(seed, fraction):
    """3,000 patients of geometric size, ten labels of 0.5 to 30 percent that run in patients."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(3000), rng.geometric(0.3, 3000))
    prone = rng.random((3000, 10)) < 2 * np.geomspace(0.005, 0.3, 10)
    targets = (prone[groups] & (rng.random((len(groups), 10)) < 0.5)).astype(np.float32)
    drawn = nested_share(groups.astype(str).astype(object), targets, fraction, seed)
    assert len(set(groups[drawn])) == round(3000 * fraction)
    # Within 4 percent of the images, and 3 positives or 5 percent: chance alone scatters by some 10 percent.
    assert drawn.mean() == pytest.approx(fraction, rel=0.04)
    np.testing.assert_allclose(targets[drawn].sum(axis=0), fraction * targets.sum(axis=0), rtol=0.05, atol=3)


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.1, float("nan")])
def test_a_fraction_that_makes_no_sense_is_rejected(fraction):
    with pytest.raises(ConfigError, match=rf"data\.fraction={fraction} must lie above 0, and be at most 1"):
        take_fraction(split_set([1] * 20), fraction=fraction, seed=0)
