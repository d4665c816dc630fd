"""``cxrlab serve`` in a process of its own, and its page in a real browser."""

import base64
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow  # each starts a command of its own

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="chromium or chromedriver is not installed"
)
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--disable-dev-shm-usage")  # fmt: skip
TOKEN = "a-token-of-some-length"
TWO_GB = 2 * 10**9


class Served(NamedTuple):
    """A service that runs."""

    url: str
    process: "subprocess.Popen[str]"

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def memory(self) -> int:
        """Bytes that its main process had at most."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024


@contextmanager
def served(run: Path, cwd: Path, *arguments: str, **env: str) -> Iterator[Served]:
    command = [sys.executable, "-m", "cxrlab", "serve", f"run={run}", "port=0", "device=cpu", *arguments]
    process = subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **env}
    )  # fmt: skip
    try:
        url, seen = None, ""
        while url is None:
            line = process.stdout.readline()
            seen += line
            assert line, seen
            url = re.search(r"The page: (http://\S+:\d+)", line)
        service = Served(url[1], process)
        _wait_for(service.url)
        yield service
    finally:
        process.terminate()
        process.communicate(timeout=30)


def _wait_for(url: str) -> None:
    for _ in range(300):
        try:
            assert httpx.get(f"{url}/health").status_code == 200
        except httpx.TransportError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError("it does not answer")


@pytest.fixture(scope="module")
def service(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    with served(finished_run, folder, "service.max_file_mb=5", "service.max_request_mb=10") as one:
        yield one
        assert re.findall(r'status="5\d\d".*', httpx.get(f"{one.url}/metrics").text) == []
    assert not list(folder.iterdir())  # it writes nothing


def png(seed: int = 0) -> bytes:
    memory = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(pixels).save(memory, "PNG")
    return memory.getvalue()


def failed(*arguments: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "cxrlab", "serve", *arguments], cwd=cwd, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr + done.stdout
    return done.stderr + done.stdout


# The command


def test_what_is_asked_at_the_same_time_gets_its_own_answer(service: Served):
    import concurrent.futures

    def ask(seed: int) -> dict[str, object]:
        answer = httpx.post(f"{service.url}/predict", files={"files": (f"{seed}.png", png(seed))}, timeout=60)
        assert answer.status_code == 200
        (one,) = answer.json()["files"]
        assert one["file"] == f"{seed}.png"
        return {name: value for name, value in one.items() if name != "file"}

    alone = [ask(seed) for seed in range(8)]
    with concurrent.futures.ThreadPoolExecutor(16) as threads:
        together = list(threads.map(ask, list(range(8)) * 4))
    for number, one in enumerate(together):
        assert one["probabilities"] == pytest.approx(alone[number % 8]["probabilities"], abs=1e-6)
        assert one["decisions"] == alone[number % 8]["decisions"]


def test_an_upload_of_two_gb_is_refused_and_not_read(service: Served):
    before = service.memory()
    headers = (
        f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:{service.port}\r\nContent-Type: multipart/form-data; "
        f"boundary=x\r\nContent-Length: {TWO_GB}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as connection:
        connection.sendall(headers.encode())
        answer = connection.recv(4096).decode()
    assert answer.startswith("HTTP/1.1 413 ")
    assert service.memory() - before < 20 * 10**6


def test_an_upload_without_end_is_refused_at_the_limit(service: Served):
    """It is sent on after the refusal, as clients do that look for an answer at the end only."""
    before = service.memory()
    start = b'--x\r\nContent-Disposition: form-data; name="f"; filename="a.png"\r\n\r\n'

    def body() -> Iterator[bytes]:
        yield start
        yield from [bytes(10**6)] * 400

    headers = {"content-type": "multipart/form-data; boundary=x"}
    answer = httpx.post(f"{service.url}/predict", headers=headers, content=body(), timeout=60)
    assert answer.status_code == 413
    assert "a.png has more than the 5 MB" in answer.json()["detail"]
    assert service.memory() - before < 60 * 10**6


def test_a_client_that_leaves_half_way_is_no_error(service: Served):
    headers = (
        f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:{service.port}\r\nContent-Type: multipart/form-data; "
        "boundary=x\r\nContent-Length: 100000\r\n\r\n--x\r\n"
    )
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as connection:
        connection.sendall(headers.encode())
        time.sleep(0.2)
    for _ in range(100):
        if 'path="/predict",status="400"' in httpx.get(f"{service.url}/metrics").text:
            return
        time.sleep(0.05)
    raise AssertionError(httpx.get(f"{service.url}/metrics").text)


def test_a_port_in_use_and_other_slips_are_told(service: Served, finished_run: Path, tmp_path: Path):
    words = f"port={service.port} is in use: something listens on 127.0.0.1 there. Choose another"
    assert words in failed(f"run={finished_run}", f"port={service.port}", cwd=tmp_path)
    assert "so that requests need a token" in failed(f"run={finished_run}", "host=0.0.0.0", cwd=tmp_path)
    assert "Give run=<" in failed(cwd=tmp_path)
    assert "run=nowhere" in failed("run=nowhere", "port=0", cwd=tmp_path)
    assert "service.max_files=0 must be at least 1" in failed("run=x", "service.max_files=0", cwd=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_token_from_the_environment_and_an_end_by_sigterm(finished_run: Path, tmp_path: Path):
    with served(finished_run, tmp_path, CXRLAB_TOKEN=TOKEN) as service:
        assert httpx.get(f"{service.url}/card").status_code == 401
        assert (
            httpx.get(f"{service.url}/card", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
        )
        decoders = (
            Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text().split()
        )
        service.process.send_signal(signal.SIGTERM)
        printed, _ = service.process.communicate(timeout=30)
        assert service.process.returncode == 143
        assert "Traceback" not in printed
        assert decoders
        for _ in range(100):
            if not any(Path(f"/proc/{pid}").exists() for pid in decoders):
                break
            time.sleep(0.05)
        else:
            raise AssertionError("processes are left")


# The page


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_page_load_timeout(60)
    driver.set_script_timeout(60)
    yield driver
    driver.quit()


def open_page(browser, url: str, width: int = 1400) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get("about:blank")
    browser.get_log("browser"), browser.get_log("performance")
    browser.get(url)


def until(browser, condition: str) -> None:
    for _ in range(300):
        if browser.execute_script(f"return Boolean({condition})"):
            return
        time.sleep(0.1)
    raise AssertionError(f"{condition}: {browser.execute_script('return document.body.innerText')}")


def choose(browser, *paths: Path) -> None:
    from selenium.webdriver.common.by import By

    browser.find_element(By.ID, "file").send_keys("\n".join(map(str, paths)))


def text(browser, selector: str) -> str:
    return browser.execute_script("return document.querySelector(arguments[0]).innerText", selector)


def is_wide(browser) -> bool:
    return browser.execute_script("return document.documentElement.scrollWidth > innerWidth")


HAS_HEAT = "!document.getElementById('heat').hidden"
READ = "document.getElementById('status').textContent.includes('read.')"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "one.png"
    path.write_bytes(png())
    return path


@needs_browser
@pytest.mark.parametrize("width", [1400, 380])
def test_a_file_that_is_chosen_shows_findings_and_heatmaps(
    service: Served, browser, image: Path, width: int, tmp_path: Path
):
    open_page(browser, service.url, width)
    until(browser, "card")
    assert "Research only" in text(browser, "header")
    assert not is_wide(browser)
    choose(browser, image)
    until(browser, HAS_HEAT)
    expected = httpx.post(f"{service.url}/predict", files={"files": ("one.png", image.read_bytes())}).json()
    (answer,) = expected["files"]
    rows = browser.execute_script("return [...document.querySelectorAll('.finding')].map(e => e.innerText)")
    assert len(rows) == len(answer["calibrated"])
    for label, value in answer["calibrated"].items():
        (row,) = [row for row in rows if row.startswith(label)]
        assert f"{100 * value:.1f} %" in row or f"{100 * value:.0f} %" in row
        assert f"threshold {answer['thresholds'][label]:.3f}" in row
        assert ("reached" in row) == (answer["decisions"][label] == 1)
    assert "threshold" in text(browser, "#summary")
    assert text(browser, "#name") == "one.png"
    assert not is_wide(browser)
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": True})
    (tmp_path / f"{width}.png").write_bytes(base64.b64decode(shot["data"]))
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    fetched = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
    assert all(url.startswith((service.url, "data:", "about:")) for url in fetched), fetched


@needs_browser
def test_another_finding_and_the_slider_by_keyboard(service: Served, browser, image: Path):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    open_page(browser, service.url)
    until(browser, "card")
    browser.switch_to.active_element.send_keys(Keys.TAB)
    assert browser.switch_to.active_element.get_attribute("id") == "file"
    choose(browser, image)
    until(browser, HAS_HEAT)
    findings = browser.find_elements(By.CSS_SELECTOR, "button.finding")
    assert [one.get_attribute("aria-pressed") for one in findings] == ["true"] + ["false"] * (
        len(findings) - 1
    )
    findings[1].send_keys(Keys.ENTER)
    label = findings[1].get_attribute("data-label")
    until(
        browser,
        f"document.getElementById('heat').alt === 'Heatmap of {label}' && current.heatmaps['{label}']",
    )
    assert findings[1].get_attribute("aria-pressed") == "true"
    assert label in text(browser, "#shown")
    slider = browser.find_element(By.ID, "opacity")
    slider.send_keys(Keys.HOME)
    assert browser.execute_script("return getComputedStyle(document.getElementById('heat')).opacity") == "0"
    slider.send_keys(Keys.END)
    assert browser.execute_script("return getComputedStyle(document.getElementById('heat')).opacity") == "1"


NAMELESS = """
const named = e => e.getAttribute('aria-label') || e.labels?.length || e.innerText?.trim();
return [...document.querySelectorAll('button, input, a, summary')].filter(e => !named(e)).map(e => e.outerHTML)
  .concat([...document.images].filter(e => !e.hidden && !e.alt).map(e => e.outerHTML));
