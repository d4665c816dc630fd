import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
import yaml
from PIL import Image
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import cxrlab.models
from cxrlab.cli.config import config_dir
from cxrlab.data.manifest import Manifest
from cxrlab.errors import ConfigError, DataError, OutputError
from cxrlab.heatmaps.callback import Heatmaps
from cxrlab.heatmaps.settings import ExplanationSettings
from cxrlab.models.network import wrap
from cxrlab.training.operating_point import OperatingPoint

pytestmark = [
    # Lightning's advice on speed; it depends on the machine.
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*GPU available but not used:UserWarning"),
    # torch deprecates what Lightning 2.6 still uses to count the batches of its loaders.
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
]

LABELS = ["Edema", "Lung/Opacity"]
PARTS = ["train"] * 8 + ["val"] * 6 + ["test"] * 6
BOX_ROW = 9


class Network(cxrlab.models.Network):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.feature_map = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        features = self.feature_map(self.norm(self.conv(images)))
        logits: Tensor = self.head(self.dropout(features.mean(dim=(2, 3))))
        return logits

    @property
    def feature_layer(self) -> nn.Module:
        return self.feature_map

    def to_grid(self, activations: Tensor) -> Tensor:
        return activations


class Preprocess(nn.Module):
    image_size, channels = 16, 1

    def forward(self, images: Tensor) -> Tensor:
        return images.float() / 255


class Classifier(pl.LightningModule):
    def __init__(self, network: nn.Module | None = None) -> None:
        super().__init__()
        self.labels = LABELS
        self.preprocess = Preprocess()
        self.network = wrap(network or Network(), 16, 1)
        self.memory_format = torch.contiguous_format

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        logits = self.network(self.preprocess(batch["images"]))
        return F.binary_cross_entropy_with_logits(logits, batch["targets"])

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor] | None:
        if batch_idx == 1:  # a batch of which nothing could be read
            return None
        probabilities = torch.sigmoid(self.network(self.preprocess(batch["images"])))
        return {"index": batch["index"], "probabilities": probabilities, "targets": batch["targets"]}

    test_step = validation_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


class Rows(Dataset[dict[str, Tensor]]):
    def __init__(self, data: "Data", part: str) -> None:
        self.data = data
        self.rows = [row for row, name in enumerate(PARTS) if name == part]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        row = self.rows[position]
        targets = torch.from_numpy(self.data.manifest.targets[row].copy())
        return {"images": self.data.pixels[row], "index": torch.tensor(row), "targets": targets}


class Pixels:
    """Pixels that know how they were decoded: of files twice as wide as they are high."""

    def __init__(self, values: np.ndarray, resize: str) -> None:
        self.values = values
        self.resize = resize
        self.facts = pd.DataFrame({"width": [32] * len(values), "height": [16] * len(values)})

    def __getitem__(self, rows: list[int]) -> np.ndarray:
        return self.values[rows]


class Data(pl.LightningDataModule):
    def __init__(self, unreadable: int | None = None, resize: str = "stretch") -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.pixels = torch.randint(0, 255, (len(PARTS), 1, 16, 16), generator=generator, dtype=torch.uint8)
        self.unreadable = unreadable
        self.images = Pixels(self.pixels.numpy(), resize)
        rows = np.arange(len(PARTS))
        table = pd.DataFrame(
            {
                "image": [f"secret-{row}.png" for row in rows],
                "patient": [f"patient-{row}" for row in rows],
                "split": "",
                "part": PARTS,
                "label/Edema": (rows % 2).astype(float),
                "label/Lung/Opacity": (rows % 3 == 0).astype(float),
            }
        )
        columns = ["image", "label", "x", "y", "width", "height"]
        boxes = pd.DataFrame([(f"secret-{BOX_ROW}.png", "Edema", 0.1, 0.1, 0.5, 0.5)], columns=columns)
        self.manifest = Manifest(Path("/data"), table, boxes)

    def rows(self, part: str) -> np.ndarray:
        return np.flatnonzero(np.array(PARTS) == part)

    def image(self, row: int) -> Tensor:
        if row == self.unreadable:
            raise DataError(f"The image secret-{row}.png (0 bytes) cannot be read.")
        return self.pixels[row]

    def _loader(self, part: str) -> DataLoader[dict[str, Tensor]]:
        return DataLoader(Rows(self, part), batch_size=4, shuffle=part == "train")

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        return self._loader("test")


