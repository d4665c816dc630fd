"""How fast files are predicted, as ratios to what limits it: decoding alone, or the network alone.

Run ``python benchmarks/prediction.py --run <run or checkpoint> --images <folder>``. The three take turns in
one process, several times, and the median ratio is printed; then the growth of memory over many files.
"""

import argparse
import resource
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cxrlab.data.decode_files import decode_files
from cxrlab.data.inputs import ImageFile, image_inputs
from cxrlab.deploy.loading import load_model
from cxrlab.deploy.model import Model


def files_of(folder: Path, number: int) -> Iterator[ImageFile]:
    """Yield so many files, beginning again where the folder ends."""
    names = list(image_inputs([str(folder)]))
    for count in range(number):
        yield names[count % len(names)]


def decoding(model: Model, folder: Path, number: int, workers: int) -> float:
    """Return files decoded a second."""
    start = time.perf_counter()
    count = sum(1 for _ in decode_files(files_of(folder, number), model.decoding, num_workers=workers))
    return count / (time.perf_counter() - start)


def network(model: Model, folder: Path, number: int, batch_size: int) -> float:
    """Return images that are decoded already and predicted a second."""
    decoded = list(decode_files(files_of(folder, batch_size), model.decoding, num_workers=0))
    start, count = time.perf_counter(), 0
    while count < number:
        model.predict_decoded(decoded)
        count += len(decoded)
    return count / (time.perf_counter() - start)


def prediction(model: Model, folder: Path, number: int, workers: int, batch_size: int) -> float:
    """Return files predicted a second."""
    start = time.perf_counter()
    predicted = model.predict_files(files_of(folder, number), batch_size=batch_size, num_workers=workers)
    count = sum(1 for _ in predicted)
    return count / (time.perf_counter() - start)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--number", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    model = load_model(given.run, device=given.device)
    sizes = (given.images, given.number)
    rates = [
        (
            decoding(model, *sizes, given.workers),
            network(model, *sizes, given.batch),
            prediction(model, *sizes, given.workers, given.batch),
        )
        for _ in range(given.turns)
    ]
    names = ("decoding alone", "network alone", "both: cxrlab predict")
    for name, column in zip(names, np.array(rates).T, strict=True):
        print(f"{name:<22} {statistics.median(column):8.1f} images/s")
    shares = [both / min(decode, compute) for decode, compute, both in rates]
    cores = [both / (1 / (1 / decode + 1 / compute)) for decode, compute, both in rates]
    print(f"of what limits it       {statistics.median(shares):8.2f}")
    print(f"of both in turn         {statistics.median(cores):8.2f}")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in model.predict_files(files_of(given.images, 10 * given.number), num_workers=0):
        pass  # one by one, none kept
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"peak memory over ten times as many files: {after / before:.3f} of the peak before")


if __name__ == "__main__":
    main()
