"""What a million images cost: every stage from a data set's table to the page, in seconds and peak memory.

Run ``python benchmarks/scale.py``, or ``--images 10000 --patients 2000`` to see that it works. Tables of
three sizes are generated: the whole, a quarter and a sixteenth. Every stage runs in a process of its own,
whose peak memory is given, libraries and preparation included. Where readers look for files, hard links of a
small PNG stand for the images, fewer than 65,000 in a folder; where pixels would be, generated hashes and
statistics do. Processor seconds are those of all threads, which hold on a busy machine too. The exponent is
the slope between the two largest sizes, in logarithms: 1 is linear.
"""

import argparse
import functools
import gc
import json
import multiprocessing
import os
import pickle
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml
from PIL import Image

from cxrlab.cli.config import config_dir
from cxrlab.data.audit.run_audit import audit
from cxrlab.data.cache import CacheSettings, ImageCache, fill, open_cache
from cxrlab.data.cache_worker import DONE, changed_at, checksum, seals
from cxrlab.data.datamodule import DataModule
from cxrlab.data.dataset import Copies
from cxrlab.data.duplicates.hashing import HASH_WORDS, find_candidates, mirrored_hash
from cxrlab.data.duplicates.search import identical_groups
from cxrlab.data.image_statistics import Appearance
from cxrlab.data.manifest import COVARIATE, LABEL, Manifest, read_table
from cxrlab.data.readers import nih, table
from cxrlab.data.splits import Split, take_fraction
from cxrlab.evaluation.evaluate import evaluate
from cxrlab.evaluation.operating_point import from_validation
from cxrlab.metrics.predictions import DataFacts, PredictionTable, read_predictions
from cxrlab.metrics.settings import EvaluationSettings
from cxrlab.report.evaluation_page import write_report
from cxrlab.report.model_info import ModelInfo

# Shares of the 112,120 images of NIH ChestX-ray14.
PREVALENCES = (
    0.103,
    0.025,
    0.119,
    0.177,
    0.052,
    0.056,
    0.013,
    0.047,
    0.042,
    0.021,
    0.022,
    0.015,
    0.03,
    0.002,
)
DISTANCE = 1.2  # between scores of positives and negatives, in standard deviations: an AUROC of 0.80
IMAGES_A_FOLDER = 62_500  # ext4 allows 65,000 links of one file
SHARE_COPIES = 0.01
CACHED_SIZE = 8  # pixels, for the cache that stands
SETTINGS = EvaluationSettings(num_resamples=1000)
GIBIBYTE = 2**30

Work = Callable[[], object]


@dataclass(frozen=True)
class Size:
    """How many images and patients, and where their files are."""

    images: int
    patients: int
    folder: Path

    @property
    def rng(self) -> np.random.Generator:
        """Random numbers that are the same in every stage."""
        return np.random.default_rng(27)


@functools.cache
def patients_of(size: Size) -> npt.NDArray[np.int64]:
    """Return the patient of each image, in rising order; most have few images and some have many."""
    rng = size.rng
    shares = rng.dirichlet(np.full(size.patients, 0.7))
    others = rng.choice(size.patients, size=size.images - size.patients, p=shares)
    return np.sort(np.concatenate([np.arange(size.patients), others]))


def findings_of(size: Size) -> npt.NDArray[np.bool_]:
    """Return which finding is on which image, shape ``(N, 14)``; those of a patient are alike."""
    rng, shares = size.rng, np.array(PREVALENCES)
    of_patient = rng.beta(0.5 * shares, 0.5 * (1 - shares), (size.patients, len(shares)))
    drawn: npt.NDArray[np.bool_] = rng.random((size.images, len(shares))) < of_patient[patients_of(size)]
    drawn[np.linspace(0, size.images - 1, 20, dtype=int)] = True  # in the smallest set too, each is there
    return drawn


def image_names(size: Size) -> npt.NDArray[np.object_]:
    """Return the paths of the images under the root, as NIH has them."""
    rows = range(size.images)
    names = [f"images_{row // IMAGES_A_FOLDER + 1:03d}/images/{row:08d}_000.png" for row in rows]
    return np.array(names, dtype=object)


def covariates_of(size: Size) -> pd.DataFrame:
    """Return view, sex and age of each image."""
    rng, patients = size.rng, patients_of(size)
    return pd.DataFrame(
        {
            "view": rng.choice(["PA", "AP"], size.images),
            "sex": rng.choice(["F", "M"], size.patients)[patients],
            "age": rng.integers(1, 95, size.patients)[patients].astype(float),
        }
    )


