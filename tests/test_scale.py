"""A million images: what was made linear gives what it gave before, and nothing overflows."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxrlab.data.cache_worker import RowFile, RowLayout
from cxrlab.data.duplicates.search import identical_groups, linked_groups, mostly_alike
from cxrlab.data.pixel_file import PixelFile
from cxrlab.evaluation import groups
from cxrlab.evaluation.groups import covariate_groups

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "scale.py"


@pytest.mark.slow
def test_the_benchmark_of_a_million_images_runs_at_two_thousand():
    stages = ["list", "nih", "table", "chexpert", "manifest.csv", "grouped", "folds", "audit", "near"]
    stages += ["predictions.csv", "evaluate", "page", "setup"]
    size = ["--images", "2000", "--patients", "400", "--shares", "0.5", "1"]
    done = subprocess.run(
        [sys.executable, BENCHMARK, *size, "--stages", *stages],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    table = [row for row in done.stdout.splitlines() if row.startswith("|")]
    assert len(table) == 2 + len(stages)
    assert {row.count("|") for row in table} == {8}
    assert "20 of 20 planted" in done.stderr


@pytest.mark.parametrize("seed", range(10))
def test_identical_files_are_those_of_every_digest_with_its_rows(seed):
    rng = np.random.default_rng(seed)
    digests = [f"{number}" if number else "" for number in rng.integers(0, 40, seed * 10)]
    rows: dict[str, list[int]] = {}
    for row, digest in enumerate(digests):
        rows.setdefault(digest, []).append(row)
    expected = [group for digest, group in rows.items() if digest and len(group) > 1]
    assert identical_groups(digests) == expected


def former_linked_groups(patients: list[str], links: list[tuple[int, int]]) -> list[str]:
    """By repeated passes: each group's smallest name goes to all of it until nothing changes."""
    name_of = {name: name for name in patients}
    while True:
        before = dict(name_of)
        for one, other in links:
            smallest = min(name_of[patients[one]], name_of[patients[other]])
            name_of[patients[one]] = name_of[patients[other]] = smallest
        if name_of == before:
            return [name_of[name] for name in patients]


@pytest.mark.parametrize("seed", range(10))
def test_patients_are_joined_as_passes_over_all_links_join_them(seed):
    rng = np.random.default_rng(seed)
    patients = [f"{number}" for number in rng.integers(0, 60, 300)]
    links = [(int(one), int(other)) for one, other in rng.integers(0, 300, (40, 2))]
    assert linked_groups(patients, links).tolist() == former_linked_groups(patients, links)


@pytest.mark.parametrize("seed", range(20))
def test_chains_of_most_images_are_those_of_joined_rows(seed):
    rng = np.random.default_rng(seed)
    count, num_links = int(rng.integers(1, 60)), int(rng.integers(0, 80))
    links = np.sort(rng.integers(0, count, (num_links, 2)), axis=1)
    pairs = pd.DataFrame({"one": links[:, 0], "other": links[:, 1]})
    names = pd.Series(former_linked_groups([str(row) for row in range(count)], links.tolist()))
    sizes = names.map(names.value_counts())
    expected = ((sizes > count / 2) & (sizes >= 10)).to_numpy()
    assert mostly_alike(pairs, count).tolist() == expected.tolist()


COVARIATES = {
    "words": pd.Series(["PA", " AP", "PA ", "", "unknown", None]),
    "numbers": pd.Series([1.0, 2.0, np.nan, 2.0]),
    "whole numbers": pd.Series([3, 1, 2, 1]),
    "truths": pd.Series([True, False, True]),
    "a mixture": pd.Series([1, True, "1", None, 1.0], dtype=object),
    "whole numbers, some missing": pd.Series([1, None, 2], dtype="Int64"),
    "nothing": pd.Series([np.nan, np.nan]),
    "many words": pd.Series([f"word {number % 20}" for number in range(90)]),
}


def one_by_one(values: pd.Series) -> pd.Series:
    """Every value as text, on its own."""
    return values.astype(object).where(values.notna(), "").map(lambda value: str(value).strip())


@pytest.mark.parametrize("values", COVARIATES.values(), ids=list(COVARIATES))
def test_groups_by_value_are_those_of_every_value_as_text(values, monkeypatch):
    found = covariate_groups("device", values, [0, 18])
    monkeypatch.setattr(groups, "_stripped", one_by_one)
    expected = covariate_groups("device", values, [0, 18])
    assert [group.name for group in found] == [group.name for group in expected]
    for group, before in zip(found, expected, strict=True):
        np.testing.assert_array_equal(group.members, before.members)


def test_rows_beyond_four_gibibytes_are_written_and_read(tmp_path):
    path, shape = tmp_path / "pixels.npy", (90_000, 1, 224, 224)
    np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    assert RowLayout.of(path).size > 2**32
    if 512 * path.stat().st_blocks > 2**20:
        pytest.skip("this file system writes out the holes of a file")
    beyond = 2**32 // 224**2 + 1
    images = np.random.default_rng(0).integers(0, 256, (3, *shape[1:]), dtype=np.uint8)
    rows = [beyond, shape[0] - 1, 2**31 // 224**2 + 1]
    file = RowFile(path)
    for row, image in zip(rows, images, strict=True):
        file.write(row, image.tobytes())
    file.close()
    pixels = PixelFile(path)
    np.testing.assert_array_equal(pixels[rows], images)
    assert not pixels[[0, beyond - 1, beyond + 1]].any()
    np.testing.assert_array_equal(np.load(path, mmap_mode="r")[beyond], images[0])
