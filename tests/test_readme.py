"""The README, the pages that carry its figures, and how to cite: what they say is what files say."""

import ast
import csv
import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import cxrlab
from cxrlab.evaluation import caveats
from cxrlab.files import read_json

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
BACKGROUND = ROOT / "docs" / "background"
CODE = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
SHORT = {"xrv": "torchxrayvision", "LHT": "lightning-hydra-template"}
EIGHT = [
    "torchxrayvision", "MONAI", "AutoGluon", "nnU-Net", "anomalib", "lightning-hydra-template", "timm", "fastai",
]  # fmt: skip
META = ("version", "commit", "date of the commit")


@pytest.fixture(scope="module")
def results_page() -> ModuleType:
    spec = importlib.util.spec_from_file_location("results_page", ROOT / "benchmarks" / "results_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tables_of(path: Path) -> list[list[list[str]]]:
    """Return the tables of a page: rows of cells, the first the head."""
    blocks = re.findall(r"(?:^\|.*\n)+", path.read_text(), flags=re.MULTILINE)
    return [
        [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
        for block in blocks
    ]


def test_the_readme_is_short_and_narrow():
    text = README.read_text()
    words = re.findall(r"\w[\w.'%-]*", re.sub(r"\]\([^)]*\)|<!--.*?-->", "]", CODE.sub("", text)))
    assert 300 < len(words) <= 900  # tables and alternative texts among them
    assert max(map(len, text.splitlines())) <= 110
    assert "For research only" in text


def test_the_pictures_are_two_small_and_described():
    pictures = re.findall(r"!\[([^\]]*)\]\(([^)]*)\)", README.read_text())
    assert len(pictures) == 2
    for alternative, name in pictures:
        assert len(alternative.split()) >= 8
        content = (ROOT / name).read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) < 300_000


def test_the_first_commands_are_those_that_the_makefile_has():
    block = next(code for kind, code in CODE.findall(README.read_text()) if kind == "sh")
    targets = re.findall(r"^make (\w+)", block, flags=re.MULTILINE)
    assert targets == ["train", "test"]
    assert all(f"\n{target}:" in (ROOT / "Makefile").read_text() for target in targets)


def python_block() -> str:
    (code,) = [code for kind, code in CODE.findall(README.read_text()) if kind == "python"]
    return code


def test_the_python_is_ten_lines():
    lines = [line for line in python_block().splitlines() if line.strip()]
    assert 8 <= len(lines) <= 12
    ast.parse(python_block())


@pytest.mark.slow
def test_the_python_runs(finished_run: Path, capsys: pytest.CaptureFixture[str]):
    run = cxrlab.load_run(finished_run)
    image = run.image_path(run.manifest["image"].iloc[0])
    code = (
        python_block()
        .replace("outputs/2026-01-31/12-00-00", str(finished_run))
        .replace("new.png", str(image))
    )
    exec(compile(code, str(README), "exec"), {})
    printed = capsys.readouterr().out
    assert re.search(r"^Effusion: AUROC 0\.\d{3} \(0\.\d{3} to [01]\.\d{3}\)$", printed, flags=re.MULTILINE)
    assert "probability/Effusion" in printed
    assert re.search(r"^test +\d+$", printed, flags=re.MULTILINE)


def test_the_comparison_is_that_of_the_file_of_alternatives():
    with (BACKGROUND / "alternatives.csv").open() as file:
        head, *rows = list(csv.reader(file))
    assert head == ["question", "cxrlab", *EIGHT]
    assert [row[0] for row in rows[: len(META)]] == list(META)
    questions = rows[len(META) :]
    assert len(questions) == 10
    assert {cell for row in questions for cell in row[1:]} == {"yes", "part", "no"}
    assert "no" in [row[1] for row in questions]  # there is something that others do and we do not
    assert all(re.fullmatch(r"[0-9a-f]{7}", commit) for commit in rows[1][2:])

    ours = next(table for table in tables_of(README) if "MONAI" in table[0])
    assert [SHORT.get(name, name) for name in ours[0]] == ["", *head[1:]]
    assert ours[2:] == questions
    page, looked_at = tables_of(BACKGROUND / "alternatives.md")
    assert page == ours
    assert looked_at[0] == ["project", *META]
    assert looked_at[2:] == [[head[column], *(row[column] for row in rows[:3])] for column in range(1, 10)]
    text = (BACKGROUND / "alternatives.md").read_text()
    assert all(f"- **{name}**" in text for name in EIGHT)
    day = re.search(r"Looked\s+at\s+on\s+(\d{4}-\d{2}-\d{2})", text)[1]
    assert f"Looked at on {day}" in README.read_text()


def test_the_pages_are_what_the_generator_makes_of_the_files(results_page: ModuleType):
    results = results_page.read_results()
    assert results
    for page, text in (
        (results_page.PAGE, results_page.tables(results)),
        (results_page.README, results_page.short_table(results)),
    ):
        assert results_page.page_with(page.read_text(), text) == page.read_text(), (
            f"{page.name}: run python benchmarks/results_page.py"
        )
    synthetic = results["synthetic"]["pointing"]["Grad-CAM"]
    percent = [
        f"{100 * each['value']:.0f} % ({100 * each['low']:.0f} to {100 * each['high']:.0f} %)"
        for each in synthetic.values()
    ]
    section = README.read_text().split("Is the heatmap to be believed?")[1].split("##")[0]
    assert re.findall(r"\d+ % \(\d+ to \d+ %\)", " ".join(section.split())) == percent
    assert section.count("%") == 2 * len(percent)
    for page in (results_page.PAGE, results_page.README):
        text = " ".join(page.read_text().split())
        assert all(one["note"] in text for one in results.values() if "note" in one), page.name
        assert all(one["date"] in text for one in results.values()), page.name
    assert {"malaria", "pneumonia"} <= {name for name, one in results.items() if "note" in one}


def test_a_page_without_the_lines_is_an_error(results_page: ModuleType):
    with pytest.raises(ValueError, match="lines of comment between which the tables go"):
        results_page.page_with("# Results\n", "| a |")


@pytest.mark.slow
def test_a_record_holds_figures_and_nobody(results_page: ModuleType, finished_run: Path):
    record = results_page.record(finished_run)
    evaluation = read_json(finished_run / "evaluation.json")
    assert record["auroc"]["value"] == pytest.approx(evaluation["macro"]["auroc"]["value"], abs=1e-6)
    assert set(record["findings"]) == set(evaluation["labels"])
    text = json.dumps(record)
    run = cxrlab.load_run(finished_run)
    assert not any(Path(image).name in text for image in run.manifest["image"])
    assert str(finished_run) not in text
    assert str(run.config["data"]["root"]) not in text


def test_places_are_left_out_of_commands(results_page: ModuleType):
    without = results_page._without_place
    assert without("data.root=/home/someone/nih") == "data.root=<root>"
    assert without("'data.split.file=mine.csv'") == "data.split.file=<file>"
    assert without("logger.wandb.name=a/b") == "logger.wandb.name=<name>"
    assert without("optimizer.lr=1e-3") == "optimizer.lr=1e-3"
    words = ["python", "-m", "cxrlab.train", "data=nih", "data.root=/home/someone/nih"]
    assert results_page._command(words) == "cxrlab train data=nih data.root=<root>"
    assert results_page._command(["/home/someone/own.py", "mine"]) == "by another program"


def test_published_results_kept_are_of_this_version_or_older():
    for path in (ROOT / "docs" / "results").glob("*.json"):
        one = read_json(path)
        assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", one["date"])
        assert "/" not in one["command"]
        assert one["hardware"]["processor"]
        assert one["auroc"]["low"] <= one["auroc"]["value"] <= one["auroc"]["high"]


def test_famous_numbers_are_those_of_the_code():
    (table,) = tables_of(BACKGROUND / "famous_numbers.md")
    page = {row[0]: row for row in table[2:]}
    for name, _, mean in caveats._MEANS:
        assert float(page[name][1]) == mean
        assert page[name][2] == "official"
    sources = {name: source for name, source, _ in caveats._MEANS}
    assert set(sources) == {name for name, row in page.items() if row[2] == "official"}
    for name, source in sources.items():
        assert ("best epoch of the test part" in source) == page[name][3].startswith("maximum"), name
    assert float(page["CheXNet"][1]) == round(sum(caveats._CHEXNET) / len(caveats._CHEXNET), 4)
    assert page["CheXNet"][2] == "its own random split by patient, not disclosed"
    assert page["EVA-X-B"][3] == "maximum over evaluations of the test part"
    assert all(cell for row in table[2:] for cell in row)
    sources = re.findall(r"^(\d+)\. ", (BACKGROUND / "famous_numbers.md").read_text(), flags=re.MULTILINE)
    assert sorted({int(row[4]) for row in table[2:]}) == [int(number) for number in sources]
    assert f"{caveats.NUM_OFFICIAL_TEST:,}" in (BACKGROUND / "famous_numbers.md").read_text()


def test_how_to_cite_can_be_read():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    required = {"cff-version", "message", "title", "authors"}
    assert required | {"type", "version", "license"} <= set(citation)
    assert citation["cff-version"] == "1.2.0"
    assert str(citation["version"]) == cxrlab.__version__
    assert citation["license"] == "Apache-2.0"
    assert all("name" in author or "family-names" in author for author in citation["authors"])
