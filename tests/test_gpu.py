import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from omegaconf import DictConfig

import cxrlab
from cxrlab.train import train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


def test_a_run_on_the_gpu_trains_resumes_and_is_read_back_on_the_cpu(
    composed: Callable[..., DictConfig], synthetic_root: Path, tmp_path: Path
):
    options = [
        "data.reader.num_patients=40",
        "data.reader.size=64",
        "data.image_size=64",
        "data.num_workers=2",
    ]
    options += [
        f"data.root={synthetic_root}",
        f"run_dir={tmp_path}",
        "trainer=gpu",
        "callbacks.progress=null",
    ]
    train(composed(*options, "trainer.max_epochs=1"))
    resumed = composed(*options, f"resume={tmp_path}")
    config = tmp_path / ".hydra" / "config.yaml"
    config.write_text(config.read_text().replace("max_epochs: 1", "max_epochs: 2"))
    train(resumed)
    assert pd.read_csv(tmp_path / "metrics.csv")["epoch"].tolist() == [0, 1]
    assert list((tmp_path / "heatmaps" / "test").glob("*.png"))
    checked = json.loads((tmp_path / "explanation.json").read_text())
    assert checked["pointing"]["cases"]
    assert checked["randomization"]["methods"]["gradcam"]
    run = cxrlab.load_run(tmp_path, device="cpu")
    table = run.predictions("test")
    root = next(synthetic_root.glob("40-patients-64px*"))
    again = run.predict([root / image for image in table["image"]])
    columns = [f"probability/{label}" for label in run.labels]
    pd.testing.assert_frame_equal(again[columns], table[columns], atol=0.05, rtol=0, check_exact=False)
