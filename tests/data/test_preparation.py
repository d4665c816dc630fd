import json
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrlab.data import dataset
from cxrlab.data.audit import AuditReport
from cxrlab.data.cache import CacheSettings
from cxrlab.data.dataset import (
    Copies,
    Images,
    audit_dataset,
    cached,
    find_copies,
    without_unreadable,
)
from cxrlab.data.decode import decode
from cxrlab.data.duplicates.hashing import HASH_WORDS
from cxrlab.data.manifest import Manifest
from cxrlab.errors import DataError

SETTINGS = CacheSettings(image_size=32, channels=1, resize="stretch")
MakeImages = Callable[..., Path]


def manifest_of(root: Path, numbers: list[int], **changes: Any) -> Manifest:
    """One patient an image; every second one is ill."""
    table = pd.DataFrame(
        {
            "image": [f"{number:03d}.png" for number in numbers],
            "patient": [f"P{number}" for number in numbers],
            "split": "",
            "label/Edema": [float(number % 2) for number in numbers],
        }
    )
    return Manifest(root, table, name="planted", **changes)


def images_of(manifest: Manifest, cache_dir: Path, files: list[str] | None = None) -> Images:
    files = files or manifest.table["image"].tolist()
    return cached(manifest, SETTINGS, cache_dir=cache_dir, num_workers=0, files=files)


