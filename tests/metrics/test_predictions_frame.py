from pathlib import Path

import numpy as np
import pandas as pd

from cxrlab.data.manifest import Manifest
from cxrlab.metrics.predictions import predictions_frame


def test_a_frame_holds_what_the_manifest_knows_of_each_row():
    table = pd.DataFrame(
        {
            "image": ["a.png", "b.png", "c.png"], "patient": ["1", "1", "2"], "split": "", "part": ["train", "val", "val"],
            "covariate/view": ["PA", "AP", "AP"], "label/Edema": [0.0, 1.0, np.nan],
        }
    )  # fmt: skip
    predicted = predictions_frame(
        Manifest(Path(), table),
        [1, 2],
        ["Edema"],
        [[0.75], [0.25]],
        targets=[[1.0], [np.nan]],
        thresholds=[0.5],
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
    predicted = predictions_frame(
        Manifest(Path(), table),
        [0],
        ["Edema", "Mass"],
        [[0.5, 0.5]],
        targets=[[1.0, 0.0]],
        thresholds=[0.5, np.nan],
    )
    assert predicted["prediction/Edema"].tolist() == [1.0]  # at the threshold is present
    assert np.isnan(predicted["prediction/Mass"]).all()