def settings(**changes: Any) -> ExplanationSettings:
    """The settings of conf/explanation/default.yaml, changed."""
    values = yaml.safe_load((config_dir() / "explanation" / "default.yaml").read_text())
    del values["_target_"]
    return ExplanationSettings(**{**values, **changes})


def heatmaps(folder: Path, **changes: Any) -> Heatmaps:
    arguments = {
        "explanation": settings(),
        "every_n_epochs": 1,
        "images_per_label": 1,
        "errors_per_label": 1,
        "batch_size": 2,
        **changes,
    }
    return Heatmaps(dirpath=str(folder), **arguments)


def make_trainer(*callbacks: pl.Callback, **changes: Any) -> pl.Trainer:
    arguments: dict[str, Any] = {
        "max_epochs": 2,
        "logger": False,
        "accelerator": "cpu",
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 1,
        **changes,
    }
    return pl.Trainer(callbacks=list(callbacks), **arguments)


def fit(callback: pl.Callback | None, *, data: Data | None = None, **changes: Any) -> Classifier:
    pl.seed_everything(0, verbose=False)
    classifier = Classifier()
    trainer = make_trainer(*([callback] if callback else []), **changes)
    trainer.fit(classifier, datamodule=data or Data())
    return classifier


def cases_in(folder: Path) -> set[tuple[str, str]]:
    index = pd.read_csv(folder / "index.csv")
    assert {path.name for path in folder.glob("*.png")} == set(index["file"])
    return set(zip(index["image"], index["finding"], strict=True))


def test_training_leaves_panels_of_the_same_cases_in_every_epoch(tmp_path: Path) -> None:
    fit(heatmaps(tmp_path), max_epochs=3)
    folders = sorted((tmp_path / "val").iterdir())
    assert [folder.name for folder in folders] == ["epoch=000", "epoch=001", "epoch=002"]
    chosen = cases_in(folders[0])
    assert chosen == cases_in(folders[1]) == cases_in(folders[2])
    assert (f"secret-{BOX_ROW}.png", "Edema") in chosen
    index = pd.read_csv(folders[0] / "index.csv")
    assert 2 <= len(index) <= 4
    assert {PARTS[int(name.removeprefix("secret-").removesuffix(".png"))] for name in index["image"]} == {
        "val"
    }
    line: Any
    for line in index.itertuples():
        row = int(line.image.removeprefix("secret-").removesuffix(".png"))
        assert line.file == f"{line.finding.replace('/', '_')}_{row}_{line.outcome}.png"
        assert (
            line.outcome
            == {(1, 1): "TP", (0, 1): "FP", (1, 0): "FN", (0, 0): "TN"}[
                (int(line.target), int(line.probability >= 0.5))
            ]
        )
        with Image.open(folders[0] / line.file) as picture:
            assert picture.size == (516, 282)
    first, last = (pd.read_csv(folder / "index.csv")["probability"] for folder in (folders[0], folders[2]))
    assert (first != last).all()


@pytest.mark.parametrize(
    ("options", "epochs"),
    [
        ({"max_epochs": 5}, ["epoch=001", "epoch=003", "epoch=004"]),  # the last epoch is always drawn
        ({"max_epochs": -1, "max_steps": 5}, ["epoch=001"]),
        ({"max_epochs": 3, "check_val_every_n_epoch": 2}, ["epoch=001"]),
        ({"max_epochs": 5, "max_time": {"seconds": 0}, "min_epochs": 1}, ["epoch=000"]),
    ],
)
def test_every_k_epochs_and_the_last(tmp_path: Path, options: dict[str, Any], epochs: list[str]) -> None:
    fit(heatmaps(tmp_path, every_n_epochs=2), **options)
    assert sorted(folder.name for folder in (tmp_path / "val").iterdir()) == epochs


