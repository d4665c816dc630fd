import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrlab.data.manifest import PARTS, Manifest
from cxrlab.data.readers import nih
from cxrlab.data.splits import Split, check_no_overlap
from cxrlab.errors import ConfigError, DataError

OPTIONS = {"method": "grouped", "val_fraction": 0.1, "test_fraction": 0.2, "seed": 0}
OPTIONS |= {"fold": None, "num_folds": 5, "file": None}


def split_by(manifest, *, groups=None, **options):
    return Split(**options)(manifest, groups=groups)


def manifest(sizes, split="", seed=0):
    """Patients 1, 2, ... with so many images each, and a label on about a third of the images."""
    patients = np.repeat(np.arange(1, len(sizes) + 1), sizes).astype(str)
    table = pd.DataFrame({"image": [f"{i}.png" for i in range(len(patients))], "patient": patients})
    table["split"] = split
    table["label/Mass"] = (np.random.default_rng(seed).random(len(table)) < 0.3).astype(float)
    return Manifest(Path("/data"), table)


def parts_by_image(split):
    return dict(zip(split.table["image"], split.table["part"], strict=True))


def crossing(split):
    return int((split.table.groupby("patient")["part"].nunique() > 1).sum())


@given(
    sizes=st.lists(st.integers(1, 9), min_size=3, max_size=40),
    fractions=st.sampled_from([(0.1, 0.2), (0.25, 0.25), (0.05, 0.6)]),
    seed=st.integers(0, 99),
)
@settings(deadline=None)
def test_grouped_parts(sizes, fractions, seed):
    given_set = manifest(sizes, seed=seed)
    options = OPTIONS | {"val_fraction": fractions[0], "test_fraction": fractions[1], "seed": seed}
    split = split_by(given_set, **options)
    assert set(split.table["part"]) == set(PARTS)
    assert crossing(split) == 0
    for part, fraction in zip(PARTS, (1 - sum(fractions), *fractions), strict=True):
        # A part exceeds its share by less than the largest patient, and lacks less than two of them.
        excess = (split.table["part"] == part).sum() - fraction * sum(sizes)
        assert -2 * max(sizes) < excess < max(sizes)
    mixed = Manifest(Path("/elsewhere"), given_set.table.sample(frac=1, random_state=seed))
    again = split_by(mixed, **options)
    assert parts_by_image(again) == parts_by_image(split)
    assert again.fingerprint() == split.fingerprint()


def test_the_given_manifest_stays_unsplit():
    given_set = manifest([2] * 20)
    split_by(given_set, **OPTIONS)
    assert set(given_set.table["part"]) == {""}


@pytest.mark.parametrize(
    ("method", "seed", "fingerprint"),
    [
        ("grouped", 0, "7211d92e80ac"),
        ("grouped", 1, "b774092bf87f"),
        ("official", 0, "2bf94d3cf677"),
        ("official", 1, "a509fc3aede7"),
    ],
)
def test_a_seed_gives_the_split_that_published_numbers_stand_for(method, seed, fingerprint):
    number = np.arange(150)
    patients = number // (1 + number // 50)
    table = pd.DataFrame({"image": [f"{i:03d}.png" for i in number], "patient": [f"p{p}" for p in patients]})
    table["split"] = np.where(patients % 5 == 0, "test", "train")
    table["label/Mass"] = (number % 7 < 2).astype(float)
    table["label/Hernia"] = (number % 19 == 0).astype(float)
    given_set = Manifest(Path("/data"), table)
    options = OPTIONS | {"method": method, "seed": seed}
    assert split_by(given_set, **options).fingerprint() == fingerprint
    alone = np.array([f"group {name}" for name in given_set.table["patient"]], dtype=object)
    assert split_by(given_set, **options, groups=alone).fingerprint() == fingerprint


def test_another_seed_is_another_split():
    given_set = manifest([2] * 50)
    assert parts_by_image(split_by(given_set, **OPTIONS)) != parts_by_image(
        split_by(given_set, **OPTIONS | {"seed": 1})
    )


def test_official_parts_are_kept_as_they_are():
    split = ["train"] * 20 + ["val"] * 10 + ["test"] * 10
    given_set = manifest([2] * 20, split=split)
    assert split_by(given_set, **OPTIONS | {"method": "official"}).table["part"].tolist() == split


@given(st.integers(0, 99))
@settings(deadline=None, max_examples=20)
def test_official_validation_is_drawn_from_the_training_part(seed):
    split = ["train"] * 200 + ["test"] * 40
    drawn = split_by(manifest([4] * 60, split=split), **OPTIONS | {"method": "official", "seed": seed})
    assert drawn.table["part"].value_counts().to_dict() == {"train": 180, "test": 40, "val": 20}
    assert set(drawn.table["part"][200:]) == {"test"}
    assert crossing(drawn) == 0


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("", r"/data has no official lists or part folders\. Set data\.split\.method=grouped\."),
        (
            ["train"] * 6 + [""] * 2 + ["test"] * 2,
            r"2 of 10 images of /data are in no official part, .*'6\.png'",
        ),
        (["train"] * 9 + ["validation"], r"1 of 10 images of /data are in no official part"),
        (
            "train",
            r"no image of the official test part is in /data\. Add .*Set data\.split\.method=grouped\.",
        ),
        ("test", r"no image of the official train part is in /data"),
        (
            ["train"] * 9 + ["test"],
            r"1 patient is in both train and test: \[5\]\. Set data\.split\.method=grouped\.",
        ),
    ],
)
def test_official_parts_that_cannot_be_used_are_rejected(split, message):
    with pytest.raises(DataError, match=message):
        split_by(manifest([2] * 5, split=split), **OPTIONS | {"method": "official"})


