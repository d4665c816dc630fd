import os
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from omegaconf import DictConfig

from cxrlab import load_run
from cxrlab.sweeps.table import add_job
from cxrlab.train import train

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
pytestmark = [
    # The kernel's client uses parts of asyncio and of tornado that Python 3.12 and later deprecate.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*unclosed.*:ResourceWarning"),
]


def execute(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, **environment: str) -> str:
    """Run a notebook in a kernel of its own and return the text of its outputs."""
    for key, value in {"MPLBACKEND": "agg", "JUPYTER_PLATFORM_DIRS": "1", **environment}.items():
        monkeypatch.setenv(key, value)
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    client = NotebookClient(notebook, timeout=180, resources={"metadata": {"path": str(folder)}})
    client.execute()
    return str([cell.get("outputs") for cell in notebook.cells])


@pytest.mark.slow
def test_load_a_checkpoint(finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # Namesakes in other data sets below the same root, which cannot be read.
    run = load_run(finished_run)
    first = run.manifest[run.manifest["part"] == "test"]["image"].iloc[0]
    own = run.image_path(first)
    for folder in ("0-set", "z-set"):
        namesake = Path(run.config["data"]["root"]) / folder / first
        namesake.parent.mkdir(parents=True, exist_ok=True)
        namesake.write_bytes(b"no image")
    assert run.image_path(first) == own
    text = execute("01_load_a_checkpoint.ipynb", tmp_path, monkeypatch, CXRLAB_RUN=str(finished_run))
    assert "probability/Effusion" in text
    assert text.count("image/png") >= 1  # the Grad-CAM panel


@pytest.mark.slow
def test_compare_runs(tiny: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for job, rate in enumerate((1e-3, 1e-4)):
        # A job that was told to read the test part all the same: its rows must not get into the comparison.
        metric = train(tiny(tmp_path / "jobs" / f"rate-{job}", f"optimizer.lr={rate}", f"test={job == 0}"))
        row = {
            "job": job,
            "status": "completed",
            "metric": metric,
            "seconds": 1.0,
            "overrides": f"model=resnet10t optimizer.lr={rate}",
            "folder": f"jobs/rate-{job}",
            "error": "",
        }
        add_job(tmp_path / "sweep.csv", row, maximize=True)
    text = execute("02_compare_runs.ipynb", tmp_path, monkeypatch, CXRLAB_SWEEP=str(tmp_path))
    assert "lr=0.0001" in text
    assert "Cardiomegaly" in text


@pytest.mark.slow
def test_from_images_to_heatmaps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    settings = {"CXRLAB_LESSON": str(tmp_path / "lesson"), "CXRLAB_PATIENTS": "60", "CXRLAB_EPOCHS": "1"}
    settings["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"  # which shows figures
    text = execute("03_from_images_to_heatmaps.ipynb", tmp_path, monkeypatch, **settings)
    assert "by patient: []" in text
    assert "0.7: unweighted 1.9173, weighted 0.9754, by hand 0.9754, with an epsilon of 1 -0.4956" in text
    assert "0.3: unweighted 2.7646, weighted 0.9754, by hand 0.9754, with an epsilon of 1 -0.4956" in text
    assert "95% intervals, by patient." in text
    assert text.count("image/png") >= 6  # images, contributions, network, inputs, curves, Grad-CAM


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_are_kept_without_outputs(path: Path):
    notebook = nbformat.read(path, as_version=4)
    assert all(not cell.get("outputs") and not cell.get("execution_count") for cell in notebook.cells)
    assert os.fspath(path).isascii()