def test_weights_are_the_same_to_the_bit_with_and_without(tmp_path: Path) -> None:
    # Validation after every batch: gradients of the first are waiting for the second when heatmaps are drawn.
    options: dict[str, Any] = {"max_epochs": 3, "accumulate_grad_batches": 2, "val_check_interval": 1}
    plain = fit(None, **options).state_dict()
    explained = fit(heatmaps(tmp_path), **options).state_dict()
    assert all(torch.equal(value, explained[name]) for name, value in plain.items())
    assert len(list(tmp_path.glob("val/*"))) == 3


def test_nothing_is_chosen_or_drawn_while_sanity_checking(tmp_path: Path) -> None:
    class AtStart(pl.Callback):
        def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            assert callback.state_dict() == {"chosen": []}
            assert not tmp_path.joinpath("val").exists()

    callback = heatmaps(tmp_path)
    pl.seed_everything(0, verbose=False)
    trainer = make_trainer(callback, AtStart(), num_sanity_val_steps=2, max_epochs=1)
    trainer.fit(Classifier(), datamodule=Data())
    assert tmp_path.joinpath("val").exists()


def test_a_validation_outside_training_draws_nothing(tmp_path: Path) -> None:
    make_trainer(heatmaps(tmp_path)).validate(Classifier(), datamodule=Data(), verbose=False)
    assert not list(tmp_path.iterdir())


def test_the_test_part_has_its_own_choice(tmp_path: Path) -> None:
    pl.seed_everything(0, verbose=False)
    trainer = make_trainer(heatmaps(tmp_path, images_per_label=2, errors_per_label=0))
    trainer.test(Classifier(), datamodule=Data(), verbose=False)
    index = pd.read_csv(tmp_path / "test" / "index.csv")
    assert (index["target"] == 1).all()
    rows = [int(name.removeprefix("secret-").removesuffix(".png")) for name in index["image"]]
    assert {PARTS[row] for row in rows} == {"test"}
    assert set(index["finding"]) == set(LABELS)


def test_outcomes_of_the_test_are_at_the_classifiers_own_thresholds(tmp_path: Path) -> None:
    class Decided(Classifier):
        def __init__(self, thresholds: list[float]) -> None:
            super().__init__()
            self.operating_point = OperatingPoint(2)
            self.operating_point.thresholds.copy_(torch.tensor(thresholds))

    always, never = {"TP", "FP"}, {"FN"}
    for thresholds, expected in (([0.99, 0.01], [never, always]), ([0.01, 0.99], [always, never])):
        pl.seed_everything(0, verbose=False)
        trainer = make_trainer(heatmaps(tmp_path, images_per_label=2, errors_per_label=2))
        trainer.test(Decided(thresholds), datamodule=Data(), verbose=False)
        index = pd.read_csv(tmp_path / "test" / "index.csv")
        assert index["probability"].between(0.01, 0.99).all()
        found = [set(index.loc[index["finding"] == finding, "outcome"]) for finding in LABELS]
        assert found == expected


