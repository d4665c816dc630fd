"""What the site's build, which runs the lessons on drawn images, does not see of them."""

import importlib
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from omegaconf import DictConfig

from cxrlab.cli.config import config_dir

LESSONS = sorted((Path(__file__).parents[1] / "docs" / "learn").glob("*.ipynb"))
NAMES = [path.stem for path in LESSONS]
WITH_HINTS = ("01_pneumonia", "02_blood_cells", "03_from_scratch")  # for the exercises at the end
EXPERIMENTS = {
    "01_pneumonia": {"mobilenet_lab", "mobilenet_lab_lite", "pneumonia_transfer"},
    "02_blood_cells": {"malaria_baseline", "malaria_improved", "malaria_better"},
    "03_from_scratch": {
        *(f"pneumonia_cnn_{step}" for step in (1, 2, 3, 4)),
        "pneumonia_better",
    },
    "04_grey_vgg": {"vgg_grayscale"},
    "05_fourteen_findings": {"chexnet_course"},
}
REAL = {
    "01_pneumonia": "chest_xray",
    "02_blood_cells": "cell_images",
    "03_from_scratch": "chest_xray",
    "04_grey_vgg": "chest_xray",
    "05_fourteen_findings": "nih",
}
ROOT_LINE = "ROOT = None"


def _lesson(name: str) -> nbformat.NotebookNode:
    (path,) = (path for path in LESSONS if path.stem == name)
    return nbformat.read(path, as_version=4)


def _text(notebook: nbformat.NotebookNode, kind: str) -> str:
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == kind)


def _commands(text: str) -> list[tuple[str, str]]:
    blocks = re.findall(r"^```sh\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"^cxrlab (\w+)([^#\n]*)", "".join(blocks).replace("\\\n", " "), flags=re.MULTILINE)


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_lessons_are_kept_without_outputs(path: Path):
    notebook = nbformat.read(path, as_version=4)
    assert all(not cell.get("outputs") and not cell.get("execution_count") for cell in notebook.cells)
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


@pytest.mark.parametrize("name", NAMES)
def test_questions_have_answers_that_are_folded_away(name: str):
    text = _text(_lesson(name), "markdown")
    questions = [int(number) for number in re.findall(r"^\*\*Question (\d+)\.\*\*", text, flags=re.MULTILINE)]
    assert questions == list(range(1, len(questions) + 1))
    assert len(questions) >= 5
    pieces = re.split(r"^\*\*Question \d+\.\*\*", text, flags=re.MULTILINE)[1:]
    for number, piece in enumerate(pieces, start=1):
        # A blank line behind the summary: without one, Markdown in the answer is not rendered.
        assert piece.count("<details><summary>Answer</summary>\n\n") == 1, f"question {number}"
    blocks = len(questions) + (name in WITH_HINTS)
    assert text.count("<details>") == text.count("</details>") == blocks
    for cell in _lesson(name).cells:
        assert cell.source.count("<details>") == cell.source.count("</details>")


@pytest.mark.parametrize("name", NAMES)
def test_a_lesson_says_that_it_is_drawn_and_what_is_done_today(name: str):
    notebook = _lesson(name)
    first = notebook.cells[0].source
    assert first.startswith(f"# Lesson {int(name[:2])}: ")
    assert "**draws**" in first
    assert "numbers of drawings" in " ".join(first.split())
    assert notebook.cells[1].cell_type == "code"
    assert notebook.cells[1].source.count(ROOT_LINE) == 1
    assert "pip install" in notebook.cells[1].source
    code = _text(notebook, "code")
    assert "mkdtemp()" in code  # a folder of its own, where several people, or two builds, share a machine
    assert "gettempdir" not in code
    text = _text(notebook, "markdown")
    assert re.search(
        r"^## What the \w+ did, what it got wrong, what one does today$", text, flags=re.MULTILINE
    )
    named = set(re.findall(r"experiment=(\w+)", " ".join(words for _, words in _commands(text))))
    assert named == EXPERIMENTS[name]


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_commands_of_lessons_compose_and_fit_the_code(path: Path, composed: Callable[..., DictConfig]):
    commands = _commands(_text(nbformat.read(path, as_version=4), "markdown"))
    assert commands
    for program, words in commands:
        filled_in = re.sub(r"<(\w+)>", r"\1", words)  # <day> is for the reader to fill in
        overrides = [word for word in shlex.split(filled_in) if word != "-m"]
        singles = [re.sub(r"^([\w./@]+=)([^\[,]+),.*", r"\1\2", override) for override in overrides]
        has_run_dir = (config_dir() / f"{program}.yaml").read_text().count("\nrun_dir:")
        folder = ["run_dir=/nowhere"] if has_run_dir else []
        module = importlib.import_module(f"cxrlab.{program}")
        module.checked(composed(*singles, *folder, config_name=program))


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_links_and_experiments_of_lessons_lead_somewhere(path: Path):
    text = _text(nbformat.read(path, as_version=4), "markdown")
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in link:
            assert (path.parent / link.partition("#")[0]).exists(), link
    for name in re.findall(r"experiment=(\w+)", text):
        assert (config_dir() / "experiment" / f"{name}.yaml").is_file(), name


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the kernel's client
@pytest.mark.filterwarnings("ignore:.*unclosed.*:ResourceWarning")
@pytest.mark.parametrize("name", NAMES)
def test_the_same_cells_read_the_real_set(
    name: str, real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """All but the training: what is read, shown and split, on few of the real images."""
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    notebook = _lesson(name)
    source = notebook.cells[1].source.replace(ROOT_LINE, f"ROOT = {str(real_data / REAL[name])!r}", 1)
    notebook.cells[1].source = re.sub(r"MOST_IMAGES = (\d+|None)", "MOST_IMAGES = 40", source)
    training = re.compile(r"def (new_)?train(er)?\(")
    end = next(number for number, cell in enumerate(notebook.cells) if training.search(cell.source))
    notebook.cells = notebook.cells[:end]
    parts = nbformat.v4.new_code_cell("print(table.groupby('part').agg({'image': 'size'}).to_dict())")
    if "data = " in notebook.cells[2].source:
        parts.source = "print(root)\nassert 2 <= len(data.rows('train')) <= 40"
    if name != "02_blood_cells":  # its parts are drawn in the cell before the training
        notebook.cells.append(parts)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    text = str([cell.get("outputs") for cell in notebook.cells])
    assert str(real_data / REAL[name]) in text
    assert "'name': 'stderr'" not in text
    assert text.count("image/png") >= 1
