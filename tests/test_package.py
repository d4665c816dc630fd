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

import cxrlab
from cxrlab.cli.config import config_dir
from cxrlab.cli.console import listed

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "cxrlab"
SOURCES = sorted(PACKAGE.rglob("*.py"))
COMMANDS = (
    "train", "evaluate", "predict", "compare", "explain", "prepare", "share", "review", "serve", "export",
    "config", "init", "completion",
)  # fmt: skip


@pytest.mark.slow
def test_the_wheel_works_alone_from_another_folder(tmp_path: Path, tiny_command: list[str]):
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(ROOT)], check=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"cxrlab/conf/train.yaml", "cxrlab/conf/data/nih.yaml", "cxrlab/py.typed"} <= names
    assert {
        f"cxrlab/cli/project/{name}.txt" for name in ("Makefile", ".gitignore", "tests/test_networks.py")
    } <= names
    assert {f"cxrlab/deploy/service/page/{name}" for name in ("index.html", "page.js", "page.css")} <= names
    assert not any(name.startswith(("tests", "conf", "outputs")) for name in names)
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True)
    elsewhere.mkdir()
    env = {**os.environ, "PYTHONPATH": str(site)}

    def output_of(*command: str) -> str:
        done = subprocess.run(
            command, cwd=elsewhere, env=env, capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def python(*arguments: str) -> str:
        return output_of(sys.executable, *arguments)

    assert python("-c", "import cxrlab; print(cxrlab.__file__)").startswith(str(site))
    for listing in (output_of(str(site / "bin" / "cxrlab"), "--help"), python("-m", "cxrlab", "--help")):
        assert set(COMMANDS) <= set(re.findall(r"\w+", listing))
    assert "densenet121" in output_of(str(site / "bin" / "cxrlab"), "train", "--help")
    assert "Everything is in" in python(
        "-m", "cxrlab.train", *tiny_command, "debug=one_batch", "callbacks.heatmaps=null"
    )
    assert list(elsewhere.glob("outputs/*/*/results.csv"))


MADE = {"_build", "generated"}  # by make docs
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(page for page in ROOT.glob("docs/**/*.md") if not MADE & set(page.relative_to(ROOT).parts)),
    ]
)
SHELL = re.compile(r"^```sh\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^(?:python -m )?cxrlab[ .](\w+)([^#\n]*)", flags=re.MULTILINE)

SWEEP = re.compile(r"=(?:tag\(\w+, ?)?(?:interval|range|choice)\(([^,)]+).*")  # its first value


def commands_of(page: Path) -> list[tuple[str, str]]:
    """Return (command, arguments) of each line of a page's shell blocks that calls cxrlab."""
    return COMMAND.findall("".join(SHELL.findall(page.read_text())).replace("\\\n", " "))


@pytest.mark.parametrize(
    "page", [page for page in PAGES if commands_of(page)], ids=lambda page: page.relative_to(ROOT).as_posix()
)
def test_every_command_of_the_pages_composes_and_fits_the_code(
    page: Path, composed: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CXRLAB_TOKEN", "a-token-of-some-length")  # cxrlab serve, for other computers
    for program, command in commands_of(page):
        words = shlex.split(command)
        if program in ("init", "completion"):  # they have no config
            continue
        if any(word in ("--help", "--cfg") or "my_lab" in word or word == "--config-dir" for word in words):
            continue
        if any(word.startswith("resume_sweep=") for word in words):  # the folder has the config
            continue
        overrides = [word for word in words if word != "-m" and not word.startswith("resume=")]
        firsts = [SWEEP.sub(r"=\1", override) for override in overrides]
        singles = [re.sub(r"^([\w./@]+=)([^\[,]+),.*", r"\1\2", override) for override in firsts]
        module = importlib.import_module(f"cxrlab.{program}")
        if hasattr(module, "LISTS"):
            singles = listed(overrides, module.LISTS)
        has_run_dir = (config_dir() / f"{program}.yaml").read_text().count("\nrun_dir:")
        folder = ["run_dir=/nowhere"] if has_run_dir else []  # others have output=, or write nothing
        module.checked(composed(*singles, *folder, config_name=program))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_of_the_pages_leads_somewhere(page: Path):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), f"{page.name}: {link}"
        headings = re.findall(r"^#+ (.*)$", target.read_text(), flags=re.MULTILINE) if anchor else []
        slugs = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
        assert not anchor or anchor in slugs, f"{page.name}: {link}"


def test_only_the_config_and_the_commands_import_hydra():
    users = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] == "hydra" for name in names):
                users.add(path.relative_to(PACKAGE).as_posix())
    commands = {f"{command}.py" for command in COMMANDS}
    launchers = {
        f"sweeps/{name}.py"
        for name in (
            "callback",
            "jobs",
            "processes",
            "search",
            "search_results",
            "search_space",
            "search_sweeper",
            "slurm",
        )
    }
    assert {user for user in users if not user.startswith("cli/")} <= launchers | commands


def test_no_source_asserts():
    for path in SOURCES:
        tree = ast.parse(path.read_text())
        assert not any(isinstance(node, ast.Assert) for node in ast.walk(tree)), path


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*/__init__.py")), ids=lambda path: path.parent.name)
def test_every_room_says_what_comes_in_and_what_goes_out(path: Path):
    description = ast.get_docstring(ast.parse(path.read_text())) or ""
    assert len(description.splitlines()) >= 3
    room = importlib.import_module(f"cxrlab.{path.parent.name}")
    assert all(getattr(room, public) is not None for public in room.__all__)


def test_the_package_exports_what_a_notebook_needs_and_imports_it_late():
    assert {"Classifier", "DataModule", "Manifest", "load_run"} <= set(cxrlab.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Clasifier'"):
        cxrlab.Clasifier  # noqa: B018
    code = "import sys, cxrlab; print([name for name in ('torch', 'pandas', 'numpy', 'hydra') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_lower_bounds_are_not_above_what_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = dict(line.lower().replace("_", "-").split("==") for line in lines if "==" in line)
    requirements = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]

    def version(text: str) -> tuple[int, ...]:
        return tuple(map(int, re.findall(r"\d+", text)))

    for requirement in requirements:
        if requirement.startswith("cxrlab["):
            continue
        name, low = requirement.lower().split(",")[0].split(">=")
        assert version(pinned[name]) >= version(low), name
    assert "://" not in "".join(lines)