def test_a_threshold_that_was_not_chosen_is_a_half(tmp_path: Path) -> None:
    class Undecided(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.operating_point = OperatingPoint(2)

    for name, kind in (("a", Classifier), ("b", Undecided)):
        pl.seed_everything(0, verbose=False)
        trainer = make_trainer(heatmaps(tmp_path / name))
        trainer.test(kind(), datamodule=Data(), verbose=False)
    one, other = ((tmp_path / name / "test" / "index.csv").read_text() for name in "ab")
    assert one == other


def test_a_resumed_training_keeps_its_cases(tmp_path: Path) -> None:
    pl.seed_everything(0, verbose=False)
    trainer = make_trainer(heatmaps(tmp_path / "a"), max_epochs=1)
    trainer.fit(Classifier(), datamodule=Data())
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = torch.load(tmp_path / "last.ckpt", weights_only=True)
    (state,) = loaded["callbacks"].values()
    assert {type(number) for pair in state["chosen"] for number in pair} == {int}
    assert b"secret" not in (tmp_path / "last.ckpt").read_bytes()
    assert b"patient" not in (tmp_path / "last.ckpt").read_bytes()

    pl.seed_everything(1, verbose=False)
    resumed = heatmaps(tmp_path / "b", images_per_label=3, errors_per_label=9)
    trainer = make_trainer(resumed, max_epochs=2)
    trainer.fit(Classifier(), datamodule=Data(), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert resumed.state_dict() == state
    assert cases_in(tmp_path / "b/val/epoch=001") == cases_in(tmp_path / "a/val/epoch=000")


def test_cases_that_are_not_predicted_any_more_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    callback = heatmaps(tmp_path)
    callback.load_state_dict({"chosen": [[BOX_ROW, 0], [999, 0], [BOX_ROW, 7]]})
    with caplog.at_level(logging.WARNING):
        fit(callback, max_epochs=1)
    assert cases_in(tmp_path / "val/epoch=000") == {(f"secret-{BOX_ROW}.png", "Edema")}
    assert "2 of 3 cases chosen for heatmaps were not validated now" in caplog.text


def test_an_unreadable_image_is_named_and_training_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        fit(heatmaps(tmp_path), data=Data(unreadable=BOX_ROW), max_epochs=1)
    assert f"The image secret-{BOX_ROW}.png (0 bytes) cannot be read" in caplog.text
    assert (f"secret-{BOX_ROW}.png", "Edema") not in cases_in(tmp_path / "val/epoch=000")


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"could not be written to .*file"):
        fit(heatmaps(tmp_path / "file"), max_epochs=1)


def test_tensorboard_shows_the_panels(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

    logger = TensorBoardLogger(tmp_path / "logs", name="", version="")
    fit(heatmaps(tmp_path), max_epochs=2, logger=logger)
    logger.experiment.close()
    events = EventAccumulator(str(tmp_path / "logs")).Reload()
    expected = {
        f"heatmaps/val/{finding}/{image.removeprefix('secret-').removesuffix('.png')}"
        for image, finding in cases_in(tmp_path / "val/epoch=000")
    }
    assert set(events.Tags()["images"]) == expected
    images = events.Images(f"heatmaps/val/Edema/{BOX_ROW}")
    assert [image.step for image in images] == [2, 4]
    assert (images[0].width, images[0].height) == (516, 282)


def test_only_the_first_process_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pl.Trainer, "is_global_zero", False)
    callback = heatmaps(tmp_path)
    fit(callback, max_epochs=1)
    assert not list(tmp_path.iterdir())
    assert callback.state_dict()["chosen"]


@pytest.mark.parametrize(
    ("name", "value", "least"),
    [
        ("every_n_epochs", 0, 1),
        ("images_per_label", -1, 0),
        ("errors_per_label", -1, 0),
        ("batch_size", 0, 1),
    ],
)
def test_a_number_out_of_range_is_rejected(name: str, value: int, least: int) -> None:
    with pytest.raises(ConfigError, match=rf"callbacks\.heatmaps\.{name}={value} must be at least {least}"):
        heatmaps(Path("unused"), **{name: value})


def test_a_network_without_spatial_features_trains_and_is_warned_about_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = make_trainer(heatmaps(tmp_path), max_epochs=2)
    classifier = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(256, 2)))
    trainer.fit(classifier, datamodule=Data())
    trainer.test(classifier, datamodule=Data(), verbose=False)
    assert caplog.text.count("No heatmaps are drawn: Sequential has no spatial features") == 1
    assert not list(tmp_path.glob("**/*.png"))


