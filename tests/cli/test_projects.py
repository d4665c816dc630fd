"""``cxrlab init``: a project of one's own that is tested, trained and evaluated as it was written."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from cxrlab.cli.projects import check_name, write_project
from cxrlab.errors import ConfigError, OutputError

ROOT = Path(__file__).parents[2]


def done_in(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run Python in a folder, as the project's Makefile does."""
    env = {**os.environ, "PYTHONPATH": f"src{os.pathsep}{ROOT / 'src'}"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False
    )  # fmt: skip


def test_it_writes_a_package_its_config_a_test_and_a_makefile(tmp_path: Path):
    folder = tmp_path / "below" / "lung_study"
    files = write_project(folder)
    written = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert sorted(files) == written
    assert {str(file) for file in files} >= {
        "Makefile", "README.md", ".gitignore", "pyproject.toml", "conf/experiment/first.yaml",
        "src/lung_study/__init__.py", "src/lung_study/networks.py", "tests/test_networks.py",
    }  # fmt: skip
    texts = {file: (folder / file).read_text() for file in files}
    assert not [file for file, text in texts.items() if "my_project" in text]
    assert tomllib.loads(texts[Path("pyproject.toml")])["project"]["name"] == "lung_study"
    assert yaml.safe_load(texts[Path("conf/experiment/first.yaml")])["trust"] == ["lung_study"]
    for command in (["check", "--isolated"], ["format", "--check", "--isolated"]):
        checked = done_in(folder, "-m", "ruff", *command, ".")
        assert checked.returncode == 0, checked.stdout


def test_a_folder_that_exists_is_left_as_it_is(tmp_path: Path):
    folder = tmp_path / "lung_study"
    folder.mkdir()
    with pytest.raises(OutputError, match="exists already"):
        write_project(folder)
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lung-study", "letters, digits and _ only.* For example: lung_study"),
        ("3d", "begins with a letter.* For example: my_project"),
        ("class", "no word of Python"),
        ("größe", "letters, digits and _ only"),
        ("", "begins with a letter"),
        ("lung_", "For example: lung$"),
        ("conf", "a folder in it is called so"),
        ("torch", r"already \(.*torch.*For example: my_torch"),
        ("os", "already"),
        ("cxrlab", "already"),
        ("dill", "already|is not to be trusted"),
    ],
)
def test_a_name_that_no_package_can_have_is_explained(name: str, message: str):
    with pytest.raises(ConfigError, match=f"^'{name}' cannot be the name of a project: .*{message}"):
        check_name(name)


@pytest.mark.parametrize("name", ["lung_study", "a", "Lab7", "unused_name_of_a_package"])
def test_other_names_are_fine(name: str):
    check_name(name)


def test_the_command_says_what_it_wrote_and_how_to_go_on(tmp_path: Path):
    done = done_in(tmp_path, "-m", "cxrlab", "init", "lung_study")
    assert done.returncode == 0, done.stderr
    assert "cd lung_study\n" in done.stdout
    assert "  src/lung_study/networks.py\n" in done.stdout
    again = done_in(tmp_path, "-m", "cxrlab", "init", "lung_study")
    assert again.returncode == 1
    assert again.stderr == "lung_study exists already. Give another name, or remove it first.\n"
    two = done_in(tmp_path, "-m", "cxrlab", "init", "one", "two")
    assert two.returncode == 2
    assert "cxrlab init one two: give one name." in two.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["lung_study"]


def test_it_imports_neither_torch_nor_hydra(tmp_path: Path):
    code = (
        "import sys\nfrom cxrlab.init import main\nsys.argv = ['cxrlab init', 'lung_study']\nmain()\n"
        "print('IMPORTED', [name for name in ('torch', 'hydra', 'pandas', 'numpy') if name in sys.modules])"
    )
    done = done_in(tmp_path, "-c", code)
    assert "IMPORTED []" in done.stdout, done.stderr


@pytest.mark.slow
def test_it_passes_its_own_tests_trains_and_is_evaluated(tmp_path: Path, tiny_command: list[str]):
    folder = tmp_path / "lung_study"
    write_project(folder)
    tested = done_in(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert tested.returncode == 0, tested.stdout
    assert "3 passed" in tested.stdout
    first = [word for word in tiny_command if not word.startswith(("data.image_size", "trainer.max_epochs"))]
    trained = done_in(
        folder, "-m", "cxrlab", "train", "--config-dir", "conf", "experiment=first", *first, "trainer.max_epochs=1"
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr + trained.stdout
    assert "Training SmallNet" in trained.stdout
    (run,) = folder.glob("outputs/*/*")
    evaluate = ["-m", "cxrlab", "evaluate", f"run={run}", "trust=[lung_study]"]
    evaluated = done_in(folder, *evaluate)
    assert evaluated.returncode == 0, evaluated.stderr + evaluated.stdout
    untrusted = done_in(folder, *evaluate[:-1])
    assert untrusted.returncode == 1
    assert "add trust=[lung_study]" in untrusted.stderr + untrusted.stdout


@pytest.mark.slow
def test_make_try_works_as_it_is(tmp_path: Path, tiny_command: list[str]):
    folder = tmp_path / "lung_study"
    write_project(folder)
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        ["make", "try", f"PYTHON={sys.executable}", f"ARGS={' '.join(tiny_command)}"],
        cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    assert "Everything is in" in done.stdout
