"""Parts by every method: a patient never crosses, and patients who are kept together stay so."""

import logging
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cxrlab.data.manifest import PARTS, Manifest
from cxrlab.data.readers import nih
from cxrlab.data.splits import Split, check_no_overlap, take_fraction, take_images
from cxrlab.data.stratify import nested_share
from cxrlab.errors import ConfigError, DataError, MissingFileError

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


FOLDS_OPTIONS = {"method": "folds", "val_fraction": 0.1, "test_fraction": 0.2, "seed": 0}
FOLDS_OPTIONS |= {"fold": 0, "num_folds": 5, "file": None}


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
    split = split_by(manifest, **FOLDS_OPTIONS | options)
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
        split_by(manifest, **FOLDS_OPTIONS)
    together = np.array(list("wwwwxxyy"), dtype=object)
    with pytest.raises(DataError, match=r"3 patients of /data are too few for data\.split\.num_folds=4"):
        split_by(manifest, **FOLDS_OPTIONS | {"num_folds": 4}, groups=together)
    with pytest.raises(DataError, match=r"too few for three parts"):
        split_by(
            manifest, **FOLDS_OPTIONS | {"num_folds": 2}, groups=np.array(list("wwwwxxxx"), dtype=object)
        )
    with pytest.raises(ValueError, match=r"Patients stand in several groups: \['b'\]"):
        split_by(
            manifest, **FOLDS_OPTIONS | {"num_folds": 2}, groups=np.array(list("wwwxxxyy"), dtype=object)
        )
    with pytest.raises(ValueError, match=r"3 groups were given for 8 images"):
        split_by(manifest, **FOLDS_OPTIONS, groups=np.array(list("wwx"), dtype=object))


FILE_OPTIONS = {"val_fraction": 0.1, "test_fraction": 0.2, "seed": 0, "fold": None, "num_folds": 5}


@pytest.fixture
def file_manifest():
    """Twenty patients of two images, with names that tables tend to spoil."""
    patients = [f"{number:03d}" for number in range(20)]
    table = pd.DataFrame({"image": [f"a, b/00{i}é.png" for i in range(40)], "patient": sorted(patients * 2)})
    return Manifest(
        Path("/data"), table.assign(split="", **{"label/Mass": [float(i % 3 == 0) for i in range(40)]})
    )


def from_file(file_manifest, path, **options):
    return split_by(file_manifest, method="file", file=str(path), **FILE_OPTIONS | options)


def written(file_manifest, path, parts):
    pd.DataFrame({"part": parts, "image": file_manifest.table["image"]}).to_csv(path, index=False)
    return path


def test_the_manifest_of_a_run_gives_the_same_split(file_manifest, tmp_path):
    earlier = split_by(file_manifest, method="grouped", file=None, **FILE_OPTIONS | {"seed": 7})
    earlier.to_csv(tmp_path / "manifest.csv")
    mixed = Manifest(Path("/data"), file_manifest.table.sample(frac=1, random_state=0))
    assert from_file(mixed, tmp_path / "manifest.csv").fingerprint() == earlier.fingerprint()


def test_other_spellings_of_a_csv_are_read(file_manifest, tmp_path):
    """A byte order mark, CRLF, a column more, and an image that stands twice with the same part."""
    parts = ["train"] * 28 + ["val"] * 4 + ["test"] * 8
    table = pd.DataFrame({"image": file_manifest.table["image"], "finding": "x", "part": parts})
    table = pd.concat([table, table.head(3)])
    table.to_csv(tmp_path / "split.csv", index=False, encoding="utf-8-sig", lineterminator="\r\n")
    assert from_file(file_manifest, tmp_path / "split.csv").table["part"].tolist() == parts


def test_validation_is_drawn_where_the_file_has_none(file_manifest, tmp_path):
    path = written(file_manifest, tmp_path / "split.csv", ["train"] * 32 + ["test"] * 8)
    parts = from_file(file_manifest, path, val_fraction=0.25).table["part"]
    assert parts[32:].tolist() == ["test"] * 8
    assert parts[:32].value_counts().to_dict() == {"train": 24, "val": 8}


def test_names_beyond_the_data_set_are_left_out_with_a_warning(file_manifest, tmp_path, caplog):
    path = written(file_manifest, tmp_path / "split.csv", ["test"] * 8 + ["train"] * 24 + ["val"] * 8)
    some = file_manifest.rows(file_manifest.table.index >= 4)
    with caplog.at_level(logging.WARNING):
        parts = from_file(some, path).table["part"]
    assert parts.tolist() == ["test"] * 4 + ["train"] * 24 + ["val"] * 8
    assert (
        f"4 of the 40 images that {path} names are not in /data, for instance ['a, b/000é.png'" in caplog.text
    )


@pytest.mark.parametrize(
    ("encoding", "separator", "columns", "words"),
    [("utf-16", ",", "image part", "train val test"), ("utf-8-sig", ";", "Image Split", "Training dev TEST"),
     ("utf-8", "\t", "image part", "train Valid testing")],
)  # fmt: skip
def test_a_table_of_parts_as_people_write_it(file_manifest, tmp_path, encoding, separator, columns, words):
    train, val, test = words.split()
    path = tmp_path / "parts.csv"
    table = file_manifest.table[["image"]].assign(part=[train] * 24 + [val] * 8 + [test] * 8)
    table.set_axis(columns.split(), axis=1).to_csv(path, index=False, sep=separator, encoding=encoding)
    assert from_file(file_manifest, path).table["part"].value_counts().to_dict() == {
        "train": 24,
        "val": 8,
        "test": 8,
    }


