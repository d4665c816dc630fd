import ast
import importlib
import os
import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pytest
from omegaconf import DictConfig

from cxrlab.cli.console import listed

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))


@pytest.mark.slow
def test_the_wheel_works_alone_from_another_folder(tmp_path: Path, tiny_command: list[str]):
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(ROOT)], check=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"cxrlab/conf/train.yaml", "cxrlab/conf/data/nih.yaml", "cxrlab/py.typed"} <= names
    assert not any(name.startswith(("tests", "conf", "outputs")) for name in names)
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True)
    elsewhere.mkdir()
    env = {**os.environ, "PYTHONPATH": str(site)}

    def python(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=elsewhere,
            env=env,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert python("-c", "import cxrlab; print(cxrlab.__file__)").startswith(str(site))
    assert "densenet121" in python("-m", "cxrlab.train", "--help")
    assert "Everything is in" in python(
        "-m", "cxrlab.train", *tiny_command, "debug=one_batch", "callbacks.heatmaps=null"
    )
    assert list(elsewhere.glob("outputs/*/*/results.csv"))


def test_every_command_of_the_readme_composes_and_fits_the_code(composed: Callable[..., DictConfig]):
    text = (ROOT / "README.md").read_text().replace("\\\n", " ")
    commands = re.findall(r"^python -m cxrlab\.(\w+)([^#\n]*)", text, flags=re.MULTILINE)
    assert len(commands) >= 12
    for program, command in commands:
        words = shlex.split(command)
        if "--help" in words or "--cfg" in words:
            continue
        overrides = [word for word in words if word != "-m" and not word.startswith("resume=")]
        singles = [re.sub(r"^([\w./@]+=)([^\[,]+),.*", r"\1\2", override) for override in overrides]
        module = importlib.import_module(f"cxrlab.{program}")
        if hasattr(module, "LISTS"):
            singles = listed(overrides, module.LISTS)
        module.checked(composed(*singles, "run_dir=/nowhere", config_name=program))


def test_only_the_config_and_the_commands_import_hydra():
    users = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] == "hydra" for name in names):
                users.append(path.name)
    assert set(users) == {
        "config.py",
        "console.py",
        "train.py",
        "prepare.py",
        "evaluate.py",
        "compare.py",
        "explain.py",
    }


def test_no_source_asserts():
    for path in SOURCES:
        tree = ast.parse(path.read_text())
        assert not any(isinstance(node, ast.Assert) for node in ast.walk(tree)), path


def test_the_lower_bounds_are_not_above_what_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = dict(line.lower().replace("_", "-").split("==") for line in lines if "==" in line)
    requirements = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    for requirement in requirements:
        if requirement.startswith("cxrlab["):
            continue
        name, low = requirement.lower().split(",")[0].split(">=")
        assert tuple(map(int, re.findall(r"\d+", pinned[name])[:2])) >= tuple(map(int, low.split(".")[:2])), (
            name
        )
    assert "://" not in "".join(lines)
