import logging
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from cxrlab.data.datamodule import DataModule
from cxrlab.data.manifest import Manifest
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
        "root": str(root),
        "reader": lambda folder: Manifest(folder, table, name="test"),
        "split": lambda manifest: manifest,
        "labels": None,
        "image_size": 16,
        "channels": 1,
        "batch_size": 4,
        "num_workers": 0,
        "on_unreadable": "raise",
        "overfit_images": None,
        "augment": torch.nn.Identity(),
        "seed": 0,
    }
    return DataModule(**{**options, **changes})


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
    mean, std = data.training_statistics()
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
    data = module(tmp_path, table)
    data.prepare()
    batch = next(iter(data.val_dataloader()))
    with pytest.raises(DataError, match=r"013.png \(0 bytes\) cannot be read.*data.on_unreadable=skip"):
        data.on_before_batch_transfer(batch, 0)
    lenient = module(tmp_path, table, on_unreadable="skip")
    lenient.prepare()
    with caplog.at_level(logging.WARNING, logger="cxrlab"):
        for _ in range(2):
            lenient.on_before_batch_transfer(next(iter(lenient.val_dataloader())), 0)
    assert batch["index"].tolist() == [12, 14]
    assert caplog.text.count("Left out") == 1  # said once, not every epoch


def test_an_error_in_a_worker_process_arrives_with_the_files_name_and_no_traceback(tmp_path: Path):
    table = write_images(tmp_path, 24)
    (tmp_path / "013.png").write_bytes((tmp_path / "013.png").read_bytes()[:100])
    data = module(tmp_path, table, num_workers=1)
    data.prepare()
    failures = [message for batch in data.val_dataloader() for message in batch["failures"]]
    assert len(failures) == 1
    assert "013.png (100 bytes)" in failures[0]
    assert "Traceback" not in failures[0]


def test_a_batch_without_a_readable_image_is_empty(tmp_path: Path):
    table = write_images(tmp_path, 24)
    data = module(tmp_path, table)
    data.prepare()
    for row in data.rows("val"):
        (tmp_path / table["image"][row]).write_bytes(b"no image")
    batch = next(iter(data.val_dataloader()))
    assert batch["images"].shape == (0, 1, 16, 16)
    assert batch["targets"].shape == (0, 2)


def test_statistics_need_one_readable_image(tmp_path: Path):
    table = write_images(tmp_path, 24)
    data = module(tmp_path, table)
    data.prepare()
    for row in data.rows("train"):
        (tmp_path / table["image"][row]).write_bytes(b"no image")
    with pytest.raises(DataError, match=r"None of 12 training images"):
        data.training_statistics()


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
def test_a_size_out_of_range_is_refused(tmp_path: Path, name: str, value: int):
    with pytest.raises(ConfigError, match=f"data.{name}={value} must be at least"):
        module(tmp_path, pd.DataFrame(), **{name: value})


def test_an_unknown_label_is_refused_with_those_there_are(tmp_path: Path):
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
    def everything(manifest: Manifest, *, part: str) -> Manifest:
        manifest.table["part"] = part
        return manifest

    with pytest.raises(DataError, match=r"\['val', 'test'\]"):
        module(tmp_path, write_images(tmp_path, 24), split=partial(everything, part="train")).prepare()