"""


@needs_browser
def test_everything_has_a_name_for_those_who_hear_the_page(service: Served, browser, image: Path):
    open_page(browser, service.url)
    until(browser, "card")
    choose(browser, image)
    until(browser, HAS_HEAT)
    assert browser.execute_script(NAMELESS) == []
    assert browser.execute_script("return document.documentElement.lang") == "en"
    open_page(browser, f"{service.url}/docs", 380)
    until(browser, "document.querySelectorAll('section').length === 5")
    assert "POST /predict" in text(browser, "#paths")
    assert not is_wide(browser)
    assert browser.get_log("browser") == []


DROP = """
const bytes = Uint8Array.from(atob(arguments[0]), sign => sign.charCodeAt(0));
const transfer = new DataTransfer();
transfer.items.add(new File([bytes], arguments[1]));
document.getElementById('drop').dispatchEvent(
  new DragEvent('drop', {bubbles: true, cancelable: true, dataTransfer: transfer}));
"""


@needs_browser
def test_a_file_that_is_dropped_and_one_that_cannot_be_read(service: Served, browser):
    open_page(browser, service.url, 380)
    until(browser, "card")
    browser.execute_script(DROP, base64.b64encode(png()).decode(), "<img src=x onerror=alert(1)>.png")
    until(browser, HAS_HEAT)
    assert text(browser, "#name") == "<img src=x onerror=alert(1)>.png"
    browser.execute_script(DROP, base64.b64encode(b"no image").decode(), "letter.txt")
    until(browser, READ + " && document.getElementById('name').textContent === 'letter.txt'")
    assert "The image letter.txt (8 bytes) cannot be read" in text(browser, "#warning")
    assert browser.execute_script("return document.getElementById('right').hidden")
    assert not is_wide(browser)
    browser.execute_script(DROP, base64.b64encode(bytes(5_000_001)).decode(), "large.dcm")
    until(browser, "!document.getElementById('error').hidden")
    assert text(browser, "#error") == "large.dcm has more than the 5 MB that a file may have."


@needs_browser
def test_several_files_and_a_warning(service: Served, browser, image: Path, real_data: Path):
    open_page(browser, service.url)
    until(browser, "card")
    choose(browser, image, real_data / "dicom" / "udacity_5_not_chest.dcm")
    until(browser, READ)
    browser.execute_script("document.querySelector('.files button:last-child').click()")
    until(browser, HAS_HEAT)
    assert "describes no chest radiograph: modality CT" in text(browser, "#warning")
    assert "2 files read." in text(browser, "#status")


@needs_browser
def test_the_page_asks_for_the_token(finished_run: Path, browser, image: Path, tmp_path: Path):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    with served(finished_run, tmp_path, CXRLAB_TOKEN=TOKEN) as service:
        open_page(browser, service.url)
        until(browser, "!document.getElementById('token-form').hidden")
        browser.find_element(By.ID, "token").send_keys(TOKEN + Keys.ENTER)
        until(browser, "document.getElementById('token-form').hidden && card")
        choose(browser, image)
        until(browser, HAS_HEAT)
        assert text(browser, "#name") == "one.png"
    choose(browser, image)
    until(browser, "!document.getElementById('error').hidden")
    assert text(browser, "#error") == "The service cannot be reached. Is it still running?"