def manifest_of(size: Size) -> Manifest:
    """Return the manifest that a reader would."""
    findings = findings_of(size)
    columns: dict[str, object] = {
        "image": image_names(size),
        "patient": patients_of(size).astype(str).astype(object),
        "split": np.where(patients_of(size) < 0.8 * size.patients, "train", "test").astype(object),
    }
    columns |= {COVARIATE + str(name): values for name, values in covariates_of(size).items()}
    columns |= {LABEL + name: findings[:, place].astype(float) for place, name in enumerate(nih.LABELS)}
    return Manifest(size.folder / "nih", pd.DataFrame(columns), name="nih")


def predictions_of(size: Size, images: int) -> PredictionTable:
    """Return predictions of the first ``images``, whose scores resemble one another within a patient."""
    rng, patients = size.rng, patients_of(size)[:images]
    targets = findings_of(size)[:images].astype(float)
    shared, own = rng.normal(size=(size.patients, targets.shape[1])), rng.normal(size=targets.shape)
    logits = np.sqrt(0.3) * shared[patients] + np.sqrt(0.7) * own + DISTANCE * targets
    probabilities = 1 / (1 + np.exp(3 - logits))
    names = np.arange(patients[-1] + 1).astype(str).astype(object)
    covariates = covariates_of(size)[:images]
    return PredictionTable(
        image_names(size)[:images],
        patients,
        nih.LABELS,
        targets,
        probabilities,
        covariates,
        names,
        part="test",
    )


def planted_pairs(size: Size) -> npt.NDArray[np.int64]:
    """Return images that show the same, shape ``(C, 2)``."""
    pairs = size.rng.choice(size.images, size=(int(SHARE_COPIES * size.images), 2), replace=False)
    return np.sort(pairs, axis=1)


def hashes_of(size: Size) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """Return hashes that agree as those of radiographs do, and the planted copies, shape ``(C, 2)``.

    Radiographs resemble one another, so that bits go together: of pairs of 2,608 in chest_xray, 0.8 % differ
    in 12 bits of the first word or fewer, half in 119 bits of 256 or fewer, and 5e-5 are candidates; here it
    is 0.5 %, 119 and 3e-5. Of each three copies, two are as JPEG or a gamma of 1.1 make them (2 bits turned,
    at most some 6) and one as a cut of 2 % at each side does (32, one in ten more than 40). Every fourth is
    mirrored and every fourth inverted.
    """
    rng, num_bits = size.rng, 64 * HASH_WORDS
    weights = rng.normal(size=(32, num_bits)).astype(np.float32)
    weights /= np.linalg.norm(weights, axis=0)
    is_first = np.arange(num_bits) < 64
    offsets = rng.normal(size=num_bits).astype(np.float32) * np.where(is_first, 0.8, 0.1).astype(np.float32)
    pairs = planted_pairs(size)
    # Of each image's hidden numbers the bits are signs; those that are small turn in a copy.
    hidden = rng.normal(size=(size.images, 32)).astype(np.float32)
    hashes = np.empty((size.images, HASH_WORDS), dtype=np.uint64)
    for start in range(0, size.images, 50_000):
        hashes[start : start + 50_000] = _signs(hidden[start : start + 50_000] @ weights + offsets)
    noise = rng.normal(size=(len(pairs), num_bits)) * np.where(is_first, 0.24, 0.5)
    noise[np.arange(len(pairs)) % 3 != 0] *= 0.06
    copies = _signs(hidden[pairs[:, 0]] @ weights + offsets + noise)
    copies[1::4] = mirrored_hash(copies[1::4])
    copies[2::4] = ~copies[2::4]
    hashes[pairs[:, 1]] = copies
    return hashes, pairs


def _signs(values: npt.NDArray[np.floating]) -> npt.NDArray[np.uint64]:
    return np.packbits(values > 0, axis=1).view("<u8").astype(np.uint64)