def test_an_image_that_the_file_does_not_name_is_rejected(file_manifest, tmp_path):
    path = tmp_path / "split.csv"
    table = file_manifest.table[["image"]].assign(part=["train"] * 24 + ["val"] * 8 + ["test"] * 8)
    table.drop([0, 5, 9, 30]).to_csv(path, index=False)
    words = r"does not name 4 of the 40 images of /data, for instance .*000é.*005é.*009é.*such as 'a, b/001é\.png'"
    with pytest.raises(DataError, match=words):
        from_file(file_manifest, path)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            ["train"] * 30 + ["holdout"] * 4 + ["test"] * 6,
            r"has the parts \['holdout'\], .*spelt train, val, test",
        ),
        (["train"] * 39 + [""], r"has the parts \[''\], for instance of \['a, b/0039é\.png'\]"),
        (["train"] * 40, r"puts no image of /data into the test part"),
        (["test"] * 40, r"puts no image of /data into the train part"),
        (["train"] * 31 + ["val"] * 5 + ["test"] * 4, r"1 patient is in both train and val: \[015\]"),
    ],
)
def test_parts_that_cannot_be_used_are_rejected(file_manifest, tmp_path, parts, message):
    with pytest.raises(DataError, match=message):
        from_file(file_manifest, written(file_manifest, tmp_path / "split.csv", parts))


def test_a_validation_part_of_absent_images_is_not_drawn_anew(file_manifest, tmp_path):
    path = written(file_manifest, tmp_path / "split.csv", ["val"] * 4 + ["train"] * 28 + ["test"] * 8)
    with pytest.raises(DataError, match=r"puts no image of /data into the val part"):
        from_file(file_manifest.rows(file_manifest.table.index >= 4), path)


def test_an_image_in_two_parts_is_rejected(file_manifest, tmp_path):
    path = tmp_path / "split.csv"
    table = file_manifest.table[["image"]].assign(part=["train"] * 24 + ["val"] * 8 + ["test"] * 8)
    pd.concat([table, table.head(1).assign(part="test")]).to_csv(path, index=False)
    with pytest.raises(DataError, match=r"puts 1 images into two parts: \['a, b/000é\.png'\]"):
        from_file(file_manifest, path)


def test_files_that_are_no_such_table_are_rejected(file_manifest, tmp_path):
    path = tmp_path / "split.csv"
    with pytest.raises(MissingFileError, match=r"data\.split\.file=.*split\.csv is no file"):
        from_file(file_manifest, path)
    with pytest.raises(MissingFileError, match=r"such as the manifest\.csv of a run directory"):
        from_file(file_manifest, tmp_path)
    path.write_text("image,set\na.png,train\n")
    with pytest.raises(DataError, match=r"lacks the columns \['part'\]; it has \['image', 'set'\]"):
        from_file(file_manifest, path)
    for content in (b"", b"\x89PNG\r\n\x1a\n\xff\xfe\x00", b'image,part\n"a.png,train\n'):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"The table .*split\.csv cannot be read|split\.csv ends within"):
            from_file(file_manifest, path)


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


@given(
    st.lists(st.integers(1, 9), min_size=10, max_size=40),
    st.tuples(st.integers(2, 60), st.integers(2, 60)).map(sorted),
    st.booleans(),
    st.integers(0, 9),
)
@settings(deadline=None, max_examples=50)
def test_a_number_of_images_is_exact_and_among_those_of_a_larger_one(sizes, counts, equal_classes, seed):
    given_set = split_set(sizes)
    mixed = Manifest(Path("/data"), given_set.table.sample(frac=1, random_state=seed))
    training = given_set.part("train").table
    options = {"equal_classes": equal_classes, "seed": seed}
    small, large = (take_images(given_set, count=count, **options) for count in counts)
    assert take_images(mixed, count=counts[0], **options).fingerprint() == small.fingerprint()
    assert set(small.table["image"]) <= set(large.table["image"])
    for taken, count in ((small, counts[0]), (large, counts[1])):
        others = taken.table["part"] != "train"
        assert others.sum() == (given_set.table["part"] != "train").sum()
        labels = taken.table["label/Mass"][~others]
        if equal_classes and training["label/Mass"].nunique() == 2:
            for label, share in ((0, (count + 1) // 2), (1, count // 2)):
                assert (labels == label).sum() == min(share, (training["label/Mass"] == label).sum())
        elif not equal_classes:
            assert len(labels) == min(count, len(training))
            # Whole patients, but for the last one.
            there = taken.table["patient"][~others].value_counts()
            assert (there < training["patient"].value_counts()[there.index]).sum() <= 1


def test_equal_classes_need_classes():
    several = split_set([2] * 20)
    several = Manifest(several.root, several.table.assign(**{"label/Nodule": 0.0}))
    with pytest.raises(ConfigError, match="each image with one of the labels"):
        take_images(several, count=10, equal_classes=True, seed=0)
    exclusive = several.table.assign(**{"label/Nodule": 1 - several.table["label/Mass"]})
    taken = take_images(Manifest(several.root, exclusive), count=10, equal_classes=True, seed=0)
    assert taken.part("train").table["label/Nodule"].sum() == 5


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