def test_too_few_patients_are_rejected():
    with pytest.raises(DataError, match=r"2 patients of /data are too few for three parts: .*'val': 0"):
        split_by(manifest([9, 9]), **OPTIONS)
    split = ["train"] * 9 + ["test"] * 9
    with pytest.raises(DataError, match=r"2 patients of /data are too few .*'val': 0"):
        split_by(manifest([9, 9], split=split), **OPTIONS | {"method": "official"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"method": "random"},
            r"data\.split\.method=random is unknown; it is one of official, grouped, folds, file",
        ),
        ({"seed": -1}, r"data\.split\.seed=-1 must be 0 or more"),
        (
            {"fold": 2},
            r"data\.split\.fold=2 has no effect with .*method=grouped; .*set data\.split\.method=folds",
        ),
        (
            {"method": "folds"},
            r"fold=null must be .*, 0 to 4\. .*: -m data\.split\.method=folds data\.split\.fold=0,1,2,3,4",
        ),
        (
            {"method": "folds", "fold": 5},
            r"data\.split\.fold=5 must be the number of the fold to test on, 0 to 4",
        ),
        ({"method": "folds", "fold": -1}, r"data\.split\.fold=-1"),
        ({"method": "folds", "fold": 0, "num_folds": 1}, r"data\.split\.num_folds=1 must be 2 or more"),
        (
            {"method": "folds", "fold": 0, "num_folds": 2, "val_fraction": 0.5},
            r"val_fraction=0\.5 of all images leaves nothing .* data\.split\.num_folds=2; it must be below 0\.5",
        ),
        ({"method": "file"}, r"data\.split\.method=file and data\.split\.file=null do not fit"),
        ({"file": "a.csv"}, r"data\.split\.method=grouped and data\.split\.file=a\.csv do not fit"),
        ({"val_fraction": 0.0}, r"data\.split\.val_fraction=0\.0 must lie between 0 and 1"),
        ({"val_fraction": 1.0}, r"data\.split\.val_fraction=1\.0"),
        ({"test_fraction": -0.1}, r"data\.split\.test_fraction=-0\.1"),
        ({"test_fraction": float("nan")}, r"data\.split\.test_fraction=nan"),
        (
            {"val_fraction": 0.5, "test_fraction": 0.5},
            r"val_fraction=0\.5 and .*test_fraction=0\.5 leave nothing",
        ),
    ],
)
def test_options_that_make_no_sense_are_rejected(options, message):
    with pytest.raises(ConfigError, match=message):
        split_by(manifest([2] * 20), **OPTIONS | options)


def with_parts(patients, parts):
    table = pd.DataFrame({"image": [f"{i}.png" for i in range(len(parts))], "patient": patients})
    return Manifest(Path("/data"), table.assign(split="", part=parts))


def test_an_overlap_names_three_patients():
    patients = ["17", "42", "99", "100", "17", "42", "99", "5"]
    with pytest.raises(DataError) as error:
        check_no_overlap(with_parts(patients, ["train"] * 4 + ["val"] * 4))
    assert str(error.value) == (
        "3 patients are in both train and val: [17, 42, 99]. Set data.split.method=grouped."
    )
    with pytest.raises(DataError, match=r"4 patients are in both val and test: \[5, 17, 42, \.\.\.\]\."):
        check_no_overlap(with_parts(["17", "42", "99", "5"] * 2, ["val"] * 4 + ["test"] * 4))


def test_rows_without_a_part_are_named():
    with pytest.raises(DataError, match=r"1 of 3 images of /data are in none of the parts .*'1\.png'"):
        check_no_overlap(with_parts(["1", "2", "3"], ["train", "", "val"]))


def test_parts_without_overlap_pass():
    check_no_overlap(with_parts(["1", "1", "2", "3"], ["train", "train", "val", "test"]))


@pytest.fixture(scope="module")
def real_nih(real_data):
    root = real_data / "nih"
    table = nih.read_table(root / "Data_Entry_2017_v2020.csv.gz")[0]
    table.insert(2, "split", nih.read_lists(root, table["image"]))
    return Manifest(root, table)


@pytest.mark.real_data
@pytest.mark.parametrize("method", ["official", "grouped"])
def test_real_nih(real_nih, method):
    start = time.perf_counter()
    split = split_by(real_nih, **OPTIONS | {"method": method})
    print(f"{method}: {len(split)} images in {time.perf_counter() - start:.2f} s")
    counts = split.table["part"].value_counts()
    if method == "official":
        assert (counts["train"] + counts["val"], counts["test"]) == (86524, 25596)
        assert abs(counts["val"] - 8652.4) <= 1
    else:
        np.testing.assert_allclose(counts[list(PARTS)], [78484, 11212, 22424], atol=1)
    assert crossing(split) == 0
    train, val = split.part("train").targets.mean(axis=0), split.part("val").targets.mean(axis=0)
    np.testing.assert_allclose(val, train, rtol=0.03)  # Hernia has about 20 images in val


@pytest.mark.parametrize("dtype", ["str", "object"])
def test_the_data_sets_own_parts_are_left_as_they_were(dtype: str):
    table = pd.DataFrame(
        {
            "image": [f"{row}.png" for row in range(40)],
            "patient": [str(row // 2) for row in range(40)],
            "split": pd.Series(["train"] * 30 + ["test"] * 10, dtype=dtype),
            "label/Edema": [float(row % 3 == 0) for row in range(40)],
        }
    )
    manifest = Manifest(Path(), table)
    split = split_by(manifest, **OPTIONS | {"method": "official", "val_fraction": 0.2})
    assert set(split.table["part"]) == {"train", "val", "test"}
    for one in (manifest, split):
        assert one.table["split"].value_counts().to_dict() == {"train": 30, "test": 10}