def facts_of(size: Size) -> pd.DataFrame:
    """Return what a cache would know of the files; one in a thousand is the file of another image."""
    rng = size.rng
    digests = np.array([f"{row:032x}" for row in range(size.images)], dtype=object)
    copies = rng.choice(size.images, size=(size.images // 1000, 2), replace=False)
    digests[copies[:, 1]] = digests[copies[:, 0]]
    looks = {name: rng.random(size.images) for name in Appearance._fields}
    looks |= {"brightness": rng.normal(130, 20, size.images), "spread": np.full(size.images, 200.0)}
    looks |= {"black": 0.1 * looks["black"], "white": 0.1 * looks["white"], "border": 0 * looks["border"]}
    columns: dict[str, object] = {"error": "", "warning": "", "digest": digests, "mode": "L"}
    columns |= {
        "width": rng.choice([1024, 2048, 2500], size.images),
        "height": 1024,
        "depth": 8,
        "levels": 256,
    }
    return pd.DataFrame(columns | looks, index=range(size.images))


# Files on disk.


def small_png(path: Path, grey: int) -> None:
    """Write an image of 8 x 8 pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8), grey % 256, dtype=np.uint8)).save(path)


def write_files(size: Size) -> None:
    """Write the tables of NIH's, CheXpert's and a plain form, and links of small images to what they name."""
    root = size.folder / "nih"
    for place, names in enumerate(_by_folder(image_names(size))):
        small_png(root / names[0], place)
        for name in names[1:]:
            os.link(root / names[0], root / name)
    manifest = manifest_of(size).table
    findings = findings_of(size)
    words = np.array(nih.LABELS, dtype=object)
    bare = manifest["image"].str.rpartition("/")[2]
    listed = pd.DataFrame(
        {
            "Image Index": bare,
            "Finding Labels": ["|".join(words[row]) or "No Finding" for row in findings],
            "Follow-up #": 0,
            "Patient ID": manifest["patient"],
            "Patient Age": manifest["covariate/age"].astype(int),
            "Patient Gender": manifest["covariate/sex"],
            "View Position": manifest["covariate/view"],
        }
    )
    listed.to_csv(root / nih.TABLES[0], index=False)
    for part, name in (("train", "train_val_list.txt"), ("test", "test_list.txt")):
        (root / name).write_text("\n".join(bare[manifest["split"] == part]) + "\n")
    plain = manifest.drop(columns="split").rename(columns=lambda name: name.rpartition("/")[2])
    plain.to_csv(size.folder / "plain.csv", index=False)
    _write_chexpert(size, findings)


def _by_folder(names: npt.NDArray[np.object_]) -> Iterator[list[str]]:
    for start in range(0, len(names), IMAGES_A_FOLDER):
        yield names[start : start + IMAGES_A_FOLDER].tolist()


def _write_chexpert(size: Size, findings: npt.NDArray[np.bool_]) -> None:
    """Write a folder a patient and study, as CheXpert has them; its last images are those of valid.csv."""
    root, rng = size.folder / "chexpert", size.rng
    patients = patients_of(size)
    in_valid = patients >= size.patients - max(1, size.patients // 1000)
    order = np.arange(size.images) - np.searchsorted(patients, patients)
    parts = np.where(in_valid, "valid", "train").tolist()
    names = [
        f"{part}/patient{patient:06d}/study{1 + place // 4}/view{1 + place % 4}.jpg"
        for part, patient, place in zip(parts, patients.tolist(), order.tolist(), strict=True)
    ]
    made = ""
    for row, name in enumerate(names):
        if row % IMAGES_A_FOLDER == 0:
            source = root / f"file{row}.jpg"
            small_png(source.with_suffix(".png"), 0)
            source.with_suffix(".png").rename(source)
        if (folder := name.rpartition("/")[0]) != made:
            (root / folder).mkdir(parents=True, exist_ok=True)
            made = folder
        os.link(source, f"{root}/{name}")
    covariates = covariates_of(size)
    listed = pd.DataFrame({"Path": [f"CheXpert-v1.0-small/{name}" for name in names]})
    listed["Sex"] = covariates["sex"].map({"F": "Female", "M": "Male"})
    listed["Age"] = covariates["age"].astype(int)
    listed["Frontal/Lateral"] = rng.choice(["Frontal", "Lateral"], size.images)
    listed["AP/PA"] = covariates["view"].where(listed["Frontal/Lateral"] == "Frontal", "")
    for place, label in enumerate(chexpert_settings()["labels"]):
        cells = np.where(
            findings[:, place], "1.0", rng.choice(["", "0.0", "-1.0"], size.images, p=[0.7, 0.2, 0.1])
        )
        listed[label] = np.where(in_valid & (cells != "1.0"), "0.0", cells)
    listed[~in_valid].to_csv(root / "train.csv", index=False)
    listed[in_valid].to_csv(root / "valid.csv", index=False)


def chexpert_settings() -> dict[str, Any]:
    """Return what data=chexpert gives its reader, but for the numbers of the published set."""
    settings = yaml.safe_load((config_dir() / "data" / "chexpert.yaml").read_text(encoding="utf-8"))["reader"]
    return {name: value for name, value in settings.items() if name != "published"}


# The stages: each prepares, and returns what is timed.


def list_files(size: Size) -> Work:
    """List the folders that NIH's images lie in, which is the file system's share of a reader's time."""

    def work() -> int:
        found = 0
        for folder, _, files in os.walk(size.folder / "nih"):
            found += len(files) if folder else 0
        return found

    return work


def read_nih(size: Size) -> Work:
    """Read NIH's table, lists and folders."""
    return lambda: _checked(nih.read(size.folder / "nih"), size)


def read_plain(size: Size) -> Work:
    """Read a plain table."""
    labels = list(nih.LABELS)
    covariates: dict[str, str | None] = {name: name for name in ("view", "sex", "age")}
    tables = str(size.folder / "plain.csv")
    return lambda: _checked(
        table.read(size.folder / "nih", tables=tables, labels=labels, covariates=covariates), size
    )


def read_chexpert(size: Size) -> Work:
    """Read CheXpert's tables."""
    return lambda: _checked(table.read(size.folder / "chexpert", **chexpert_settings()), size)


def _checked(manifest: Manifest, size: Size) -> Manifest:
    found = len(manifest), manifest.table["patient"].nunique()
    if found != (size.images, size.patients):
        raise RuntimeError(f"{found} images and patients were read of {size}.")
    return manifest


def construct_manifest(size: Size) -> Work:
    """Check a table as a manifest, take a part of it and its fingerprint."""
    frame = manifest_of(size).table.assign(part="train")

    def work() -> object:
        manifest = Manifest(size.folder, frame)
        return len(manifest.part("train")), manifest.fingerprint()

    return work


def manifest_file(size: Size) -> Work:
    """Write manifest.csv and read it again."""
    manifest, path = manifest_of(size), size.folder / "manifest.csv"

    def work() -> object:
        manifest.to_csv(path)
        return _checked(Manifest(size.folder, read_table(path)), size)

    return work


def split_grouped(size: Size) -> Work:
    """Draw three parts by patient, stratified by 14 labels."""
    manifest = manifest_of(size)
    return lambda: Split(method="grouped")(manifest)


def split_official(size: Size) -> Work:
    """Take the official parts and draw validation."""
    manifest = manifest_of(size)
    return lambda: Split(method="official")(manifest)


def split_folds(size: Size) -> Work:
    """Deal five folds, and draw validation."""
    manifest = manifest_of(size)
    return lambda: Split(method="folds", fold=0)(manifest)


def split_fraction(size: Size) -> Work:
    """Take a tenth of the training patients for a learning curve."""
    manifest = manifest_of(size)
    split = Split(method="official")(manifest)
    return lambda: take_fraction(split, fraction=0.1, seed=0)


def audit_all(size: Size) -> Work:
    """Audit a split manifest."""
    manifest, facts = Split(method="grouped")(manifest_of(size)), facts_of(size)
    identical = identical_groups(facts["digest"].tolist())
    planted = planted_pairs(size)
    pairs = pd.DataFrame({"one": planted[:, 0], "other": planted[:, 1]})
    raw = manifest.table[["image"]].assign(findings="No Finding", age=manifest.table["covariate/age"])
    return lambda: audit(manifest, facts, identical=identical, pairs=pairs, missing=(), extra=(), raw=raw)


def identical_files(size: Size) -> Work:
    """Group files by digest, and join the patients of copies."""
    manifest, digests = manifest_of(size), facts_of(size)["digest"].tolist()
    planted = planted_pairs(size)
    pairs = pd.DataFrame({"one": planted[:, 0], "other": planted[:, 1]})
    return lambda: Copies(identical_groups(digests), pairs).groups(manifest)


def near_duplicates(size: Size) -> Work:
    """Find pairs with close hashes; every planted copy must be among them."""
    hashes, planted = hashes_of(size)

    def work() -> pd.DataFrame:
        return find_candidates(hashes, None)

    def check(found: pd.DataFrame) -> None:
        keys = found["one"].to_numpy(dtype=np.int64) * size.images + found["other"].to_numpy(dtype=np.int64)
        is_found = np.isin(planted[:, 0] * size.images + planted[:, 1], keys)
        print(
            f"# {size.images}: {len(found)} candidates; {int(is_found.sum())} of {len(planted)} planted",
            file=sys.stderr,
        )

    work.check = check  # type: ignore[attr-defined]
    return work


def predictions_file(size: Size) -> Work:
    """Write a predictions table and read it again."""
    predictions, path = predictions_of(size, size.images), size.folder / "predictions.csv"

    def work() -> object:
        predictions.to_frame(np.full(len(nih.LABELS), 0.1)).to_csv(path, index=False)
        return len(read_predictions(path))

    return work


def evaluate_part(size: Size, images: int) -> Work:
    """Choose thresholds and calibration on validation, and evaluate with intervals of 1,000 resamples."""
    whole = predictions_of(size, images)
    validation = predictions_of(size, max(images // 10, 1000))

    def work() -> object:
        thresholds, calibrator = from_validation(validation, SETTINGS)
        result = evaluate(
            whole,
            settings=SETTINGS,
            thresholds=thresholds,
            calibrator=calibrator,
            data=DataFacts("synthetic scores"),
            validation=validation,
        )
        print(f"# {images}: {result.seconds}", file=sys.stderr)
        (size.folder / "result.pickle").write_bytes(pickle.dumps(result))
        return result

    return work


def evaluate_tenth(size: Size) -> Work:
    """Evaluate a test part of a tenth of the images."""
    return evaluate_part(size, size.images // 10)


def evaluate_all(size: Size) -> Work:
    """Evaluate all images."""
    return evaluate_part(size, size.images)


def write_page(size: Size) -> Work:
    """Write the page of the evaluation of all images, its figures and the model card."""
    result = pickle.loads((size.folder / "result.pickle").read_bytes())
    return lambda: write_report(size.folder / "page", result, ModelInfo(title="A benchmark"))


def standing_cache(size: Size) -> Work:
    """Prepare a DataModule whose cache stands, up to the first batch of two epochs."""
    root, cache_dir = size.folder / "nih", size.folder / "cache"
    make_cache(size, root, cache_dir)

    def work() -> object:
        data = DataModule(
            root, reader=nih.read, image_size=CACHED_SIZE, channels=1, batch_size=64, cache_dir=cache_dir
        )
        data.setup("fit")
        seconds = dict(data.seconds)
        for epoch in range(2):
            start = time.perf_counter()
            loader = data.train_dataloader()
            loader.sampler.set_epoch(epoch)
            next(iter(loader))
            seconds[f"first batch of epoch {epoch}"] = round(time.perf_counter() - start, 2)
        print(f"# {size.images}: {seconds}", file=sys.stderr)
        return seconds

    return work


def make_cache(size: Size, root: Path, cache_dir: Path) -> ImageCache:
    """Write a cache as decoding the images would, all of whose pixels are black.

    The few files that are compared with what was decoded whatever their times are really decoded.
    """
    files = nih.read(root).table["image"].tolist()
    settings = CacheSettings(CACHED_SIZE, 1, "stretch")
    checked = np.arange(0, size.images, max(1, size.images // 8))
    for row in checked:
        path = root / files[row]
        path.unlink()
        small_png(path, int(row))
    cache = open_cache(cache_dir, root, files, settings, "nih")
    fill(cache, checked.astype(np.intp), num_workers=0, shows_progress=False)
    facts = cache.facts("r+")
    rest = np.setdiff1d(np.arange(size.images), checked)
    records = facts[rest]
    records["state"], records["mode"], records["depth"], records["levels"] = DONE, b"L", 8, 256
    records["width"] = records["height"] = 1024
    records["checksum"] = checksum(np.zeros((1, CACHED_SIZE, CACHED_SIZE), dtype=np.uint8))
    records["digest"] = [f"{row:032x}".encode() for row in rest]
    records["changed"] = [changed_at(root / files[row]) for row in rest]
    records["seal"] = seals(records, [files[row] for row in rest], settings)
    facts[rest] = records
    facts.flush()  # type: ignore[attr-defined]
    cache.unmap()
    return cache


STAGES: dict[str, tuple[Callable[[Size], Work], str]] = {
    "list": (list_files, "listing NIH's folders alone"),
    "nih": (read_nih, "reader of `data=nih`"),
    "table": (read_plain, "reader of `data=table`"),
    "chexpert": (read_chexpert, "reader of `data=chexpert`"),
    "manifest": (construct_manifest, "manifest, with a part and the fingerprint"),
    "manifest.csv": (manifest_file, "`manifest.csv` written and read"),
    "grouped": (split_grouped, "split: grouped, stratified by 14 labels"),
    "official": (split_official, "split: official, validation drawn"),
    "folds": (split_folds, "split: one of five folds"),
    "fraction": (split_fraction, "a tenth of the training patients"),
    "audit": (audit_all, "audit"),
    "identical": (identical_files, "identical files, and patients joined by copies"),
    "near": (near_duplicates, "near-identical images: candidates by hash"),
    "predictions.csv": (predictions_file, "`predictions.csv` written and read"),
    "evaluate-tenth": (evaluate_tenth, "evaluation of a tenth, 1,000 resamples"),
    "evaluate": (evaluate_all, "evaluation of all images, 1,000 resamples"),
    "page": (write_page, "page and figures"),
    "setup": (standing_cache, "DataModule on a cache that stands, to the first batch"),
}


@dataclass(frozen=True)
class Measured:
    """What a stage took: seconds, processor seconds of all threads, and peak memory in bytes."""

    wall: float
    processor: float
    peak: int


def measure(name: str, size: Size) -> Measured:
    """Run a stage in this process."""
    work = STAGES[name][0](size)
    gc.collect()
    start, processor_start = time.perf_counter(), time.process_time()
    result = work()
    taken = time.perf_counter() - start, time.process_time() - processor_start
    if (check := getattr(work, "check", None)) is not None:
        check(result)
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    return Measured(*taken, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a new process."""
    # Forked, for imports take seconds: they are done once.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as process:
        return process.submit(function, *arguments).result()


def exponent(sizes: Sequence[Size], seconds: Sequence[float]) -> float:
    """Return the slope between the two largest sizes, in logarithms."""
    if len(sizes) < 2 or min(seconds[-2:]) <= 0:
        return float("nan")
    return log(seconds[-1] / seconds[-2]) / log(sizes[-1].images / sizes[-2].images)


def header(sizes: Sequence[Size]) -> str:
    """Return the first two lines of the table."""
    names = ["step", *(f"{size.images:,} images: processor s" for size in sizes), "s on the clock"]
    names += ["an image, largest to smallest", "exponent", "peak GiB"]
    return f"| {' | '.join(names)} |\n|{'---|' * len(names)}"


def line(name: str, sizes: Sequence[Size], measured: Sequence[Measured]) -> str:
    """Return a stage's line of the table; clock and peak are those of the largest size."""
    seconds = [one.processor for one in measured]
    ratio = seconds[-1] / sizes[-1].images / max(seconds[0] / sizes[0].images, 1e-12)
    cells = [STAGES[name][1], *(f"{one:.3g}" for one in seconds), f"{measured[-1].wall:.3g}"]
    cells += [f"{ratio:.2f}", f"{exponent(sizes, seconds):.2f}", f"{measured[-1].peak / GIBIBYTE:.1f}"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--patients", type=int, default=200_000)
    parser.add_argument("--shares", type=float, nargs="+", default=[1 / 16, 1 / 4, 1], help="of the images")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--folder", type=Path, help="where files are written, and kept; else a temporary one")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="scale-"))
    sizes = [
        Size(round(share * arguments.images), round(share * arguments.patients), folder / f"{share:.6f}")
        for share in arguments.shares
    ]
    try:
        for size in sizes:
            if not (size.folder / "chexpert" / "valid.csv").is_file():
                shutil.rmtree(size.folder, ignore_errors=True)
                start = time.perf_counter()
                alone(write_files, size)
                print(
                    f"# {size.images}: files written in {time.perf_counter() - start:.0f} s", file=sys.stderr
                )
        print(f"{os.cpu_count()} cores; {SETTINGS.num_resamples} resamples\n\n{header(sizes)}", flush=True)
        for name in arguments.stages:
            measured = [alone(measure, name, size) for size in sizes]
            print(line(name, sizes, measured), flush=True)
            for size, one in zip(sizes, measured, strict=True):
                print(
                    f"# {json.dumps({'stage': name, 'images': size.images, **asdict(one)})}", file=sys.stderr
                )
    finally:
        if arguments.folder is None:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
