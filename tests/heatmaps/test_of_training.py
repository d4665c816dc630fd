import json
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from cxrlab.errors import ConfigError, OutputError, TrainingError
from cxrlab.evaluation.results import DataFacts
from cxrlab.heatmaps import checks
from cxrlab.heatmaps.checks import explain_training
from cxrlab.heatmaps.task import ExplainTask

MakeMaterial = Callable[..., ExplainTask]
Train = Callable[..., None]


@pytest.fixture
def ended(make_material: MakeMaterial, tmp_path: Path) -> Callable[..., None]:
    """Explain a training of 6 images, whose run directory is ``tmp_path``; settings may be changed."""
    explain_task = make_material([(1, 0), (1, 1), (0, 1), (1, 0), (0, 1), (1, 1)])
    table = explain_task.manifest.table
    predictions = pd.DataFrame({"image": table["image"], "patient": table["patient"], "part": "test"})
    for place, label in enumerate(explain_task.names):
        predictions[f"target/{label}"] = table[f"label/{label}"]
        predictions[f"probability/{label}"] = 0.25 + place / 4
    (tmp_path / "predictions").mkdir()
    predictions.to_csv(tmp_path / "predictions" / "test.csv", index=False)
    results = pd.DataFrame({"part": "val", "label": ["Mass", "Edema"], "auroc": [0.6, 0.8]})
    results.to_csv(tmp_path / "results.csv", index=False)
    rows = {"train": [4, 5], "val": [3], "test": range(6)}
    data = SimpleNamespace(
        images=explain_task.images, manifest=explain_task.manifest, rows=lambda part: np.array(rows[part])
    )

    def function(**changes: Any) -> None:
        settings = replace(explain_task.settings, **changes)
        explain_training(
            tmp_path, explain_task.classifier, data, DataFacts("drawn"), part="test", settings=settings  # type: ignore[arg-type]
        )  # fmt: skip

    return function


def test_the_checks_stand_in_the_run_directory(
    ended: Train, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        ended(num_labels=1, most_outside=0.0)
    numbers = json.loads((tmp_path / "explanation.json").read_text())
    assert numbers["data"] == {"name": "drawn", "part": "test", "fingerprint": None}
    assert numbers["labels"] == ["Edema"]  # that with the higher validation AUROC
    assert numbers["images"] == 6
    assert numbers["checks"] == ["pointing", "lungs"]  # the others are made by the command
    assert numbers["randomization"] is numbers["faithfulness"] is numbers["agreement"] is None
    assert [record.levelname for record in caplog.records] == ["INFO"]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ConfigError("no such layer"), "not checked to the end: no such layer"),
        (TrainingError("not finite"), "not checked to the end: not finite"),
        (OutputError("no room"), "not checked to the end: no room"),
        (OSError(28, "No space left on device"), "not checked to the end: .* No space left on device"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has …"),
            r"not checked to the end: CUDA out of memory\. With a smaller explanation\.batch_size, now 4, cxrlab explain",
        ),
    ],
)
def test_what_goes_wrong_is_a_warning_and_no_evaluation_is_lost(
    ended: Train,
    error: Exception,
    told: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(explain_task: ExplainTask, checks: Sequence[str]) -> None:
        raise error

    monkeypatch.setattr(checks, "check_heatmaps", fail)
    ended()
    (record,) = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert re.search(told, record.getMessage())


def test_weights_that_are_not_finite_are_told(
    ended: Train, tmp_path: Path, make_material: MakeMaterial, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def broken(classifier: Any, *_: Any, **__: Any) -> Any:
        with torch.no_grad():
            next(iter(classifier.network.parameters())).fill_(torch.nan)
        return kept(classifier, *_, **__)

    kept = checks.explain_task_of
    monkeypatch.setattr(checks, "explain_task_of", broken)
    ended()
    assert "The heatmaps were not checked" in caplog.text
    assert "not finite" in caplog.text
    assert not (tmp_path / "explanation.json").exists()


def test_another_error_is_no_warning(ended: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(explain_task: ExplainTask, checks: Sequence[str]) -> nn.Module:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(checks, "check_heatmaps", fail)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        ended()
