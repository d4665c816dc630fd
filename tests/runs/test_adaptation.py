"""``adapt=batch_norm``: statistics of the images that are evaluated, and nothing else, change a run's network."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import cxrlab
from cxrlab.errors import ConfigError
from cxrlab.evaluate import checked, evaluate
from cxrlab.runs.adaptation import adapted
from cxrlab.runs.run_data import own_part, with_pixels


@pytest.fixture
def run(finished_run: Path):
    return cxrlab.load_run(finished_run, device="cpu")


@pytest.fixture
def training_images(run):
    return with_pixels(own_part(run, "train", recompute=True, device="cpu"), run.data(None))


class Flatter:
    """Images at half their contrast, as of another machine; the grey that padding has stays as it is."""

    def __init__(self, images, mean):
        self.images, self.mean = images, 255 * mean

    def __getitem__(self, rows):
        return np.rint(self.mean + (self.images[rows] - self.mean) / 2).astype(np.uint8)


def test_only_statistics_change_and_no_file(run, training_images, finished_run):
    before = {name: value.clone() for name, value in run.model.network.state_dict().items()}
    digest = hashlib.sha256((finished_run / "checkpoints" / "best.ckpt").read_bytes()).hexdigest()
    table = adapted(run, training_images, batch_size=16, device="cpu").table
    after = run.model.network.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.endswith(("running_mean", "running_var")) for name in changed)
    assert hashlib.sha256((finished_run / "checkpoints" / "best.ckpt").read_bytes()).hexdigest() == digest
    assert not np.array_equal(table.probabilities, training_images.table.probabilities)
    np.testing.assert_array_equal(table.targets, training_images.table.targets)


def test_images_of_half_the_contrast_are_predicted_as_those_of_all_of_it(run, training_images, finished_run):
    """A factor of all greys is undone by the statistics of the first layer."""
    flat = replace(
        training_images, images=Flatter(training_images.images, float(run.model.preprocess.mean[0]))
    )
    of_all = adapted(run, training_images, batch_size=64, device="cpu")
    of_flat = adapted(cxrlab.load_run(finished_run, device="cpu"), flat, batch_size=64, device="cpu")
    change = np.abs(of_all.table.probabilities - training_images.table.probabilities).mean()
    assert np.abs(of_all.table.probabilities - of_flat.table.probabilities).mean() < 0.1 * change
    assert "adapt=batch_norm" in of_flat.notes[-1]


def test_too_few_images_are_refused(run, training_images):
    few = replace(
        training_images, table=training_images.table.rows(np.arange(8)), rows=list(training_images.rows)[:8]
    )
    with pytest.raises(ConfigError, match="8 are too few: 32 at least"):
        adapted(run, few, batch_size=16, device="cpu")


def test_the_command_says_on_the_page_that_it_adapted(composed, finished_run: Path, tmp_path: Path):
    words = ("adapt=batch_norm", "part=train", "heatmaps_per_label=0", "evaluation.num_resamples=100")
    cfg = composed(f"run={finished_run}", f"run_dir={tmp_path}", *words, config_name="evaluate")
    result = evaluate(cfg)
    assert any("adapt=batch_norm" in flag.message for flag in result.flags)
    assert "what an image is given depends on the others" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["run=/a", "adapt=prior"], "adapt=prior must be null or one of batch_norm"),
        (["run=[/a,/b]", "adapt=batch_norm"], "adapt=batch_norm is of one run"),
        (
            ["predictions=a.csv", "targets=b.csv", "adapt=batch_norm"],
            "adapt= has no place beside predictions=",
        ),
    ],
)
def test_what_is_refused_before_anything_is_read(composed, overrides, message):
    with pytest.raises(ConfigError, match=message):
        checked(composed(*overrides, "run_dir=/nowhere", config_name="evaluate"))
