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
from cxrlab.data.boxes import framed
from cxrlab.data.cache import CacheSettings
from cxrlab.data.dataset import (
    Copies,
    FileImages,
    Images,
    audit_dataset,
    cached,
    find_copies,
    image_files,
    manifest_of,
    without_unreadable,
)
from cxrlab.data.decode import decode
from cxrlab.data.duplicates.hashing import HASH_WORDS
from cxrlab.data.manifest import Manifest
from cxrlab.errors import ConfigError, DataError, MissingFileError

SETTINGS = CacheSettings(image_size=64, channels=1, resize="stretch")
MakeImages = Callable[..., Path]


def numbered_manifest(root: Path, numbers: list[int], **changes: Any) -> Manifest:
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
    images = images_of(numbered_manifest(root, [4, 0, 3]), tmp_path / "cache", all_files(root))
    assert len(images) == 3
    assert images.positions.tolist() == [4, 0, 3]
    expected = {
        n: decode(root / f"{n:03d}.png", image_size=64, channels=1, resize="stretch") for n in (4, 0, 3)
    }
    np.testing.assert_array_equal(images[[0, 1, 2]], np.stack([expected[4], expected[0], expected[3]]))
    np.testing.assert_array_equal(images[np.array([2, 2])], np.stack([expected[3]] * 2))
    assert images[[0]].shape == (1, 1, 64, 64)
    assert images.hashes.shape == (3, HASH_WORDS)
    assert (images.facts["width"] == 48).all()
    left = images.select(np.array([True, False, True]))
    np.testing.assert_array_equal(left[[1]][0], expected[3])
    assert left.facts["digest"].tolist() == images.facts["digest"][[0, 2]].tolist()


def test_every_choice_of_images_shares_one_cache(make_images: MakeImages, tmp_path: Path, decoded: list[int]):
    root = make_images(10)
    files = all_files(root)
    few = images_of(numbered_manifest(root, [1, 2]), tmp_path / "cache", files)
    more = images_of(numbered_manifest(root, [2, 7, 1]), tmp_path / "cache", files)
    whole = images_of(numbered_manifest(root, list(range(10))), tmp_path / "cache", files)
    assert decoded == [2, 1, 7]
    assert few.cache.folder == more.cache.folder == whole.cache.folder
    np.testing.assert_array_equal(more[[2]], few[[0]])
    np.testing.assert_array_equal(more[[0]], whole[[2]])


def test_a_file_that_changes_is_decoded_again(make_images: MakeImages, tmp_path: Path, decoded: list[int]):
    root = make_images(4)
    before = images_of(numbered_manifest(root, [0, 1, 2, 3]), tmp_path / "cache")[[2]]
    Image.new("L", (48, 48), 7).save(root / "002.png")
    os.utime(root / "002.png", ns=(1, 1))
    after = images_of(numbered_manifest(root, [0, 1, 2, 3]), tmp_path / "cache")[[2]]
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
    manifest = numbered_manifest(tmp_path, list(range(7)))
    copies = Copies([[4, 1, 2]], pd.DataFrame({"one": [0, 2], "other": [3, 5]}))
    assert copies.groups(manifest).tolist() == ["P0", "P1", "P1", "P0", "P1", "P1", "P6"]
    none = Copies([], pd.DataFrame({"one": [], "other": []}))
    assert none.groups(manifest).tolist() == [f"P{number}" for number in range(7)]


def broken(root: Path, *numbers: int) -> None:
    for number in numbers:
        (root / f"{number:03d}.png").write_bytes(b"no image")


def test_all_images_are_read_and_none_is_left_out(make_images: MakeImages, tmp_path: Path):
    manifest = numbered_manifest(make_images(3), [0, 1, 2])
    images = images_of(manifest, tmp_path / "cache")
    dataset = without_unreadable(manifest, images, "raise")
    assert dataset.manifest is manifest
    assert dataset.images is images
    assert len(dataset.unreadable) == 0
    assert dataset.unreadable.report.to_dict("list") == {"image": [], "error": []}


def test_unreadable_images_are_left_out_and_listed(make_images: MakeImages, tmp_path: Path, caplog):
    root = make_images(6)
    broken(root, 1, 4)
    manifest = numbered_manifest(root, [5, 4, 2, 1])
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
    manifest = numbered_manifest(root, list(range(8)))
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
    manifest = numbered_manifest(root, list(range(6)))
    return manifest, images_of(manifest, tmp_path / "cache")


Fixed = tuple[Manifest, Images]


