"""A laboratory outside cxrlab: its package, its folder of YAML files, its images."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

LAB = Path(__file__).parent / "lab"

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def lab_on_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the tests, and the commands that they start, import the laboratory's package."""
    monkeypatch.syspath_prepend(str(LAB))
    before = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(part for part in (str(LAB), before) if part))
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "my_lab"]:
        del sys.modules[name]


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Run ``python -m cxrlab.<name>`` with the laboratory's YAML files."""

    def function(name: str, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", f"cxrlab.{name}", "--config-dir", str(LAB / "conf"), *arguments],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == status, done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        return done

    return function


@pytest.fixture(scope="session")
def lab_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set in the laboratory's own form: 120 images of 60 patients, half with a bright spot."""
    root, generator = tmp_path_factory.mktemp("lab_data"), np.random.default_rng(0)
    rows = []
    for number in range(120):
        is_bright = number // 2 % 2
        pixels = generator.integers(0, 120, (48, 48)).astype(np.uint8)
        if is_bright:
            x, y = generator.integers(4, 30, 2)
            pixels[y : y + 14, x : x + 14] += 120
        name = f"{number:03}.png"
        Image.fromarray(pixels).save(root / name)
        rows.append(
            {
                "file": name,
                "who": f"P{number // 2:03}",
                "view": "PA" if number % 3 else "AP",
                "bright": is_bright,
            }
        )
    pd.DataFrame(rows).to_csv(root / "index.csv", index=False)
    return root


def numbers(folder: Path) -> dict[str, Any]:
    """Return the evaluation of a folder."""
    loaded: dict[str, Any] = json.loads((folder / "evaluation.json").read_text())
    return loaded
