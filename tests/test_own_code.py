"""docs/howto/own_code.md: what a person writes there works."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "howto" / "own_code.md"


def listings(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """A folder with the package and the YAML files of the page."""
    for listing in listings("python") + listings("yaml"):
        if named := re.match(r"# ((?:my_lab|conf)/[\w/]+\.\w+)\n", listing):
            path = tmp_path / named[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(listing)
    (tmp_path / "my_lab" / "__init__.py").touch()
    return tmp_path


def cxrlab(lab: Path, *arguments: str) -> str:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(lab), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, "-m", "cxrlab", *arguments],
        cwd=lab, env=env, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_doors_of_the_page_work_together(lab: Path, tiny_command: list[str]):
    mine = [
        "--config-dir", "conf", "loss=rare", "model=small_net", "trust=[my_lab]",
        "metrics=[my_lab.metrics.squared_error]", "monitor=val/squared_error", "monitor_mode=min",
        "+callbacks.count={_target_: my_lab.training.CountEpochs, path: epochs.txt}",
        "~optimizer", "+optimizer={_target_: torch.optim.NAdam, _partial_: true, lr: 1e-3}",
        "~scheduler", "+scheduler={_target_: my_lab.training.halving, _partial_: true}",
        "~augment", "+augment={_target_: my_lab.training.Noise, amount: 3.0}",
        "report.sections=[my_lab.report.our_section]",
    ]  # fmt: skip
    cxrlab(lab, "train", *mine, *tiny_command, "report.page=true", "hydra.run.dir=run")
    assert (lab / "epochs.txt").read_text() == "1"
    page = (lab / "run" / "report.html").read_text()
    assert "From our lab" in page
    assert "Squared error" in page
    cxrlab(
        lab, "evaluate", "run=run", "trust=[my_lab]", "part=val", "evaluation.num_resamples=100", "name=val"
    )
    assert (lab / "run" / "evaluations" / "val" / "evaluation.json").is_file()


@pytest.mark.slow
def test_the_notebook_of_the_page_runs(lab: Path):
    program, predicting = [listing for listing in listings("python") if not listing.startswith("# my_lab")]
    phantoms = "reader=lambda root: synthetic.read(root, num_patients=40, size=64)"
    small = (
        program.replace("reader=synthetic.read", phantoms)
        .replace("image_size=128", "image_size=32")
        .replace("max_epochs=3", "max_epochs=1, accelerator='cpu'")
    )
    small += predicting + "assert 'test/auroc' in metrics[0] and batches[0].shape[1] == len(labels)\n"
    subprocess.run([sys.executable, "-c", small], cwd=lab, check=True, capture_output=True, timeout=240)
    assert "Results by label" in (lab / "page" / "report.html").read_text()
    assert (
        len([line for line in program.splitlines() if line and not line.startswith(("import", "from"))]) <= 10
    )
