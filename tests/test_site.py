"""The site: it builds without a warning, every lesson in it runs, and every link and anchor leads somewhere.

Building the site is what executes the notebooks of ``docs/learn/``: no other test needs to.
"""

import importlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from urllib.parse import unquote

import pytest
from bs4 import BeautifulSoup
from filelock import FileLock

import cxrlab
from cxrlab.cli.commands import COMMANDS
from cxrlab.evaluation import EvaluationResult
from cxrlab.files import config_dir

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PACKAGE = ROOT / "src" / "cxrlab"
MADE = {"_build", "generated"}
GROUPS = sorted(
    {path.parent.relative_to(config_dir()).as_posix() for path in config_dir().glob("*/**/*.yaml")}
)
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py") if "__all__" in path.read_text())
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage")  # fmt: skip
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "link": "href"}


def copy_of_the_project(folder: Path) -> Path:
    """Return a copy of the pages beside links to all else, so that what is generated stays out of the checkout."""
    for path in ROOT.iterdir():
        if not path.name.startswith(".") and path.name not in ("docs", "outputs"):
            (folder / path.name).symlink_to(path)
    shutil.copytree(DOCS, folder / "docs", ignore=shutil.ignore_patterns(*MADE))
    return folder


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Return the folder of the built site; of several workers the first one builds it."""
    common = tmp_path_factory.getbasetemp()
    common = common if worker_id == "master" else common.parent
    html = common / "site" / "docs" / "_build" / "html"
    with FileLock(common / "site.lock"):
        if (errors := common / "site.txt").is_file():  # of the worker that built it
            pytest.fail(errors.read_text())
        if not html.is_dir():
            (common / "site").mkdir()
            docs = copy_of_the_project(common / "site") / "docs"
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", str(docs), f"{html}.part"]
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
            if done.returncode:
                errors.write_text(done.stderr[-6000:])
                pytest.fail(done.stderr[-6000:])
            Path(f"{html}.part").rename(html)
    return html


def pages_of(folder: Path) -> dict[Path, BeautifulSoup]:
    return {
        path: BeautifulSoup(path.read_text(), "html.parser")
        for path in sorted(folder.rglob("*.html"))
        if "_static" not in path.parts and "_downloads" not in path.parts
    }


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, BeautifulSoup]:
    return pages_of(site)


def broken_links(pages: dict[Path, BeautifulSoup]) -> tuple[int, list[str]]:
    """Return how many links there are, and those that lead nowhere."""
    ids = {
        path: {tag["id"] for tag in soup.find_all(id=True)} | {tag["name"] for tag in soup.find_all("a", attrs={"name": True})}
        for path, soup in pages.items()
    }  # fmt: skip
    checked, broken = 0, []
    for path, soup in pages.items():
        for tag in soup.find_all(lambda tag: tag.has_attr("href") or tag.has_attr("src")):
            link = tag.get("href", tag.get("src"))
            if re.match(r"(https?|mailto|data):", link) or link in ("#", ""):
                continue
            checked += 1
            name, _, anchor = unquote(link).partition("#")
            target = (path.parent / name.partition("?")[0]).resolve() if name else path
            if not target.is_file() or (anchor and target in ids and anchor not in ids[target]):
                broken.append(f"{path.name}: {link}")
    return checked, broken


def test_the_link_check_finds_a_missing_page_and_a_missing_anchor(tmp_path: Path):
    (tmp_path / "a.html").write_text(
        '<p id="x"><a href="b.html#y">1</a><a href="#x">2</a><a href="b.html">3</a>'
    )
    (tmp_path / "b.html").write_text('<a href="a.html#z">4</a><a href="c.html">5</a><img src="no.png">')
    assert broken_links(pages_of(tmp_path)) == (
        6,
        ["a.html: b.html#y", "b.html: a.html#z", "b.html: c.html", "b.html: no.png"],
    )


@pytest.mark.slow
def test_every_link_and_anchor_of_the_site_leads_somewhere(pages: dict[Path, BeautifulSoup]):
    checked, broken = broken_links(pages)
    assert not broken
    assert checked > 100 * len(pages) / 2  # each page has a list of all others
    print(f"{len(pages)} pages, {checked} links")


@pytest.mark.slow
def test_nothing_of_the_site_is_fetched_from_elsewhere(site: Path, pages: dict[Path, BeautifulSoup]):
    fetched = [
        f"{path.name}: {tag}"
        for path, soup in pages.items()
        for name, attribute in LOADED.items()
        for tag in soup.find_all(name)
        if re.match(r"(https?:)?//", tag.get(attribute) or "")
    ]
    fetched += [
        f"{path.name}: {address}"
        for path in site.rglob("*.css")
        for address in re.findall(r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^\"')]+)", path.read_text())
    ]
    fetched += [path.name for path, soup in pages.items() if soup.find_all(string=re.compile("MathJax"))]
    assert not fetched


@pytest.mark.slow
def test_every_page_of_docs_is_in_the_site_and_nothing_else(site: Path, pages: dict[Path, BeautifulSoup]):
    sources = {
        path.relative_to(DOCS).with_suffix("").as_posix()
        for suffix in ("md", "ipynb")
        for path in DOCS.rglob(f"*.{suffix}")
        if not MADE & set(path.relative_to(DOCS).parts) and ".ipynb_checkpoints" not in path.parts
    }
    built = {path.relative_to(site).with_suffix("").as_posix() for path in pages}
    generated = {name for name in built if name.startswith("reference/generated/")}
    assert built - generated - {"genindex", "search", "py-modindex"} == sources
    folders = {name: len([page for page in generated if page.split("/")[2] == name]) for name in ("config", "commands", "api")}  # fmt: skip
    assert folders == {"config": len(GROUPS) + 1, "commands": len(COMMANDS) + 1, "api": len(ROOMS) + 1}
    for name in ("readme", "architecture", "changelog", "contributing", "security"):
        assert f"reference/generated/project/{name}" in generated


@pytest.mark.slow
def test_the_reference_has_every_name_group_key_command_and_error(
    site: Path, pages: dict[Path, BeautifulSoup]
):
    reference = site / "reference" / "generated"
    for room in ROOMS:
        soup = pages[reference / "api" / f"{room}.html"]
        for name in importlib.import_module(f"cxrlab.{room}").__all__:
            assert soup.find(id=f"cxrlab.{room}.{name}"), f"cxrlab.{room}.{name}"
    text = pages[reference / "api" / "index.html"].get_text()
    assert all(f"cxrlab.{name}" in text for name in cxrlab.__all__)
    for group in GROUPS:
        soup = pages[reference / "config" / f"{group.replace('/', '_')}.html"]
        titles = [heading.get_text() for heading in soup.find_all("h2")]
        for path in (config_dir() / group).glob("*.yaml"):
            assert any(title.startswith(f"{group}={path.stem}") for title in titles), path
    for command in COMMANDS:
        text = pages[reference / "commands" / f"{command}.html"].get_text()
        assert f"cxrlab {command}" in text
    assert "sensitivity@0.9" in pages[reference / "commands" / "evaluate.html"].get_text()
    text = pages[reference / "messages.html"].get_text()
    assert "MissingPackageError" in text
    assert "must be at least" in text


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    if not (CHROMIUM and DRIVER):
        pytest.skip("chromium or chromedriver is not installed")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_page_load_timeout(60)
    yield driver
    driver.quit()


@pytest.mark.slow
def test_pages_fit_a_phone(site: Path, pages: dict[Path, BeautifulSoup], browser):
    metrics = {"width": 380, "height": 900, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    wide = {}
    for path in pages:
        if path.name not in ("genindex.html", "py-modindex.html"):
            browser.get(path.as_uri())
            width = browser.execute_script("return document.documentElement.scrollWidth")
            wide |= {path.relative_to(site).as_posix(): width} if width > 380 else {}
    assert not wide


@pytest.mark.slow
def test_the_search_finds_a_page(site: Path, browser):
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get((site / "search.html").as_uri() + "?q=pneumothorax")
    found = "return document.querySelectorAll('#search-results li a').length"
    assert WebDriverWait(browser, 30).until(lambda browser: browser.execute_script(found))


def test_the_page_on_file_formats_lists_what_an_evaluation_holds():
    page = (DOCS / "reference" / "file_formats.md").read_text()
    section = page.partition("## evaluation.json")[2].partition("\n## ")[0]
    keys = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert sorted(keys) == sorted({field.name for field in fields(EvaluationResult)} - {"curves"})


@pytest.fixture(scope="module")
def extension() -> Iterator[dict]:
    """Return the modules that write the reference."""
    sys.path.insert(0, str(DOCS / "_ext"))
    yield {name: importlib.import_module(name) for name in ("reference", "links")}
    sys.path.remove(str(DOCS / "_ext"))


def test_the_drawing_of_the_architecture_names_rooms_that_there_are():
    drawing = (DOCS / "pictures" / "architecture.svg").read_text()
    rooms = re.findall(r'class="room">([\w., ]+)<', drawing)
    assert len(rooms) > 10
    for name in ", ".join(rooms).split(", "):
        module, _, attribute = name.rpartition(".")
        path = PACKAGE / name.replace(".", "/")
        is_module = path.is_dir() or path.with_suffix(".py").is_file()
        assert is_module or hasattr(importlib.import_module(f"cxrlab.{module}"), attribute), name


def test_what_every_config_group_is_for_is_written_down(extension: dict):
    assert sorted(extension["reference"].GROUPS) == [group for group in GROUPS if group != "local"]


def test_a_key_has_its_comment_or_else_its_argument_s_docstring(extension: dict):
    text = "# A loss.\n_target_: cxrlab.losses.AsymmetricLoss\n# Of <all> | labels.\ngamma_pos: 1.0\nclip: 0.05\n"
    table = extension["reference"].key_table(text, "cxrlab.losses.AsymmetricLoss").splitlines()
    assert table[2:] == [
        "| `gamma_pos` | `1.0` | Of `<all>` \\| labels. |",
        "| `clip` | `0.05` | Between 0 and 0.99. |",
    ]


def test_links_that_leave_docs_lead_to_pages_of_the_site(extension: dict):
    moved = extension["links"].moved
    page = DOCS / "howto" / "x.md"
    text = "[a](../../README.md#start) [b](train.md) [c](../../conf/loss/focal.yaml) [d](https://x.org/y.md) [e](#f)"
    assert moved(text, page, page) == (
        "[a](../reference/generated/project/readme.md#start) [b](train.md) "
        "[c](../reference/generated/config/loss.md) [d](https://x.org/y.md) [e](#f)"
    )
    made = extension["links"].GENERATED / "project" / "readme.md"
    assert moved('<img src="docs/x.png"> [t](docs/howto/train.md)', ROOT / "README.md", made) == (
        '<img src="../../../x.png"> [t](../../../howto/train.md)'
    )
