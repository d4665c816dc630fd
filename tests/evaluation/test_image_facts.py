from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from cxrlab.evaluation.image_facts import image_facts, run_image_facts
from cxrlab.files import RunDir
from cxrlab.metrics.predictions import DataFacts, PredictionTable
from cxrlab.runs.run_data import PredictedImages

NAMES = ["a.png", "b.png", "c.png"]
PIXELS = np.stack([np.full((1, 4, 4), 10), np.arange(16).reshape(1, 4, 4), np.full((1, 4, 4), 200)]).astype(
    np.uint8
)


class Pixels:
    def __getitem__(self, rows):
        return PIXELS[rows]


@pytest.fixture
def predicted():
    boxes = pd.DataFrame(
        [["a.png", "Mass", 0, 0, 0.5, 0.5], ["a.png", "Mass", 0.5, 0.5, 0.2, 0.5], ["z.png", "Mass", 0, 0, 1, 1]],
        columns=["image", "label", "x", "y", "width", "height"],
    )  # fmt: skip
    manifest = SimpleNamespace(table=pd.DataFrame({"image": NAMES}), boxes=boxes)
    table = PredictionTable(
        images=np.array(["c.png", "a.png", "b.png"], dtype=object),
        patients=np.arange(3),
        labels=("Edema", "Mass"),
        targets=np.zeros((3, 2)),
        probabilities=np.full((3, 2), 0.5),
        part="test",
    )
    return PredictedImages(table, DataFacts("x", fingerprint="f00"), manifest, Pixels(), [2, 0, 1])


@pytest.fixture
def run(tmp_path):
    files = RunDir(tmp_path)
    files.predictions_dir.mkdir()
    return SimpleNamespace(files=files, facts=DataFacts("x", fingerprint="f00"), data=lambda root: None)


def test_brightness_contrast_and_boxes_are_of_the_tables_images(predicted):
    facts = image_facts(predicted)
    np.testing.assert_allclose(facts.brightness, [200, 10, 7.5])
    np.testing.assert_allclose(facts.contrast, [0, 0, np.arange(16).std()], rtol=1e-6)
    np.testing.assert_allclose(facts.box_areas, [[np.nan, np.nan], [np.nan, 0.35], [np.nan, np.nan]])


def test_a_runs_own_are_kept_and_read_again_without_an_image(predicted, run):
    kept = run_image_facts(run, predicted, keeps=True)
    bare = PredictedImages(predicted.table.rows(np.array([2, 0])), predicted.facts)
    again = run_image_facts(run, bare)
    np.testing.assert_array_equal(again.brightness, kept.brightness[[2, 0]])
    np.testing.assert_array_equal(again.box_areas, kept.box_areas[[2, 0]])


def test_what_is_not_of_these_images_is_not_read(predicted, run):
    bare = PredictedImages(predicted.table, predicted.facts)
    assert image_facts(bare) is None
    assert run_image_facts(run, bare) is None
    run_image_facts(run, predicted, keeps=True)
    run.facts = DataFacts("x", fingerprint="other")
    assert run_image_facts(run, bare) is None
    run.facts = DataFacts("x", fingerprint="f00")
    run.files.image_facts("test").write_bytes(b"no archive")
    assert run_image_facts(run, bare) is None
