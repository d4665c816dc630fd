from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from cxrlab.report.figures import learning_curves


def test_learning_curves_are_drawn_for_many_labels_and_for_one(tmp_path: Path):
    frame = pd.DataFrame(
        {"epoch": range(4), "train/loss": [0.5, 0.4, 0.3, 0.2], "val/loss": [0.6, 0.5, 0.5, np.nan]}
    )
    for count in (1, 14):
        for label in range(count):
            frame[f"val/auroc/finding {label}"] = np.linspace(0.5, 0.9, 4)
        frame["val/auroc"] = 0.7
        learning_curves(frame, tmp_path / f"{count}.png")
        pixels = np.asarray(Image.open(tmp_path / f"{count}.png").convert("L"))
        assert pixels.shape[1] > 1000
        assert (pixels < 128).mean() > 0.005


def test_a_run_without_validation_still_has_a_picture(tmp_path: Path):
    learning_curves(pd.DataFrame({"epoch": [0], "train/loss": [0.5]}), tmp_path / "one.png")
    assert (tmp_path / "one.png").stat().st_size > 1000