def test_copies_are_found_once_and_kept_beside_the_cache(with_copies: Fixed, monkeypatch):
    _, images = with_copies
    first = find_copies(images)
    assert first.identical == [[0, 3]]
    assert first.pairs[["one", "other"]].to_numpy().tolist() == [[1, 4]]
    assert len(list(images.cache.folder.glob("pairs-*.kept"))) == 1
    with monkeypatch.context() as patch:
        patch.setattr(dataset, "find_near_duplicates", no("they were looked for"))
        again = find_copies(Images(images.cache, images.positions))
    assert again.identical == first.identical
    pd.testing.assert_frame_equal(again.pairs, first.pairs, check_dtype=False)
    few = find_copies(images.select(np.array([False, True, False, False, True, True])))
    assert few.pairs[["one", "other"]].to_numpy().tolist() == [[0, 1]]
    assert few.identical == []


def test_small_images_are_compared_by_their_bytes_only(with_copies: Fixed, tmp_path: Path, caplog):
    manifest, images = with_copies
    small = cached(
        manifest, replace(SETTINGS, image_size=63), cache_dir=tmp_path / "small", num_workers=0,
        files=list(images.cache.files),
    )  # fmt: skip
    found = find_copies(small)
    assert found.identical == [[0, 3]]
    assert found.pairs.empty
    assert "data.image_size=63: near-identical images are looked for from 64 pixels on" in caplog.text


def test_images_that_are_mostly_alike_are_no_copies(caplog):
    table = pd.DataFrame(
        {"image": [f"{row}.png" for row in range(15)], "patient": [f"P{row}" for row in range(15)],
         "split": "", "label/Edema": 0.0}
    )  # fmt: skip
    chain = pd.DataFrame({"one": range(11), "other": range(1, 12)})  # twelve images that failed alike
    pairs = pd.concat([chain, pd.DataFrame({"one": [12], "other": [13]})], ignore_index=True)
    groups = Copies([], pairs).groups(Manifest(Path(), table))
    assert len(set(groups)) == 14
    assert groups[12] == groups[13]
    assert "12 of 15 images are near-identical to one another: they were decoded wrongly" in caplog.text
    few = Copies([], pairs[:8]).groups(Manifest(Path(), table))  # nine of fifteen may be copies of one
    assert len(set(few)) == 7


def test_that_there_are_no_copies_is_kept_too(make_images: MakeImages, tmp_path: Path, monkeypatch):
    manifest = numbered_manifest(make_images(4), [0, 1, 2, 3])
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
    (path,) = images.cache.folder.glob("audit-*.kept")
    kept = AuditReport.from_json(json.loads(path.read_text().split("\n", 1)[1]))
    assert kept.root == ""
    monkeypatch.setattr(dataset, "audit", no("it was made"))
    assert audited(manifest, images) == first == replace(kept, root=first.root)


@pytest.mark.parametrize("kind", ["pairs", "audit"])
@pytest.mark.parametrize(
    "change", [lambda text: "", lambda text: "{}", lambda text: "[1, 2]", lambda text: text[:-9],
               lambda text: text.replace("1", "2"), lambda text: text.split("\n", 1)[1]],
)  # fmt: skip
def test_what_is_kept_is_made_anew_where_it_was_changed(with_copies: Fixed, kind: str, change):
    manifest, images = with_copies
    copies, report = find_copies(images), audited(manifest, images)
    (path,) = images.cache.folder.glob(f"{kind}-*.kept")
    text = path.read_text()
    path.write_text(change(text))
    pd.testing.assert_frame_equal(find_copies(images).pairs, copies.pairs, check_dtype=False)
    assert audited(manifest, images) == report
    assert path.read_text() == text


def test_the_content_is_that_of_the_files_by_name(with_copies: Fixed, tmp_path: Path):
    manifest, images = with_copies
    whole = without_unreadable(manifest, images, "raise")
    backwards = manifest.rows(pd.Series(True, index=manifest.table.index))
    backwards = replace(backwards, table=manifest.table.iloc[::-1])
    order = images.positions[::-1]
    assert without_unreadable(backwards, Images(images.cache, order), "raise").content == whole.content
    path = manifest.root / manifest.table["image"].iloc[2]
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[content.index(b"IEND") + 4] ^= 1  # the picture stays: a checksum that nobody reads
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    again = images_of(manifest, tmp_path / "cache")
    assert again.cache.folder == images.cache.folder
    assert without_unreadable(manifest, again, "skip").content != whole.content


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
    assert len(list(images.cache.folder.glob("audit-*.kept"))) == 4


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
    assert len(list(images.cache.folder.glob("audit-*.kept"))) == len(changes)


