from pathlib import Path

import numpy as np
import pandas as pd
import torch

from cxrlab.data.manifest import Manifest
from cxrlab.training.callbacks.predictions import predictions_table


def test_rows_follow_the_manifest_whatever_the_order_of_the_batches():
    table = pd.DataFrame(
        {
            "image": ["a.png", "b.png", "c.png"], "patient": ["1", "1", "2"], "split": "", "part": ["train", "val", "val"],
            "covariate/view": ["PA", "AP", "AP"], "label/Edema": [0.0, 1.0, np.nan],
        }
    )  # fmt: skip
    predicted = predictions_table(
        Manifest(Path(), table),
        torch.tensor([2, 1]),
        torch.tensor([[0.25], [0.75]]),
        torch.tensor([[torch.nan], [1.0]]),
        thresholds=torch.tensor([0.5]),
    )
    assert list(predicted) == [
        "image",
        "patient",
        "part",
        "covariate/view",
        "target/Edema",
        "probability/Edema",
        "prediction/Edema",
    ]
    assert predicted["image"].tolist() == ["b.png", "c.png"]
    assert predicted["probability/Edema"].tolist() == [0.75, 0.25]
    assert predicted["prediction/Edema"].tolist() == [1.0, 0.0]
    assert predicted["target/Edema"].isna().tolist() == [False, True]


def test_a_label_without_a_threshold_has_no_prediction():
    table = pd.DataFrame(
        {"image": ["a.png"], "patient": ["1"], "split": "", "label/Edema": [1.0], "label/Mass": [0.0]}
    )
    predicted = predictions_table(
        Manifest(Path(), table),
        torch.tensor([0]),
        torch.tensor([[0.5, 0.5]]),
        torch.tensor([[1.0, 0.0]]),
        thresholds=torch.tensor([0.5, torch.nan]),
    )
    assert predicted["prediction/Edema"].tolist() == [1.0]  # at the threshold is present
    assert np.isnan(predicted["prediction/Mass"]).all()