def all_files(root: Path) -> list[str]:
    return sorted(path.name for path in root.glob("*.png"))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each filling of a cache has decoded."""
    numbers: list[int] = []
    fill = dataset.fill

    def counted(*args: Any, **options: Any) -> int:
        numbers.append(fill(*args, **options))
        return numbers[-1]

    monkeypatch.setattr(dataset, "fill", counted)
    return numbers


def no(what: str) -> Callable[..., Any]:
    return lambda *_, **__: pytest.fail(f"{what} once more")


def test_images_stand_in_the_order_of_the_manifest(make_images: MakeImages, tmp_path: Path):
    root = make_images(6)
    images = images_of(manifest_of(root, [4, 0, 3]), tmp_path / "cache", all_files(root))
    assert len(images) == 3
    assert images.positions.tolist() == [4, 0, 3]
    expected = {
        n: decode(root / f"{n:03d}.png", image_size=32, channels=1, resize="stretch") for n in (4, 0, 3)
    }
    np.testing.assert_array_equal(images[[0, 1, 2]], np.stack([expected[4], expected[0], expected[3]]))
    np.testing.assert_array_equal(images[np.array([2, 2])], np.stack([expected[3]] * 2))
    assert images[[0]].shape == (1, 1, 32, 32)
    assert images.hashes.shape == (3, HASH_WORDS)
    assert (images.facts["width"] == 48).all()
    left = images.select(np.array([True, False, True]))
    np.testing.assert_array_equal(left[[1]][0], expected[3])
    assert left.facts["digest"].tolist() == images.facts["digest"][[0, 2]].tolist()


def test_every_choice_of_images_shares_one_cache(make_images: MakeImages, tmp_path: Path, decoded: list[int]):
    root = make_images(10)
    files = all_files(root)
    few = images_of(manifest_of(root, [1, 2]), tmp_path / "cache", files)
    more = images_of(manifest_of(root, [2, 7, 1]), tmp_path / "cache", files)
    whole = images_of(manifest_of(root, list(range(10))), tmp_path / "cache", files)
    assert decoded == [2, 1, 7]
    assert few.cache.folder == more.cache.folder == whole.cache.folder
    np.testing.assert_array_equal(more[[2]], few[[0]])
    np.testing.assert_array_equal(more[[0]], whole[[2]])


def test_a_file_that_changes_is_decoded_again(make_images: MakeImages, tmp_path: Path, decoded: list[int]):
    root = make_images(4)
    before = images_of(manifest_of(root, [0, 1, 2, 3]), tmp_path / "cache")[[2]]
    Image.new("L", (48, 48), 7).save(root / "002.png")
    os.utime(root / "002.png", ns=(1, 1))
    after = images_of(manifest_of(root, [0, 1, 2, 3]), tmp_path / "cache")[[2]]
    assert decoded == [4, 4]
    assert (after == 7).all()
    assert not (before == 7).all()


def test_copies_follow_the_rows_that_are_left():
    pairs = pd.DataFrame({"one": [0, 3, 2], "other": [1, 5, 4], "distance": [7, 8, 9]})
    copies = Copies([[0, 2, 5], [1, 4]], pairs)
    left = copies.select(np.array([False, True, True, True, False, True]))
    assert left.identical == [[1, 3]]
    assert left.pairs.to_dict("list") == {"one": [2], "other": [3], "distance": [8]}
    nothing = copies.select(np.zeros(6, dtype=bool))
    assert nothing.identical == []
    assert nothing.pairs.empty
    assert list(nothing.pairs) == list(pairs)


def test_copies_that_are_left_are_the_same_images_as_before():
    rng = np.random.default_rng(0)
    names = np.array([f"{number}.png" for number in range(60)])
    rows = rng.permutation(60).tolist()
    groups = [rows[:5], rows[5:8], rows[8:10]]
    ones = rng.integers(0, 59, 40)
    pairs = pd.DataFrame({"one": ones, "other": rng.integers(ones + 1, 60)})
    for share in (0.2, 0.5, 0.9, 1.0):
        mask = rng.random(60) < share
        kept = set(names[mask])
        left = Copies(groups, pairs).select(mask)
        expected = [kept & set(names[group]) for group in groups]
        assert [set(names[mask][group]) for group in left.identical] == [
            one for one in expected if len(one) > 1
        ]
        named = [tuple(names[list(pair)]) for pair in pairs.itertuples(index=False)]
        found = [tuple(names[mask][list(pair)]) for pair in left.pairs.itertuples(index=False)]
        assert found == [pair for pair in named if kept.issuperset(pair)]


def test_patients_who_share_an_image_are_one_group(tmp_path: Path):
    manifest = manifest_of(tmp_path, list(range(7)))
    copies = Copies([[4, 1, 2]], pd.DataFrame({"one": [0, 2], "other": [3, 5]}))
    assert copies.groups(manifest).tolist() == ["P0", "P1", "P1", "P0", "P1", "P1", "P6"]
    none = Copies([], pd.DataFrame({"one": [], "other": []}))
    assert none.groups(manifest).tolist() == [f"P{number}" for number in range(7)]


def broken(root: Path, *numbers: int) -> None:
    for number in numbers:
        (root / f"{number:03d}.png").write_bytes(b"no image")


def test_all_images_are_read_and_none_is_left_out(make_images: MakeImages, tmp_path: Path):
    manifest = manifest_of(make_images(3), [0, 1, 2])
    images = images_of(manifest, tmp_path / "cache")
    dataset = without_unreadable(manifest, images, "raise")
    assert dataset.manifest is manifest
    assert dataset.images is images
    assert len(dataset.unreadable) == 0
    assert dataset.unreadable.report.to_dict("list") == {"image": [], "error": []}


def test_unreadable_images_are_left_out_and_listed(make_images: MakeImages, tmp_path: Path, caplog):
    root = make_images(6)
    broken(root, 1, 4)
    manifest = manifest_of(root, [5, 4, 2, 1])
    images = images_of(manifest, tmp_path / "cache", all_files(root))
    with caplog.at_level(logging.WARNING, logger="cxrlab"):
        dataset = without_unreadable(manifest, images, "skip")
    unreadable = dataset.unreadable
    assert dataset.manifest.table["image"].tolist() == ["005.png", "002.png"]
    assert dataset.images.positions.tolist() == [5, 2]
    assert len(unreadable) == 2
    assert unreadable.table["patient"].tolist() == ["P4", "P1"]
    assert list(unreadable.report) == ["image", "error"]
    assert unreadable.report["image"].tolist() == ["004.png", "001.png"]
    for name, error in unreadable.report.itertuples(index=False):
        assert f"{name} (8 bytes) cannot be read" in error
    assert "2 of 4 images cannot be read" in caplog.text
    assert "listed in unreadable.csv" in caplog.text


def test_unreadable_images_stop_where_they_must_not_be(make_images: MakeImages, tmp_path: Path):
    root = make_images(8)
    broken(root, *range(7))
    manifest = manifest_of(root, list(range(8)))
    images = images_of(manifest, tmp_path / "cache")
    with pytest.raises(DataError, match=r"7 of 8 images cannot be read.*data.on_unreadable=skip") as caught:
        without_unreadable(manifest, images, "raise")
    named = [number for number in range(8) if f"{number:03d}.png" in str(caught.value)]
    assert named == [0, 1, 2, 3, 4]
    of_broken = manifest.rows(manifest.table["image"] != "007.png")
    with pytest.raises(DataError, match=r"7 of 7 images cannot be read"):
        without_unreadable(of_broken, images.select(np.arange(8) < 7), "skip")


@pytest.fixture
def with_copies(make_images: MakeImages, tmp_path: Path) -> tuple[Manifest, Images]:
    """Six images: 0 and 3 have the same bytes, 4 is 1 in another size, and all others are unlike."""
    root = make_images(6)
    rng = np.random.default_rng(1)
    fields = rng.integers(0, 256, (6, 8, 8), dtype=np.uint8)  # coarse enough that a resize keeps them
    for number, field in enumerate(fields):
        picture = Image.fromarray(field).resize((64, 64), Image.Resampling.BICUBIC)
        picture.save(root / f"{number:03d}.png")
    (root / "003.png").write_bytes((root / "000.png").read_bytes())
    Image.open(root / "001.png").resize((96, 96), Image.Resampling.BICUBIC).save(root / "004.png")
    manifest = manifest_of(root, list(range(6)))
    return manifest, images_of(manifest, tmp_path / "cache")


Fixed = tuple[Manifest, Images]


def test_copies_are_found_once_and_kept_beside_the_cache(with_copies: Fixed, monkeypatch):
    _, images = with_copies
    first = find_copies(images)
    assert first.identical == [[0, 3]]
    assert first.pairs[["one", "other"]].to_numpy().tolist() == [[1, 4]]
    assert len(list(images.cache.folder.glob("pairs-*.csv"))) == 1
    with monkeypatch.context() as patch:
        patch.setattr(dataset, "find_near_duplicates", no("they were looked for"))
        again = find_copies(Images(images.cache, images.positions))
    assert again.identical == first.identical
    pd.testing.assert_frame_equal(again.pairs, first.pairs, check_dtype=False)
    few = find_copies(images.select(np.array([False, True, False, False, True, True])))
    assert few.pairs[["one", "other"]].to_numpy().tolist() == [[0, 1]]
    assert few.identical == []


def test_that_there_are_no_copies_is_kept_too(make_images: MakeImages, tmp_path: Path, monkeypatch):
    manifest = manifest_of(make_images(4), [0, 1, 2, 3])
    images = images_of(manifest, tmp_path / "cache")
    assert find_copies(images).pairs.empty
    monkeypatch.setattr(dataset, "find_near_duplicates", no("they were looked for"))
    again = find_copies(images)
    assert again.pairs.empty
    assert again.select(np.array([True, False, True, True])).pairs.empty
    assert again.groups(manifest).tolist() == ["P0", "P1", "P2", "P3"]


def test_a_cache_that_cannot_be_written_is_only_slower(with_copies: Fixed, monkeypatch):
    manifest, images = with_copies

    def read_only(path: Path, text: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(dataset, "write_text", read_only)
    copies = find_copies(images)
    assert copies.identical == [[0, 3]]
    whole = replace(without_unreadable(manifest, images, "raise"), copies=copies)
    assert audit_dataset(whole).data.images == 6
    assert not list(images.cache.folder.glob("pairs-*")) + list(images.cache.folder.glob("audit-*"))


def audited(manifest: Manifest, images: Images) -> AuditReport:
    dataset = without_unreadable(manifest, images, "skip")
    return audit_dataset(replace(dataset, copies=find_copies(dataset.images)))


def kinds(report: AuditReport) -> dict[str, int]:
    return {finding.kind: finding.count for finding in report.findings}


def test_the_audit_says_where_the_images_are_and_is_kept_without_that(with_copies: Fixed, monkeypatch):
    manifest, images = with_copies
    first = audited(manifest, images)
    assert first.root == str(manifest.root)
    (path,) = images.cache.folder.glob("audit-*.json")
    kept = AuditReport.from_json(json.loads(path.read_text()))
    assert kept.root == ""
    monkeypatch.setattr(dataset, "audit", no("it was made"))
    assert audited(manifest, images) == first == replace(kept, root=first.root)


def test_another_part_or_label_is_another_audit(with_copies: Fixed):
    manifest, images = with_copies
    first = audited(manifest, images)
    parts = manifest.table.assign(part=["train", "train", "val", "val", "test", "test"])
    split = audited(replace(manifest, table=parts), images)
    assert [counts.part for counts in first.parts] == ["all"]
    assert [counts.part for counts in split.parts] == ["train", "val", "test"]
    labels = manifest.table.assign(**{"label/Edema": 0.0})
    assert kinds(audited(replace(manifest, table=labels), images)) != kinds(first)
    assert audited(replace(manifest, num_listed=9), images).data.listed == 9
    assert len(list(images.cache.folder.glob("audit-*.json"))) == 4


def test_what_was_listed_has_its_part_in_the_audit(with_copies: Fixed):
    """Also names of columns, and values that stand nowhere in the manifest."""
    manifest, images = with_copies
    raw = pd.DataFrame({"image": manifest.table["image"], "age": 40.0})
    sexes = manifest.table.assign(**{"covariate/sex": ["F", "M"] * 3})
    changes = (
        {"extra": ("new.png",)},
        {"missing": ("a.png",), "num_listed": 7},
        {"missing": ("b.png",), "num_listed": 7},
        {"raw": raw},
        {"raw": raw.assign(age=[411.0] + [40.0] * 5)},
        {"table": sexes},
        {"table": sexes.rename(columns={"covariate/sex": "covariate/view"})},
    )
    for one in changes:
        audited(replace(manifest, **one), images)
    assert len(list(images.cache.folder.glob("audit-*.json"))) == len(changes)


def test_the_audit_counts_what_could_not_be_read(make_images: MakeImages, tmp_path: Path):
    root = make_images(6)
    broken(root, 2)
    manifest = manifest_of(root, list(range(6)))
    report = audited(manifest, images_of(manifest, tmp_path / "cache"))
    assert report.data.images == 6
    (found,) = (finding for finding in report.findings if finding.kind == "unreadable")
    assert (found.count, found.images) == (1, ["002.png"])