def test_a_plain_convolutional_network_is_drawn(tmp_path: Path) -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)
    )
    make_trainer(heatmaps(tmp_path), max_epochs=1).fit(Classifier(network), datamodule=Data())
    assert cases_in(tmp_path / "val/epoch=000")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": "layer9"}, "explanation.layers names 'layer9', and the network has no such layer"),
        ({"layers": "fused"}, "explanation.layers=fused needs a layer with a finer grid"),
        ({"methods": ["layercam"], "layers": ["head"]}, "explanation.layers names a layer"),
    ],
)
def test_layers_that_do_not_fit_are_rejected_before_training(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    classifier = Classifier()
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    trainer = make_trainer(heatmaps(tmp_path, explanation=settings(**changes)))
    with pytest.raises(ConfigError, match=message):
        trainer.fit(classifier, datamodule=Data())
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_told_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    trainer = make_trainer(heatmaps(tmp_path, explanation=settings(methods=["occlusion"])))
    with pytest.raises(ConfigError, match=r"The method occlusion needs the package captum.*pip install"):
        trainer.fit(Classifier(), datamodule=Data())


def test_a_method_of_pixels_explains_any_network(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(256, 2))
    callback = heatmaps(tmp_path, explanation=settings(methods=["occlusion"], window=0.5, stride=0.25))
    make_trainer(callback, max_epochs=1).fit(Classifier(network), datamodule=Data())
    assert cases_in(tmp_path / "val/epoch=000")


def box_panel(folder: Path) -> np.ndarray:
    """Return the radiograph and the heatmap of the image with a box, one above the other."""
    (path,) = (folder / "val/epoch=000").glob(f"Edema_{BOX_ROW}_*.png")
    with Image.open(path) as picture:
        assert picture.size == (516, 282)  # one method, whichever are set
        pixels = np.asarray(picture)[26:]
    return np.stack([pixels[:, :256], pixels[:, 260:]])


def test_the_method_and_the_layers_are_those_of_the_settings(tmp_path: Path) -> None:
    changes: dict[str, dict[str, Any]] = {
        "default": {},
        "first": {"methods": ["gradcam", "eigencam", "occlusion"]},
        "second": {"methods": ["eigencam", "gradcam"]},
        "conv": {"layers": ["conv"]},
        "shap": {"methods": ["gradient_shap"], "num_background": 3, "num_samples": 4},
    }
    for name, change in changes.items():
        fit(heatmaps(tmp_path / name, explanation=settings(**change)), max_epochs=1)
    panels = {name: box_panel(tmp_path / name) for name in changes}
    assert (panels["first"] == panels["default"]).all()
    for name in ("second", "conv", "shap"):
        assert (panels[name][0] == panels["default"][0]).all()
        assert (panels[name][1] != panels["default"][1]).any()
    with pytest.raises(ConfigError, match="no such layer"):
        fit(heatmaps(tmp_path, explanation=settings(layers=["stage9"])), max_epochs=1)


@pytest.mark.parametrize(
    ("resize", "rows", "columns"),
    [
        ("stretch", (25, 153), (25, 153)),
        ("pad", (76, 140), (25, 153)),  # a quarter of the height lies above the image
        ("crop", (25, 153), (0, 179)),  # a quarter of the width is cut off on the left
    ],
)
def test_a_box_stands_where_the_network_sees_it(
    tmp_path: Path, resize: str, rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    fit(heatmaps(tmp_path), data=Data(resize=resize), max_epochs=1)
    for side in box_panel(tmp_path):
        marked = np.nonzero((side == (0, 255, 255)).all(axis=-1))
        found = [(int(places.min()), int(places.max())) for places in marked]
        assert found == [pytest.approx(rows, abs=1), pytest.approx(columns, abs=1)]


def test_methods_that_do_not_draw_are_not_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    callback = heatmaps(tmp_path, explanation=settings(methods=["gradcam", "occlusion"]))
    make_trainer(callback, max_epochs=1).fit(Classifier(), datamodule=Data())
    assert cases_in(tmp_path / "val/epoch=000")