def test_the_audit_counts_what_could_not_be_read(make_images: MakeImages, tmp_path: Path):
    root = make_images(6)
    broken(root, 2)
    manifest = numbered_manifest(root, list(range(6)))
    report = audited(manifest, images_of(manifest, tmp_path / "cache"))
    assert report.data.images == 6
    (found,) = (finding for finding in report.findings if finding.kind == "unreadable")
    assert (found.count, found.images) == (1, ["002.png"])


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write an image of an even grey, or of noise, and return its path."""

    def function(name: str, width: int = 8, height: int = 8, grey: int | None = None) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)
        Image.fromarray(noise if grey is None else np.full_like(noise, grey)).save(path)
        return path

    return function


def read(paths: list[Path], image_size: int = 8, channels: int = 1, resize: str = "stretch") -> FileImages:
    return FileImages(paths, image_size=image_size, channels=channels, resize=resize)


def test_images_are_in_the_order_of_the_files(write: Write) -> None:
    paths = [write(f"{grey}.png", grey=grey) for grey in (30, 10, 20)]
    images = read(paths)
    pixels = images[[0, 1, 2]]
    assert (pixels.shape, pixels.dtype) == ((3, 1, 8, 8), np.uint8)
    assert pixels[:, 0, 0, 0].tolist() == [30, 10, 20]
    assert images[[2, 0, 2]][:, 0, 5, 5].tolist() == [20, 30, 20]
    assert images[np.array([1])].shape == (1, 1, 8, 8)
    assert images[[]].shape == (0, 1, 8, 8)


def test_what_is_done_to_the_images_given_out_does_not_stay(write: Write) -> None:
    images = read([write("a.png", grey=7)])
    images[[0]][:] = 0
    assert (images[[0]] == 7).all()


def test_a_file_may_be_named_twice(write: Write) -> None:
    path = write("a.png", grey=7)
    assert read([path, path])[[0, 1]].shape == (2, 1, 8, 8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("resize", ["stretch", "pad", "crop"])
def test_images_are_decoded_as_those_of_a_data_set(write: Write, resize: str, channels: int) -> None:
    paths = [write("wide.png", width=24, height=10), write("tall.jpg", width=9, height=20)]
    images = read(paths, image_size=12, channels=channels, resize=resize)
    expected = [decode(path, image_size=12, channels=channels, resize=resize) for path in paths]
    np.testing.assert_array_equal(images[[0, 1]], np.stack(expected))
    assert images.resize == resize


def test_the_facts_are_the_sizes_of_the_files(write: Write) -> None:
    images = read([write("wide.png", width=24, height=10), write("tall.png", width=9, height=20)])
    assert images.facts.to_dict("list") == {"width": [24, 9], "height": [10, 20]}


def test_boxes_can_be_taken_to_the_frame_of_the_images(write: Write) -> None:
    # A white box in a wide image that padding makes square: it is where its fractions say.
    path = write("wide.png", width=64, height=32, grey=0)
    pixels = np.zeros((32, 64), dtype=np.uint8)
    pixels[8:24, 16:32] = 255
    Image.fromarray(pixels).save(path)
    manifest = manifest_of([path], ["Mass"])
    line = manifest.boxes.reindex([0]).assign(
        image=str(path), label="Mass", x=0.25, y=0.25, width=0.25, height=0.5
    )
    images = read([path], image_size=64, resize="pad")
    moved = framed(type(manifest)(manifest.root, manifest.table, line), images).boxes.iloc[0]
    left, top = round(64 * moved["x"]), round(64 * moved["y"])
    right, bottom = left + round(64 * moved["width"]), top + round(64 * moved["height"])
    expected = np.zeros((64, 64), dtype=bool)
    expected[top:bottom, left:right] = True
    np.testing.assert_array_equal(images[[0]][0, 0] > 127, expected)


def test_a_file_that_is_gone_is_named(write: Write, tmp_path: Path) -> None:
    paths = [write("a.png"), tmp_path / "gone.png"]
    with pytest.raises(MissingFileError, match=r"^There is no image .*gone\.png\.$"):
        read(paths)


def test_the_first_of_several_that_are_gone_is_named(write: Write, tmp_path: Path) -> None:
    gone = [tmp_path / f"gone{number}.png" for number in range(3)]
    with pytest.raises(MissingFileError, match=r"^There is no image .*gone0\.png and 2 others\.$"):
        read([write("a.png"), *gone])


def test_a_folder_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="There is no image"):
        read([tmp_path])


def test_a_file_that_is_no_image_is_named(write: Write, tmp_path: Path) -> None:
    notes = tmp_path / "notes.png"
    notes.write_text("no image")
    with pytest.raises(DataError, match=r"notes\.png \(8 bytes\) cannot be read"):
        read([write("a.png"), notes])


def test_an_unknown_rule_is_rejected(write: Write) -> None:
    with pytest.raises(ConfigError, match="squash"):
        read([write("a.png")], resize="squash")


def test_nothing_is_printed_where_tables_go(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    read([write("a.png")])
    assert capsys.readouterr().out == ""


def test_files_keep_their_order_and_are_listed_once(write: Write) -> None:
    first, second = write("b.png"), write("a.png")
    named = [str(first), str(second), str(first)]
    assert image_files(named) == [first, second]


def test_a_named_file_need_not_look_like_an_image(write: Write, tmp_path: Path) -> None:
    path = tmp_path / "0001"
    path.write_bytes(write("a.png").read_bytes())
    assert image_files([str(path)]) == [path]


def test_a_folder_gives_the_images_below_it_sorted(write: Write, tmp_path: Path) -> None:
    names = ["z.PNG", "b.jpg", "a.jpeg", "deep/er/c.png"]
    paths = [write(f"mine/{name}") for name in names]
    for name in ("d.dcm", "e.dicom", "notes.txt", "table.csv"):
        (tmp_path / "mine" / name).write_bytes(b"")
    (tmp_path / "mine" / "folder.png").mkdir()
    found = image_files([str(tmp_path / "mine")])
    assert found == sorted(found)
    assert set(found) == {*paths, tmp_path / "mine" / "d.dcm", tmp_path / "mine" / "e.dicom"}


def test_files_and_folders_may_be_mixed(write: Write, tmp_path: Path) -> None:
    last, *inside = write("one.png"), write("mine/a.png"), write("mine/b.png")
    named = [str(inside[1]), str(tmp_path / "mine"), str(last)]
    assert image_files(named) == [inside[1], inside[0], last]


def test_a_tilde_is_the_home(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("home/a.png")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert image_files(["~/a.png"]) == [path]


def test_what_is_neither_file_nor_folder_is_named(write: Write, tmp_path: Path) -> None:
    with pytest.raises(
        MissingFileError, match=r"images names .*gone\.png: there is no such file or folder\."
    ):
        image_files([str(write("a.png")), str(tmp_path / "gone.png")])


def test_a_folder_gives_its_images_whatever_their_names(tmp_path: Path) -> None:
    for name in ("scan", "b.tif", "c.unknown"):
        Image.new("L", (9, 9)).save(tmp_path / name, "TIFF")
    (tmp_path / "notes").write_text("no image")
    (tmp_path / "empty.png").touch()  # is told to be empty when it is read
    assert [path.name for path in image_files([str(tmp_path)])] == ["b.tif", "c.unknown", "empty.png", "scan"]


def test_a_folder_without_images_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(
        MissingFileError, match=rf"images names {tmp_path}: there is no image that can be decoded in"
    ):
        image_files([str(tmp_path)])


def test_no_names_give_no_files() -> None:
    assert image_files([]) == []


def test_of_files_nothing_is_known_and_each_is_its_own_patient() -> None:
    paths = [Path("mine") / name for name in ("b.png", "a.png", "NA")]
    manifest = manifest_of(paths, ["Mass", "Edema"])
    names = [str(path) for path in paths]
    assert manifest.labels == ["Mass", "Edema"]
    assert manifest.table["image"].tolist() == manifest.table["patient"].tolist() == names
    assert manifest.targets.shape == (3, 2)
    assert np.isnan(manifest.targets).all()
    assert not len(manifest.boxes)
    assert manifest.unusable_boxes == ()
    assert manifest.name == "image files"


def test_the_paths_of_a_manifest_lead_to_the_files(write: Write) -> None:
    path = write("a.png")
    manifest = manifest_of([path], ["Mass"])
    assert manifest.root / manifest.table["image"][0] == path


def test_a_manifest_rejects_a_file_that_stands_twice(write: Write) -> None:
    path = write("a.png")
    with pytest.raises(DataError, match=r"a\.png"):
        manifest_of([path, path], ["Mass"])
