r"""Load of ``cxrlab serve``: many clients at once, bad files among them; each answer is compared.

    python benchmarks/serve_load.py --run outputs/2026-01-31/12-00-00 --images <folder of radiographs>

Starts the service of a run as a user does, in a process of its own. ``--clients`` ask at the same time, each
as soon as it has its last answer, until ``--requests`` are answered; one file in eight is damaged, empty or
no image. Each answer is compared with what ``Model.predict`` says of the file, as ``cxrlab predict`` does.

What is printed, as a table: wrong answers and statuses, the median and 95th percentile of the seconds of a
request, requests/s, beside the images/s of the network alone (a bare forward pass, one image and a full
batch at a time) and of decoding and network in one process, and memory of all processes after as many
requests before and at the end. Without ``--images`` noise of 1024 x 1024 is taken.
"""

import argparse
import io
import itertools
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
from PIL import Image

from cxrlab.deploy.loading import load_model
from cxrlab.deploy.model import Model

BAD = 8  # one file in so many
TOLERANCE = 1e-5
BATCH = 16


def files_of(folder: Path | None, count: int) -> list[bytes]:
    """Return the bytes of image files, of a folder or drawn."""
    if folder is not None:
        return [path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()][:count]
    drawn = []
    for seed in range(count):
        memory = io.BytesIO()
        noise = np.random.default_rng(seed).integers(0, 256, (1024, 1024), dtype=np.uint8)
        Image.fromarray(noise).save(memory, "PNG")
        drawn.append(memory.getvalue())
    return drawn


def with_bad_ones(files: list[bytes]) -> list[bytes]:
    """Return files of which some are cut, empty, or no image."""
    kinds = itertools.cycle([lambda data: data[: len(data) // 2], lambda _: b"", lambda _: b"a letter"])
    return [data if number % BAD else next(kinds)(data) for number, data in enumerate(files)]


def expected_of(model: Model, files: list[bytes]) -> tuple[pd.DataFrame, float]:
    """Return what the model says of each file, and how many files a second this takes in one process."""
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number, data in enumerate(files):
            paths.append(Path(folder) / f"{number:05d}.png")
            paths[-1].write_bytes(data)
        start = time.perf_counter()
        table = model.predict(paths, batch_size=BATCH)
        return table, len(files) / (time.perf_counter() - start)


def bare_rate(model: Model, batch_size: int, seconds: float = 5.0) -> float:
    """Return the images/s of the network alone."""
    record = model.record
    shape = (batch_size, record.channels, record.image_size, record.image_size)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    model.members[0].backend(images)
    count, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        model.members[0].backend(images)
        count += batch_size
    return count / elapsed


def memory_of(pid: int) -> float:
    """Return the MB that a process and its children hold."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    pages = [int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in (pid, *children)]
    return sum(pages) * 4096 / 1e6


def is_same(answer: dict, row: pd.Series) -> bool:
    """Tell whether an answer is what the model says of the file."""
    if answer["status"] != row["status"]:
        return False
    if row["status"] == "unreadable":
        return answer["probabilities"] is None
    pairs = [
        (answer[key], kind) for key, kind in (("probabilities", "probability"), ("calibrated", "calibrated"))
    ]
    differences = [
        abs(value - row[f"{kind}/{label}"]) for values, kind in pairs for label, value in values.items()
    ]
    return max(differences) < TOLERANCE


class Load:
    """Requests by many clients, and what came of them."""

    def __init__(self, url: str, files: list[bytes], expected: pd.DataFrame) -> None:
        self.url, self.files, self.expected = url, files, expected
        self.seconds: list[float] = []
        self.statuses: Counter[int] = Counter()
        self.wrong = 0
        self._clients = threading.local()

    def ask(self, number: int) -> None:
        """Ask for one file, and compare."""
        if not hasattr(self._clients, "one"):
            self._clients.one = httpx.Client(timeout=120)
        which = number % len(self.files)
        sent = {"files": (f"{which:05d}.png", self.files[which])}
        start = time.perf_counter()
        answer = self._clients.one.post(f"{self.url}/predict", files=sent)
        self.seconds.append(time.perf_counter() - start)
        self.statuses[answer.status_code] += 1
        is_right = answer.status_code == 200 and is_same(answer.json()["files"][0], self.expected.iloc[which])
        self.wrong += not is_right

    def run(self, num_requests: int, num_clients: int) -> float:
        """Ask ``num_requests`` times by ``num_clients`` at once, and return the seconds that it took."""
        start = time.perf_counter()
        with ThreadPoolExecutor(num_clients) as clients:
            list(clients.map(self.ask, range(num_requests)))
        return time.perf_counter() - start


def start_service(run: str) -> tuple["subprocess.Popen[str]", str]:
    """Start the service and return its process and address."""
    command = [sys.executable, "-m", "cxrlab", "serve", f"run={run}", "port=0", f"service.batch_size={BATCH}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if found := re.search(r"The page: (\S+)", line):
            break
    while True:
        try:
            httpx.get(f"{found[1]}/health").raise_for_status()
        except httpx.HTTPError:
            time.sleep(0.2)
        else:
            return process, found[1]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", required=True)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--files", type=int, default=100, help="that differ")
    options = parser.parse_args()
    files = with_bad_ones(files_of(options.images, options.files))
    model = load_model(options.run)
    expected, rate = expected_of(model, files)
    alone, batched = bare_rate(model, 1), bare_rate(model, BATCH)
    process, url = start_service(options.run)
    try:
        Load(url, files, expected).run(options.requests, options.clients)  # memory settles
        before = memory_of(process.pid)
        load = Load(url, files, expected)
        seconds = load.run(options.requests, options.clients)
        after = memory_of(process.pid)
        counted = httpx.get(f"{url}/metrics").text
    finally:
        process.terminate()
        process.wait()
    batches = {
        name: float(value) for name, value in re.findall(r"^(cxrlab_batch\w+) (\S+)$", counted, re.MULTILINE)
    }
    size = batches["cxrlab_batch_images_total"] / batches["cxrlab_batches_total"]
    unreadable = int((expected["status"] == "unreadable").sum())
    rows = {
        f"requests by {options.clients} clients, one file each": f"{options.requests}",
        "of the files, damaged, empty or no image": f"{unreadable} of {len(files)}",
        "wrong answers": f"{load.wrong}",
        "statuses": ", ".join(f"{status}: {count}" for status, count in sorted(load.statuses.items())),
        "seconds of a request, median": f"{np.percentile(load.seconds, 50):.3f}",
        "seconds of a request, 95th percentile": f"{np.percentile(load.seconds, 95):.3f}",
        "requests/s": f"{options.requests / seconds:.1f}",
        "images a batch": f"{size:.1f}",
        "the network alone, one image at a time, images/s": f"{alone:.1f}",
        f"the network alone, {BATCH} at a time, images/s": f"{batched:.1f}",
        "decoding and network in one process, files/s": f"{rate:.1f}",
        "memory of all processes after as many requests before, MB": f"{before:.0f}",
        "memory at the end, MB": f"{after:.0f}",
    }
    print("| what | |\n|---|---|")
    for what, value in rows.items():
        print(f"| {what} | {value} |")


if __name__ == "__main__":
    main()
