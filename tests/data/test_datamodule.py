import json
import logging
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from cxrlab.augment import RandomAugment
from cxrlab.data import dataset
from cxrlab.data.audit import AuditReport
from cxrlab.data.cache import DONE
from cxrlab.data.datamodule import DataModule
from cxrlab.data.decode import decode
from cxrlab.data.filters import apply_filters
from cxrlab.data.manifest import Manifest
from cxrlab.data.readers import synthetic
from cxrlab.data.readers import table as table_reader
from cxrlab.data.splits import Split
from cxrlab.errors import ConfigError, DataError


def write_images(root: Path, count: int) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    for number in range(count):
        pixels = generator.integers(0, 256, (20, 24), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{number:03}.png")
    parts = ["train"] * (count // 2) + ["val"] * (count // 4) + ["test"] * (count - count // 2 - count // 4)
    return pd.DataFrame(
        {
            "image": [f"{number:03}.png" for number in range(count)],
            "patient": [str(number) for number in range(count)],
            "split": "",
            "part": parts,
            "label/Edema": generator.integers(0, 2, count).astype(float),
            "label/Mass": generator.integers(0, 2, count).astype(float),
        }
    )


def module(root: Path, table: pd.DataFrame, **changes: object) -> DataModule:
    options = {
        "reader": lambda folder: Manifest(folder, table, name="test"),
        "split": lambda manifest, groups: manifest,
        "cache_dir": root / "cache",
        "image_size": 16,
        "batch_size": 4,
        "num_workers": 0,
    }
    return DataModule(root, **{**options, **changes})


def test_batches_are_uint8_with_targets_and_rows(tmp_path: Path):
    table = write_images(tmp_path, 24)
    data = module(tmp_path, table, num_workers=1)
    data.setup("fit")
    batch = next(iter(data.val_dataloader()))
    assert batch["images"].dtype == torch.uint8
    assert batch["images"].shape == (3, 1, 16, 16)
    assert batch["index"].tolist() == [12, 13, 14]
    np.testing.assert_array_equal(batch["targets"], table.iloc[12:15][["label/Edema", "label/Mass"]])
    assert torch.equal(batch["images"][1], data.image(13))


def test_colour_gives_three_channels_and_labels_can_be_chosen(tmp_path: Path):
    data = module(tmp_path, write_images(tmp_path, 24), channels=3, labels=["Mass"])
    data.prepare()
    batch = next(iter(data.train_dataloader()))
    assert batch["images"].shape[1:] == (3, 16, 16)
    assert batch["targets"].shape[1:] == (1,)


def test_statistics_are_those_of_the_training_part(tmp_path: Path):
    data = module(tmp_path, write_images(tmp_path, 24))
    data.prepare()
    pixels = torch.stack([data.image(row) for row in data.rows("train")]).double() / 255
    mean, std = data.training_statistics(512)
    assert mean == pytest.approx([float(pixels.mean())])
    assert std == pytest.approx([float(pixels.std(unbiased=False))])


def test_the_second_preparation_reads_nothing(tmp_path: Path):
    data = module(tmp_path, write_images(tmp_path, 24))
    first = data.prepare()
    data.setup("test")
    assert data.prepare() is first


def test_an_unreadable_image_is_named_or_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    table = write_images(tmp_path, 24)
    (tmp_path / "013.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"1 of 24 images cannot be read.*013.png.*data.on_unreadable=skip"):
        module(tmp_path, table, on_unreadable="raise").prepare()
    lenient = module(tmp_path, table)
    with caplog.at_level(logging.WARNING, logger="cxrlab"):
        lenient.prepare()
    assert "013.png" in caplog.text
    assert len(lenient.manifest) == 23
    assert lenient.unreadable.report["image"].tolist() == ["013.png"]
    batch = next(iter(lenient.val_dataloader()))
    assert [lenient.manifest.table["image"][row] for row in batch["index"].tolist()] == [
        f"{number:03}.png" for number in (12, 14, 15)
    ]
    np.testing.assert_array_equal(
        batch["images"][1], decode(tmp_path / "014.png", image_size=16, channels=1, resize="stretch")
    )
    assert [found.count for found in lenient.audit().findings if found.kind == "unreadable"] == [1]


def test_no_readable_image_is_an_error(tmp_path: Path):
    table = write_images(tmp_path, 24)
    for name in table["image"]:
        (tmp_path / name).write_bytes(b"no image")
    with pytest.raises(DataError, match=r"24 of 24 images cannot be read"):
        module(tmp_path, table).prepare()


def test_a_filter_decodes_no_image_that_it_leaves_out(tmp_path: Path):
    def without_tests(manifest: Manifest) -> Manifest:
        return manifest.rows(manifest.table["part"] != "test")

    table = write_images(tmp_path, 24)
    data = module(tmp_path, table, filter=without_tests)
    with pytest.raises(DataError, match="have no image"):
        data.prepare()
    cache = next((tmp_path / "cache").glob("*/facts.npy"))
    assert int((np.load(cache)["state"] == DONE).sum()) == 18
    whole = module(tmp_path, table)
    whole.prepare()
    assert [path.name for path in (tmp_path / "cache").glob("*/facts.npy")] == ["facts.npy"]


def test_a_number_of_training_images_leaves_the_other_parts_whole(tmp_path: Path):
    table = write_images(tmp_path, 24)
    data = module(tmp_path, table, labels=["Edema"], max_train_images=6, equal_classes=True)
    whole = module(tmp_path, table)
    data.prepare()
    whole.prepare()
    assert len(data.rows("train")) == 6
    assert data.targets[data.rows("train")].sum() == 3
    assert len(data.rows("val") + data.rows("test")) == len(whole.rows("val") + whole.rows("test"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_train_images": 1}, "data.max_train_images=1 must be at least 2"),
        ({"max_train_images": 9, "fraction": 0.5}, "exclude each other"),
        ({"equal_classes": True}, "no effect without data.max_train_images"),
    ],
)
def test_numbers_of_training_images_that_do_not_fit(tmp_path: Path, options: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        module(tmp_path, tmp_path, **options)


def test_a_fraction_of_the_training_patients_leaves_the_other_parts_whole(tmp_path: Path):
    data = module(tmp_path, write_images(tmp_path, 24), fraction=0.5)
    data.prepare()
    assert data.manifest.table["part"].value_counts().to_dict() == {"train": 6, "val": 6, "test": 6}
    row = data.rows("val")[2]
    name = data.manifest.table["image"][row]
    np.testing.assert_array_equal(
        data.image(row), decode(tmp_path / name, image_size=16, channels=1, resize="stretch")
    )


def test_patients_with_the_same_file_are_drawn_together(tmp_path: Path):
    table = write_images(tmp_path, 24)
    for copy, original in (("005.png", "004.png"), ("017.png", "004.png")):
        (tmp_path / copy).write_bytes((tmp_path / original).read_bytes())
    seen = {}

    def split(manifest: Manifest, *, groups: np.ndarray) -> Manifest:
        seen["groups"] = groups
        return manifest

    data = module(tmp_path, table, split=split)
    data.prepare()
    assert len(set(seen["groups"][[4, 5, 17]])) == 1
    assert len(set(seen["groups"])) == 22
    assert data.copies.identical == [[4, 5, 17]]
    assert "fault" in {finding.severity for finding in data.audit().findings}


def test_the_audit_of_the_same_data_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    table = write_images(tmp_path, 24)
    first = module(tmp_path, table).audit()
    monkeypatch.setattr(dataset, "audit", lambda *_, **__: pytest.fail("it was made anew"))
    assert module(tmp_path, table).audit() == first


def test_batches_are_augmented_by_their_seed_in_training_only(tmp_path: Path):
    augment = RandomAugment(shift=0.3)
    data = module(tmp_path, write_images(tmp_path, 24), augment=augment)
    data.prepare()
    batch = next(iter(data.train_dataloader()))
    data.trainer = SimpleNamespace(training=True)  # type: ignore[assignment]
    augmented = [data.on_after_batch_transfer({**batch}, 0)["images"] for _ in range(2)]
    assert torch.equal(*augmented)
    assert not torch.equal(augmented[0], batch["images"].float())
    data.trainer = SimpleNamespace(training=False)  # type: ignore[assignment]
    assert torch.equal(data.on_after_batch_transfer({**batch}, 0)["images"], batch["images"])


@pytest.mark.parametrize("value", [0.0, 1.0, np.nan])
def test_a_label_that_does_not_vary_in_training_is_named_with_the_others(tmp_path: Path, value: float):
    table = write_images(tmp_path, 24)
    table.loc[table["part"] == "train", "label/Mass"] = value
    with pytest.raises(DataError, match=r"'Mass'.*data.labels=\[Edema\]"):
        module(tmp_path, table).prepare()


def test_an_empty_part_is_named(tmp_path: Path):
    table = write_images(tmp_path, 24)
    table.loc[table["part"] == "val", "part"] = "train"
    with pytest.raises(DataError, match=r"The parts \['val'\] .* have no image.*'train': 18"):
        module(tmp_path, table).prepare()


@pytest.mark.parametrize(("name", "value"), [("batch_size", 0), ("image_size", 4), ("num_workers", -1)])
def test_a_size_out_of_range_is_rejected(tmp_path: Path, name: str, value: int):
    with pytest.raises(ConfigError, match=f"data.{name}={value} must be at least"):
        module(tmp_path, pd.DataFrame(), **{name: value})


def test_an_unknown_label_is_rejected_with_those_there_are(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"\['Hernia'\].*\['Edema', 'Mass'\]"):
        module(tmp_path, write_images(tmp_path, 24), labels=["Hernia"]).prepare()


def test_overfitting_trains_and_validates_on_the_same_few_training_images(tmp_path: Path):
    data = module(tmp_path, write_images(tmp_path, 24), overfit_images=5)
    data.prepare()
    trained = {int(row) for batch in data.train_dataloader() for row in batch["index"]}
    validated = {int(row) for batch in data.val_dataloader() for row in batch["index"]}
    assert trained == validated
    assert len(trained) == 5
    assert trained <= set(data.rows("train"))


def test_a_partial_split_is_called_with_the_manifest(tmp_path: Path):
    def everything(manifest: Manifest, *, groups: np.ndarray, part: str) -> Manifest:
        manifest.table["part"] = part
        return manifest

    with pytest.raises(DataError, match=r"\['val', 'test'\]"):
        module(tmp_path, write_images(tmp_path, 24), split=partial(everything, part="train")).prepare()


def test_an_epoch_has_the_steps_asked_for_and_balanced_batches(tmp_path: Path):
    table = write_images(tmp_path, 24)
    data = module(tmp_path, table, labels=["Mass"], steps_per_epoch=200, sampling="balanced")
    data.prepare()
    assert data.num_training_batches == 200
    batches = list(data.train_dataloader())
    assert len(batches) == 200
    share = float(torch.cat([batch["targets"] for batch in batches]).mean())
    assert abs(share - 0.5) < 4 * (0.25 / 800) ** 0.5
    assert len(list(data.val_dataloader())) == 2


def test_an_epoch_of_no_steps_is_rejected(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"data\.steps_per_epoch=0 must be at least 1"):
        module(tmp_path, write_images(tmp_path, 24), steps_per_epoch=0)


def test_a_root_and_a_reader_are_enough(tmp_path: Path):
    reader = partial(synthetic.read, num_patients=40, size=32)
    data = DataModule(tmp_path, reader=reader, image_size=32, num_workers=0)
    data.prepare()
    assert data.split.method == "grouped"
    batch = next(iter(data.train_dataloader()))
    assert batch["images"].shape == (batch["targets"].shape[0], 1, 32, 32)
    data.trainer = SimpleNamespace(training=True)  # type: ignore[assignment]
    assert data.on_after_batch_transfer(batch, 0)["images"].dtype == torch.uint8  # not augmented


def test_a_name_that_is_given_is_that_of_the_data_set_whatever_the_reader(tmp_path: Path):
    table = write_images(tmp_path, 24)
    assert module(tmp_path, table).prepare().name == "test"
    assert not module(tmp_path, table).is_named
    named = module(tmp_path, table, name="Our ward")
    assert named.is_named
    assert named.prepare().name == "Our ward"
    assert module(tmp_path, table, reader=partial(table_reader.read, name="chexpert")).is_named
    assert not module(tmp_path, table, reader=partial(table_reader.read, name=None)).is_named


def test_a_split_of_one_s_own_is_called_custom(tmp_path: Path):
    data = module(tmp_path, write_images(tmp_path, 24))
    assert data.split.method == "custom"
    assert data.split.record() == {"method": "custom"}
    chosen = module(tmp_path, write_images(tmp_path, 24), split=Split("official", seed=3))
    assert (chosen.split.method, chosen.split.record()["seed"]) == ("official", 3)


def test_a_split_that_changes_the_order_of_the_images_is_rejected(tmp_path: Path):
    def reversed_rows(manifest: Manifest, *, groups: np.ndarray) -> Manifest:
        return replace(manifest, table=manifest.table.iloc[::-1])

    with pytest.raises(DataError, match=r"data\.split returned other images, or in another order"):
        module(tmp_path, write_images(tmp_path, 24), split=reversed_rows).prepare()


def test_the_data_as_they_are_need_no_parts(tmp_path: Path):
    table = write_images(tmp_path, 6).drop(columns="part")
    (tmp_path / "003.png").write_bytes(b"")
    data = module(tmp_path, table)
    dataset = data.gather()
    assert len(dataset) == len(dataset.images) == len(dataset.targets) == 5
    assert dataset.unreadable.report["image"].tolist() == ["003.png"]
    with pytest.raises(RuntimeError, match="prepare"):
        _ = data.manifest
    odd = dataset.select(np.arange(5) % 2 == 1)
    assert odd.manifest.table["image"].tolist() == ["001.png", "004.png"]
    np.testing.assert_array_equal(odd.images[[1]], dataset.images[[3]])
    np.testing.assert_array_equal(odd.targets, dataset.targets[[1, 3]])


def test_another_data_set_is_decoded_alike(tmp_path: Path):
    data = module(tmp_path, write_images(tmp_path, 24))
    (tmp_path / "other").mkdir()
    other = Manifest(tmp_path / "other", write_images(tmp_path / "other", 4), name="other")
    dataset = data.decode(other)
    assert dataset.images[[0, 1, 2, 3]].shape == (4, 1, 16, 16)


def test_what_is_left_out_on_the_way_is_recorded_in_the_audit(tmp_path: Path):
    table = write_images(tmp_path, 24)
    table["covariate/view"] = ["PA"] * 20 + ["AP"] * 4
    table["part"] = (["train"] * 10 + ["val"] * 5 + ["test"] * 5) + ["test"] * 4
    (tmp_path / "011.png").write_bytes(b"no image")

    def reader(folder: Path) -> Manifest:
        return Manifest(folder, table, name="test", num_listed=27, missing=("a.png", "b.png"))

    keep = partial(apply_filters, view="PA", sex=None)
    data = module(tmp_path, table, reader=reader, filter=keep, fraction=0.5)
    report = data.audit()
    assert [(step.reason, step.images, step.patients, step.detail) for step in report.flow] == [
        ("missing", 2, None, ""),
        ("reader", 1, None, ""),
        ("filter", 4, 4, "view=PA"),
        ("unreadable", 1, 1, ""),
        ("sample", 5, 5, "data.fraction"),
    ]
    assert report.data.listed - sum(step.images for step in report.flow) == len(data.manifest)
    assert AuditReport.from_json(json.loads(json.dumps(asdict(report)))) == report
