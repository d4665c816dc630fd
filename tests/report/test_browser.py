"""The pages in a real browser: nothing fails, nothing is fetched, nothing overflows, every anchor has its place."""

import base64
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrlab.data.audit import Finding
from cxrlab.data.readers.nih import LABELS
from cxrlab.report.comparison_page import write_comparison
from cxrlab.report.evaluation_page import write_report
from cxrlab.report.model_info import ModelInfo, NetworkInfo, Panel, Session, TrainingData

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium or chromedriver is not installed"),
]

FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--disable-dev-shm-usage")  # fmt: skip
LONG = "a very long name " * 6 + "x" * 90
HIGHEST = 8000  # pixels of a screenshot: a busy machine takes too long for the 30,000 of a phone
OVERFLOW = "return [document.documentElement.scrollWidth, window.innerWidth]"
SPILLING = """
const inside = e => e.closest('.wide, .scroll, details:not([open])');
return [...document.body.querySelectorAll('*')].filter(e => !inside(e)
  && e.getBoundingClientRect().right > window.innerWidth + 1).map(e => e.outerHTML.slice(0, 120));
"""
ANCHORS = """
const ids = [...document.querySelectorAll('[id]')].map(e => e.id);
const wanted = [...document.querySelectorAll('a[href^="#"]')].map(e => e.getAttribute('href').slice(1));
return {twice: ids.filter((id, n) => ids.indexOf(id) !== n), missing: wanted.filter(id => !ids.includes(id)),
        num: wanted.length};
"""


def panels(labels):
    """Noise is the worst that a JPEG can hold."""
    made = []
    for number, label in enumerate(labels):
        for outcome, probability, target in (("FP", 0.93, 0.0), ("FN", 0.04, 1.0), ("TP", 0.99, 1.0)):
            noise = np.random.default_rng(number).integers(0, 200, (90, 172), dtype=np.uint8)
            memory = io.BytesIO()
            Image.fromarray(noise).resize((516, 270)).save(memory, "JPEG", quality=80)
            made.append(Panel(finding=label, outcome=outcome, probability=probability, target=target,
                              image=f"images/{LONG}.png", jpeg=memory.getvalue()))  # fmt: skip
    return made


def full_model_info(labels):
    epochs = np.arange(8)
    metrics = pd.DataFrame({"epoch": epochs, "train/loss": np.exp(-epochs / 4), "val/loss": np.exp(-epochs / 5),
                            "val/auroc": 0.9 - 0.3 * np.exp(-epochs / 3)})  # fmt: skip
    session = {"command": ["python", "-m", "cxrlab.train", f"data.root=/data/{'x' * 120}"],
               "versions": {"python": "3.11.2", "cxrlab": "0.1.0"}, "commit": "0" * 40,
               "hardware": {"processor": "a processor", "cores": 2}, "seconds": {"fit": 12.5}}  # fmt: skip
    return ModelInfo(
        title=f"A run: {LONG}", kind="run", networks=[NetworkInfo("resnet10t")],
        trained_on=TrainingData(name="nih", parts={"train": (840, 280), "val": (120, 40)}),
        config={"data": {"root": f"/data/{'y' * 120}"}}, metrics=metrics, provenance=Session.from_json(session),
        audit=[Finding("drift", "warning", LONG, 1)],
        panels=panels(labels), notes=[LONG],
    )  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory, evaluated, compared):
    folder = tmp_path_factory.mktemp("pages")
    long_labels = ("Enlarged cardiomediastinum, or not", LONG)
    made = {"many": (LABELS, full_model_info(LABELS)), "one": (("Pneumonia",), ModelInfo(title="theirs.csv")),
            "long": (long_labels, full_model_info(long_labels))}  # fmt: skip
    pages = {
        name: write_report(folder / name, evaluated(labels), model_info, images=True)
        for name, (labels, model_info) in made.items()
    }
    comparison = compared(LABELS, models=("densenet121", "resnet50", LONG, "b"))
    pages["comparison"] = write_comparison(
        folder / "comparison", comparison, full_model_info(()).provenance, images=True
    )
    return pages


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_page_load_timeout(60)
    yield driver
    driver.quit()


def resize(browser, width):
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def shoot(browser, path: Path):
    """Write the page, or as much of it as fits into a picture, as PNG."""
    width, height = browser.execute_script("return [innerWidth, document.documentElement.scrollHeight]")
    clip = {"x": 0, "y": 0, "width": width, "height": min(height, HIGHEST), "scale": 1}
    wanted = {"format": "png", "captureBeyondViewport": True, "clip": clip}
    taken = browser.execute_cdp_cmd("Page.captureScreenshot", wanted)
    path.write_bytes(base64.b64decode(taken["data"]))


def requests(browser):
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]


@pytest.mark.parametrize("name", ["many", "one", "long", "comparison"])
def test_a_page_in_the_browser(name, written, browser, tmp_path):
    page = written[name]
    browser.get("about:blank")  # not the browser's own first page
    browser.get_log("browser"), browser.get_log("performance")
    for width in (380, 1400):
        resize(browser, width)
        browser.get(page.as_uri())
        scroll, inner = browser.execute_script(OVERFLOW)
        assert (inner, scroll <= inner) == (width, True), browser.execute_script(SPILLING)
        assert browser.execute_script(SPILLING) == []
        browser.execute_script("document.querySelectorAll('details').forEach(e => e.open = true)")
        scroll, inner = browser.execute_script(OVERFLOW)
        assert scroll <= inner, browser.execute_script(SPILLING)
        shoot(browser, tmp_path / f"{name}_{width}.png")
        assert (tmp_path / f"{name}_{width}.png").stat().st_size > 10_000
    found = browser.execute_script(ANCHORS)
    assert (found["twice"], found["missing"]) == ([], [])
    assert found["num"] >= 2
    assert browser.execute_script("return document.scripts.length") == 0
    assert browser.execute_script("return [...document.images].every(e => e.naturalWidth > 0)")
    assert browser.get_log("browser") == []
    assert {url.partition(":")[0] for url in requests(browser)} <= {"file", "data"}


@pytest.mark.parametrize("name", ["many", "comparison"])
def test_a_page_is_printed_whole(name, written, browser, tmp_path):
    browser.get(written[name].as_uri())
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True, "printBackground": True})
    content = base64.b64decode(printed["data"])
    (tmp_path / f"{name}.pdf").write_bytes(content)
    assert content.startswith(b"%PDF")
    assert content.count(b"/Type /Page") > 2
