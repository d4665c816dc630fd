r"""A witness of every number that the commands compute, for changes of the code that must not move one.

Take it before the change and after it, on one machine with the same versions of the libraries, and compare::

    python benchmarks/witness.py take --out before
    python benchmarks/witness.py take --out after [--renames renames.yaml]
    python benchmarks/witness.py compare before/witness.json after/witness.json [--renames renames.yaml]

``take`` runs the commands of ``STEPS`` as a user does, with ``sys.executable`` and ``PYTHONPATH`` as they
are, in the folder ``--out``: it knows nothing of the package's modules. A step's witness are the files that
it made or changed: their names, and what stands in them. Where the environment variable ``CXRLAB_TEST_DATA``
names the folder of real radiographs, these are prepared and explained too. About four minutes on two cores.

What is kept:

- JSON and YAML: every value by its keys; CSV: every cell as it is spelled.
- Checkpoints: every value; tensors of up to ``MOST_VALUES`` numbers in full (thresholds, calibration), others
  as a checksum of type, shape and bytes; so too the states of optimisers and of random generators.
- Arrays of heatmaps: a checksum. Panels and audit pictures: a checksum of their pixels.
- Text and model cards: every line. Pages: how often each number stands in their tables, and in their prose.
- Of all other files (figures, logs): that they are there.

What is left out, since it differs from one time to the next, or from one machine to the next:

- values of ``VOLATILE_KEYS`` wherever they stand: of these only the keys below them are kept;
- columns ``VOLATILE_COLUMNS`` of tables;
- in texts: the folders ``--out`` and ``CXRLAB_TEST_DATA``, times, commits and cxrlab's version;
- of pages: drawings, commands, and the section ``repeat``: versions, hardware, seconds and the config;
- files ``SKIPPED_FILES``: Hydra's own, and the config before its references are followed.

``compare`` prints every difference: change, kind, path, old, new. Numbers are equal where their spelling
(``repr``) is. Sentences that differ in words only are told apart from those whose numbers differ. The status
is 1 where a difference is none of those that the file of renames expects. All parts of that file are
optional; ``*`` stands for anything, and in what a name becomes for what it stood for before::

    commands: {cxrlab.prepare: cxrlab.audit}        # take: module of a command, and its first words
    overrides:                                      # take: a key, or one that others lie below, or key=value
      data.reader: data.source
      loss=weighted_bce: loss=balanced_bce
    files: {"*evaluation.json": "*results.json"}    # relative to the step's run directory
    columns: {"probability/*": "score/*"}           # of tables
    keys:                                           # of JSON, YAML and checkpoints, at any depth
      auroc_delong: delong_auroc
      "*/evaluation.json/data/images": num_images   # with a slash: a glob of the whole path, for its last key
    moves:                                          # regular expressions of whole paths, after all the others
      - {from: "/labels/([^/]+)/auroc/", to: '/labels/\1/ranking/auroc/'}
    values: {youden: youden_index, "cxrlab.callbacks.*": "cxrlab.training.*"}  # whole texts
    expected:                                       # globs; change: changed, reworded, gone, new or any
      - {path: "*/flags/*/message", change: reworded, reason: flags were reworded}

Keys of a glob with a slash, like paths of ``moves`` and ``expected``, are ``step/file/key/...``; those of
``keys`` are matched with the new names of files and of the keys above. Those of ``expected`` are new ones; of
what is gone, the old ones as the renames left them. ``#`` stands for a file's only value, for an empty list
or group of keys, and for a step's exit status.
"""

import argparse
import csv
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import yaml
from PIL import Image, ImageSequence

# --- What is run. Every key of the config that is set stands in this part and nowhere else.

_SMALL = ("data.image_size=64", "data.num_workers=0")
_SYNTHETIC = ("data=synthetic", "data.root=synthetic", "data.reader.size=64")
_DATA = (*_SMALL, *_SYNTHETIC, "data.reader.num_patients=64", "data.split.val_fraction=0.2")
_OTHER_DATA = (*_SMALL, *_SYNTHETIC, "data.reader.num_patients=30", "data.reader.seed=1")
_ELSEWHERE = (
    *_SMALL,
    "data=folder",
    "data.root=inputs/elsewhere",
    'data.reader.patient_pattern="^(q[0-9]+)_"',
    "data.reader.positive_class=Pleural Effusion",
)
_FOLDER = ("data=folder", "data.root=inputs/classes", 'data.reader.patient_pattern="^(q[0-9]+)_"')
_TABLE = (
    "data=table",
    "data.root=inputs/table",
    "data.reader.tables=labels.csv",
    "data.reader.image_column=File",
    "data.reader.image_folder=images",
    "data.reader.patient_column=Person",
    "data.reader.covariates={view: View, sex: Gender, age: Years}",
    "data.reader.uncertain={Edema: positive, Mass: negative}",
    "data.reader.blank=negative",
)
_JUDGED = ("evaluation.num_resamples=200",)
_TRAINED = (
    "data.batch_size=16",
    "trainer=cpu",
    "trainer.precision=32-true",
    "logger.tensorboard=null",
    "callbacks.progress=null",
    *_JUDGED,
)
_EXPLAINED = (
    "explanation.num_labels=2",
    "explanation.num_random_networks=1",
    "explanation.num_checked=6",
    "explanation.num_located=12",
    "explanation.num_resamples=100",
    "explanation.num_curve_steps=5",
)
_ATTRIBUTED = (
    "explanation.num_steps=4",
    "explanation.window=0.5",
    "explanation.stride=0.25",
    "explanation.num_background=4",
    "explanation.num_samples=4",
)
_SEQUENTIAL = (
    "model=sequential",
    "model.layers=[{conv: 8, l2: 0.001}, pool, norm, {conv: 16}, pool, {dropout: 0.2}, {dense: 16}]",
)
_SWEPT = (
    *_DATA,
    *_TRAINED,
    *_SEQUENTIAL,
    "trainer.max_epochs=1",
    "report.page=false",
    "callbacks.heatmaps=null",
)


@dataclass(frozen=True)
class Step:
    """A command that is run.

    Attributes:
        name: Of the step, and of its folder below ``runs``.
        module: Of the command.
        arguments: Its overrides; paths are relative to the witness's folder, ``@data`` is the real data's.
        sets_folder: Whether to say where it writes; else it is seen where it writes by itself.
        copied: Step whose folder is copied first.
    """

    name: str
    module: str
    arguments: tuple[str, ...]
    sets_folder: bool = True
    copied: str | None = None


STEPS = (
    Step("first", "cxrlab.train", (*_DATA, *_TRAINED, *_EXPLAINED, "trainer.max_epochs=2")),
    Step(
        "second",
        "cxrlab.train",
        (
            *(*_DATA, *_TRAINED, *_SEQUENTIAL),
            *("loss=focal", "optimizer=sgd", "scheduler=one_cycle", "augment=strong", "callbacks=ema"),
            *("trainer.max_epochs=2", "preprocess.normalize=image", "views=[identity,flip]", "seed=1"),
            *("data.resident=host", "report.page=false"),
        ),
    ),
    Step(
        "classes",
        "cxrlab.train",
        (
            *(*_SMALL, *_FOLDER, *_TRAINED, *_EXPLAINED),
            *("task=multiclass", "loss=cross_entropy", "loss.is_balanced=true", "loss.label_smoothing=0.1"),
            *("model=resnet10t", "model.checkpoint_path=runs/first/checkpoints/best.ckpt", "model.freeze=2"),
            *("model.thaw_epoch=1", "model.hidden=16", "model.dropout=0.1", "layer_rates.stage_decay=0.7"),
            *("scheduler=plateau", "trainer.max_epochs=2", "callbacks.heatmaps=null", "report.images=false"),
        ),
    ),
    Step("seeds", "cxrlab.train", ("-m", "seed=1,2", *_SWEPT)),
    Step(
        "folds",
        "cxrlab.train",
        (
            *("-m", "data.split.method=folds", "data.split.num_folds=3", "data.split.fold=0,1,2", *_SWEPT),
            *("loss=asymmetric", "data.sampling=balanced", "scheduler=none"),
        ),
    ),
    Step(
        "resumed",
        "cxrlab.train",
        ("resume=runs/resumed/0", "trainer.max_epochs=2"),
        sets_folder=False,
        copied="seeds",
    ),
    Step(
        "evaluate_val",
        "cxrlab.evaluate",
        ("run=runs/first", "part=val", "device=cpu", *_JUDGED),
        sets_folder=False,
    ),
    Step(
        "evaluate_elsewhere",
        "cxrlab.evaluate",
        ("run=runs/first", *_ELSEWHERE, "heatmaps_per_label=1", "device=cpu", *_JUDGED),
    ),
    Step(
        "evaluate_views",
        "cxrlab.evaluate",
        (
            *("run=runs/first", "views=[identity,flip]", "heatmaps_per_label=0", "report.images=false"),
            *("evaluation.threshold=f1", "evaluation.calibration=temperature_by_label", "device=cpu"),
            *_JUDGED,
        ),
    ),
    Step(
        "evaluate_ensemble",
        "cxrlab.evaluate",
        (
            *("run=[runs/first,runs/second]", "threshold=0.4", "evaluation.calibration=none", "device=cpu"),
            *_JUDGED,
        ),
    ),
    Step(
        "evaluate_tables",
        "cxrlab.evaluate",
        (
            *("predictions=inputs/good.csv", "targets=inputs/targets.csv"),
            *("validation=inputs/good_validation.csv", "evaluation.threshold=sensitivity@0.9"),
            *("evaluation.calibration=temperature", *_JUDGED),
        ),
    ),
    Step("compare_runs", "cxrlab.compare", ("runs=[runs/first,runs/second]", *_JUDGED)),
    Step(
        "compare_tables",
        "cxrlab.compare",
        (
            "predictions=[inputs/good.csv,inputs/fair.csv,inputs/poor.csv]",
            *("targets=inputs/targets.csv", *_JUDGED),
        ),
    ),
    Step(
        "explain",
        "cxrlab.explain",
        (
            *("run=runs/first", "method=gradcam++,eigencam", "labels=top2", "limit=4", "device=cpu"),
            *_EXPLAINED,
        ),
        sets_folder=False,
    ),
    Step(
        "explain_pixels",
        "cxrlab.explain",
        (
            *("run=runs/first", "method=integrated_gradients,occlusion,gradient_shap", "labels=all"),
            *("part=val", "limit=2", "checks=false", "report.images=false", "device=cpu", *_ATTRIBUTED),
        ),
    ),
    Step(
        "explain_files",
        "cxrlab.explain",
        (
            *("run=runs/first", "images=[@data/dicom/udacity_1.dcm,@data/dicom/rsna_cr_jpeg_baseline.dcm]"),
            *("method=hirescam,layercam", "labels=[Nodule]", "explanation.layers=fused", "device=cpu"),
        ),
    ),
    Step("prepare_synthetic", "cxrlab.prepare", (*_OTHER_DATA, "against=runs/first/manifest.csv")),
    Step("prepare_table", "cxrlab.prepare", (*_SMALL, *_TABLE, "images=false")),
    Step("prepare_nih", "cxrlab.prepare", (*_SMALL, "data=nih", "data.root=@data/nih")),
    Step(
        "prepare_pneumonia",
        "cxrlab.prepare",
        (*_SMALL, "data=pneumonia", "data.root=@data/chest_xray", "data.split.method=grouped"),
    ),
    Step(
        "prepare_malaria",
        "cxrlab.prepare",
        (*_SMALL, "data=malaria", "data.root=@data/cell_images", "data.resize=pad"),
    ),
)
RUN_FOLDER, SWEEP_FOLDER = "hydra.run.dir", "hydra.sweep.dir"
# One thread: sums are then added in the same order on any number of cores. Hashes of strings stay random, so
# that an order that depends on them shows.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    "COLUMNS": "120",
}

# --- What is left out.

VOLATILE_KEYS = frozenset(
    {
        *("seconds", "started", "versions", "commit", "hardware", "command", "pytorch-lightning_version"),
        *("overrides", "but_seed", "configuration"),  # the command line, in the tables of sweeps
    }
)
VOLATILE_COLUMNS = frozenset({"seconds", "overrides"})
SKIPPED_FILES = frozenset({"hydra.yaml", "overrides.yaml", "config.yaml"})
SKIPPED_TAGS = frozenset({"script", "style", "svg", "pre", "footer"})
SKIPPED_SECTIONS = frozenset({"repeat"})
VOLATILE_TEXTS = (
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[\d.]*(?:[+-]\d\d:\d\d|Z)?"), "<time>"),
    (re.compile(r"\b[0-9a-f]{40}(?:-dirty)?\b"), "<commit>"),
    (re.compile(r"\bcxrlab \d+(?:\.\w+)+"), "cxrlab <version>"),
)
PICTURES = re.compile(r"(^|/)(heatmaps|panels|flagged)/.*\.png$|\.gif$")
MOST_VALUES = 16
PACKAGES = (
    *("torch", "torchvision", "pytorch-lightning", "hydra-core", "timm", "torchmetrics", "pandas", "numpy"),
    *("scipy", "scikit-learn", "pillow", "grad-cam", "captum", "shap", "matplotlib", "kornia-rs", "pydicom"),
)

Content = Any
Kind = Literal["json", "table", "checkpoint", "array", "picture", "text", "page", "other"]
NUMBER = re.compile(r"(?<![\w.])\d+(?:[.,]\d+)*(?!\w)")


# --- Renames.


@dataclass(frozen=True)
class Expected:
    """A difference that is wanted.

    Attributes:
        path: Glob of its path.
        change: Which.
        reason: Why.
    """

    path: str
    change: str
    reason: str


@dataclass(frozen=True)
class Renames:
    """What is called otherwise after the change, and what is wanted to differ; see the module."""

    commands: Mapping[str, str]
    overrides: Mapping[str, str]
    files: Mapping[str, str]
    columns: Mapping[str, str]
    keys: Mapping[str, str]
    moves: tuple[tuple[re.Pattern[str], str], ...]
    values: Mapping[str, str]
    expected: tuple[Expected, ...]

    @classmethod
    def read(cls, path: Path | None) -> "Renames":
        """Read the YAML file; nothing is renamed where there is none."""
        found = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path else {}
        maps = {name: found.pop(name, {}) for name in cls._MAPS}
        moves = tuple((re.compile(one["from"]), one["to"]) for one in found.pop("moves", []))
        expected = tuple(
            Expected(one["path"], one.get("change", "any"), one["reason"])
            for one in found.pop("expected", [])
        )
        wrong = {one.change for one in expected} - {"any", "changed", "reworded", "gone", "new"}
        if found or wrong:
            sys.exit(f"{path}: unknown {sorted({*found, *wrong})}")
        return cls(**maps, moves=moves, expected=expected)

    _MAPS = ("commands", "overrides", "files", "columns", "keys", "values")

    def argument(self, argument: str) -> str:
        """Return an override in the new spelling."""
        if argument in self.overrides:
            return self.overrides[argument]
        key, sign, value = argument.partition("=")
        mark, bare = re.fullmatch(r"([+~]*)(.*)", key, re.DOTALL).groups()  # type: ignore[union-attr]
        olds = [old for old in self.overrides if "=" not in old and f"{bare}.".startswith(f"{old}.")]
        old = max(olds, key=len, default=None)
        return argument if old is None else f"{mark}{self.overrides[old]}{bare[len(old) :]}{sign}{value}"

    def path(self, parts: tuple[str, ...]) -> tuple[str, ...]:
        """Return keys in the new spelling."""
        if not self.keys:
            return parts
        *above, key = parts
        before = "/".join(parts)
        for old, new in self.keys.items():
            found = (new if fnmatchcase(before, old) else None) if "/" in old else _starred(key, old, new)
            if found is not None:
                return (*above, found)
        return parts

    def moved(self, path: str) -> str:
        """Return a whole path where it is now."""
        for old, new in self.moves:
            path = old.sub(new, path)
        return path


def _starred(name: str, old: str, new: str) -> str | None:
    """Return what a name becomes where it fits, with what the stars stood for; else None."""
    if "*" not in old:
        return new if name == old else None
    match = re.fullmatch("(.*)".join(re.escape(part) for part in old.split("*")), name, re.DOTALL)
    if match is None:
        return None
    filled = iter(match.groups())
    return re.sub(r"\*", lambda _: next(filled, ""), new)


def _renamed(name: str, renames: Mapping[str, str]) -> str:
    found = (_starred(name, old, new) for old, new in renames.items())
    return next((one for one in found if one is not None), name)


# --- Inputs that the commands are given.


def write_inputs(folder: Path) -> None:
    """Write another program's tables, images of three classes, and a table of images with faults."""
    folder.mkdir(parents=True)
    _write_predictions(folder)
    _write_classes(folder / "classes", {"Bacterial": 40, "Normal": 32, "Viral": 24}, seed=1)
    _write_classes(folder / "elsewhere", {"Healthy": 24, "Pleural Effusion": 24}, seed=2)
    _write_faulty(folder / "table")


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def _write_predictions(folder: Path, num_images: int = 600, num_patients: int = 220) -> None:
    """Write ``targets.csv``, and three models' predictions; every third patient is for validation."""
    generator = np.random.default_rng(0)
    labels = ["Effusion", "Nodule", "Opacity", "Cardiomegaly"]
    patients = np.sort(np.concatenate([np.arange(num_patients), generator.integers(0, num_patients, 380)]))
    prevalences = np.array([0.3, 0.15, 0.4, 0.05])
    of_patient = generator.beta(2 * prevalences, 2 * (1 - prevalences), (num_patients, len(labels)))
    targets = (generator.random((num_images, len(labels))) < of_patient[patients]).astype(float)
    known = np.where(generator.random(targets.shape) < 0.05, np.nan, targets)
    is_validation = patients % 3 == 0
    names = [f"{patient:05d}_{row:04d}.png" for row, patient in enumerate(patients)]
    sexes, ages = generator.choice(["F", "M"], num_patients), generator.integers(1, 95, num_patients)
    views = generator.choice(["PA", "AP"], num_images)
    _write_csv(
        folder / "targets.csv",
        ["image", "patient", "part", "view", "sex", "age", *(f"target/{label}" for label in labels)],
        (
            [*(names[row], f"p{patient}", "val" if is_validation[row] else "test"),
             *(views[row], sexes[patient], ages[patient]), *map(_cell, known[row])]
            for row, patient in enumerate(patients)
        ),
    )  # fmt: skip
    for name, distance, prefix in (("good", 1.5, "probability/"), ("fair", 1.0, "prob_"), ("poor", 0.2, "")):
        logits = generator.normal(size=targets.shape) + distance * targets - 1
        probabilities = 1 / (1 + np.exp(-logits))
        for suffix, wanted in (("", ~is_validation), ("_validation", is_validation)):
            rows = generator.permutation(np.flatnonzero(wanted))
            header = ["Image Index" if name == "fair" else "image", *(prefix + label for label in labels)]
            cells = ([names[row], *map(_cell, probabilities[row])] for row in rows)
            _write_csv(folder / f"{name}{suffix}.csv", header, cells)


def _cell(value: float) -> str:
    return "" if np.isnan(value) else repr(float(value))


def _pattern(generator: np.random.Generator, kind: int, size: int = 72) -> npt.NDArray[np.uint8]:
    """Return a picture with a bright spot whose place and width tell its kind."""
    y, x = np.mgrid[:size, :size] / size
    across, down = 0.2 + 0.3 * kind + 0.1 * generator.normal(size=2)
    spot = np.exp(-((x - across) ** 2 + (y - down) ** 2) / (0.02 + 0.02 * kind))
    grey = 60 + 120 * spot + 60 * np.sin(3 * x + generator.normal()) + 12 * generator.normal(size=x.shape)
    clipped: npt.NDArray[np.uint8] = np.clip(grey, 0, 255).astype(np.uint8)
    return clipped


def _write_classes(folder: Path, num_images: Mapping[str, int], seed: int) -> None:
    """Write a folder of images for each class, two of each patient."""
    generator = np.random.default_rng(seed)
    for kind, (name, count) in enumerate(num_images.items()):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            path = folder / name / f"q{100 * kind + number // 2}_{number}.png"
            Image.fromarray(_pattern(generator, kind)).save(path)


def _write_faulty(folder: Path) -> None:
    """Write a table of images of which one is missing, one broken, one inverted, and one stands twice."""
    generator = np.random.default_rng(3)
    (folder / "images").mkdir(parents=True)
    rows: list[list[object]] = []
    for number in range(60):
        findings = generator.choice(["1", "0", "-1", ""], size=2, p=[0.3, 0.5, 0.1, 0.1])
        grey = _pattern(generator, int(findings[0] == "1"))
        name, person = f"{number:03d}.png", number // 2
        Image.fromarray(255 - grey if number == 7 else grey).save(folder / "images" / name)
        years = "" if number == 11 else int(generator.integers(1, 90))
        rows.append([name, person, "PA" if number % 3 else "AP", "FM"[person % 2], years, *findings])
    shutil.copy(folder / "images" / "004.png", folder / "images" / "041.png")
    (folder / "images" / "020.png").write_bytes(b"no image")
    (folder / "images" / "030.png").unlink()
    _write_csv(folder / "labels.csv", ["File", "Person", "View", "Gender", "Years", "Edema", "Mass"], rows)


# --- Taking the witness.


@dataclass(frozen=True)
class Reader:
    """Reads files into what can be kept as JSON.

    Attributes:
        folders: What stands for folders of this machine.
        volatile: Keys whose values are left out.
        columns: Columns that are left out.
    """

    folders: Mapping[str, str]
    volatile: frozenset[str]
    columns: frozenset[str]

    def read(self, path: Path, name: str) -> dict[str, Content]:
        """Return what is kept of a file: ``kind`` and ``content``."""
        readers: dict[str, tuple[Kind, Callable[[Path], Content]]] = {
            ".json": ("json", lambda file: self.tree(json.loads(file.read_text(encoding="utf-8")))),
            ".yaml": ("json", lambda file: self.tree(yaml.safe_load(file.read_text(encoding="utf-8")))),
            ".csv": ("table", self.table),
            ".ckpt": ("checkpoint", self.checkpoint),
            ".npy": ("array", lambda file: array_sum(np.load(file))),
            ".txt": ("text", self.lines),
            ".md": ("text", self.lines),
            ".html": ("page", self.page),
        }
        kind, function = readers.get(path.suffix, ("other", lambda file: None))
        if PICTURES.search(name):
            kind, function = "picture", picture_sum
        if path.name in SKIPPED_FILES:
            kind, function = "other", lambda file: None
        return {"kind": kind, "content": function(path)}

    def text(self, text: str) -> str:
        """Return a text without this machine's folders, times, commits and versions."""
        for folder, sign in self.folders.items():
            text = text.replace(folder, sign)
        for pattern, sign in VOLATILE_TEXTS:
            text = pattern.sub(sign, text)
        return text

    def tree(self, node: Content) -> Content:
        """Return dicts, lists and values; tensors as values or checksums, of the volatile the keys alone."""
        if isinstance(node, Mapping):
            kept = {str(key): value for key, value in node.items()}
            return {
                self.text(key): outline(value) if key in self.volatile else self.tree(value)
                for key, value in kept.items()
            }
        if isinstance(node, (list, tuple)):
            if len(node) > 4 * MOST_VALUES and all(isinstance(one, (int, float)) for one in node):
                return array_sum(np.array(node))
            return [self.tree(one) for one in node]
        if isinstance(node, str):
            return self.text(node)
        if node is None or isinstance(node, (bool, int, float)):
            return node
        if hasattr(node, "numpy"):
            return tensor_content(node)
        return f"<{type(node).__name__}>"

    def table(self, path: Path) -> dict[str, list[str]]:
        """Return the cells of each column of a CSV file, as they are spelled."""
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = list(csv.reader(file)) or [[]]
        columns = zip(*rows, strict=True) if rows else ([] for _ in header)
        return {
            name: [self.text(cell) for cell in cells]
            for name, cells in zip(header, columns, strict=True)
            if name not in self.columns
        }

    def checkpoint(self, path: Path) -> Content:
        """Return what stands in a checkpoint; no code in it is run."""
        import torch

        return self.tree(torch.load(path, map_location="cpu", weights_only=True))

    def lines(self, path: Path) -> list[str]:
        """Return the lines of a text that hold something."""
        lines = self.text(path.read_text(encoding="utf-8")).splitlines()
        return [line.strip() for line in lines if line.strip()]

    def page(self, path: Path) -> dict[str, dict[str, int]]:
        """Return how often each number stands in a page's tables and in its prose."""
        parser = PageNumbers()
        parser.feed(self.text(path.read_text(encoding="utf-8")))
        return {"tables": dict(sorted(parser.tables.items())), "prose": dict(sorted(parser.prose.items()))}


class PageNumbers(HTMLParser):
    """Counts the numbers that can be read on a page.

    Attributes:
        tables: In cells.
        prose: Elsewhere.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tables: Counter[str] = Counter()
        self.prose: Counter[str] = Counter()
        self._cells = 0
        self._skipped = ""
        self._depth = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note that a cell, or what is not read, begins."""
        if self._skipped:
            self._depth += tag == self._skipped
        elif tag in SKIPPED_TAGS or (tag == "section" and dict(attrs).get("id") in SKIPPED_SECTIONS):
            self._skipped, self._depth = tag, 1
        else:
            self._cells += tag in ("td", "th")

    def handle_endtag(self, tag: str) -> None:
        """Note that it ends."""
        if self._skipped:
            self._depth -= tag == self._skipped
            self._skipped = self._skipped if self._depth else ""
        else:
            self._cells -= tag in ("td", "th")

    def handle_data(self, data: str) -> None:
        """Count the numbers of a text."""
        if not self._skipped:
            (self.tables if self._cells else self.prose).update(NUMBER.findall(data))


def outline(node: Content) -> Content:
    """Return the keys of what is volatile, with signs in place of its values."""
    if isinstance(node, Mapping):
        return {str(key): outline(value) for key, value in node.items()}
    return "<list>" if isinstance(node, list) else "<value>"


def array_sum(array: npt.NDArray[Any]) -> str:
    """Return a checksum of an array's type, shape and bytes."""
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:32]
    return f"sha256:{array.dtype}:{'x'.join(map(str, array.shape))}:{digest}"


def tensor_content(tensor: Any) -> Content:
    """Return the values of a small tensor, the checksum of a large one."""
    array = tensor.detach().cpu().contiguous()
    if array.numel() <= MOST_VALUES:
        return array.tolist()
    try:
        return array_sum(array.numpy())
    except TypeError:  # bfloat16
        return array_sum(array.float().numpy())


def picture_sum(path: Path) -> str:
    """Return a checksum of the pixels of all frames."""
    with Image.open(path) as picture:
        frames = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(picture)]
    return array_sum(np.stack(frames))


def _stamps(folder: Path) -> dict[Path, tuple[int, int]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in files}


def _environment(out: Path) -> dict[str, str]:
    """Return the environment of the commands: they run in another folder, with a cache of their own."""
    known = dict(os.environ)
    if known.get("PYTHONPATH"):
        folders = known["PYTHONPATH"].split(os.pathsep)
        known["PYTHONPATH"] = os.pathsep.join(str(Path(folder).resolve()) for folder in folders if folder)
    return known | ENVIRONMENT | {"XDG_CACHE_HOME": str(out / "cache")}


def _command(step: Step, renames: Renames, data: str) -> list[str]:
    arguments = [renames.argument(one) for one in step.arguments]
    if step.sets_folder:
        key = SWEEP_FOLDER if "-m" in arguments else RUN_FOLDER
        arguments.append(f"{key}=runs/{step.name}")
    module = renames.commands.get(step.module, step.module)
    return [sys.executable, "-m", *module.split(), *(one.replace("@data", data) for one in arguments)]


def run_step(step: Step, out: Path, reader: Reader, renames: Renames, data: str) -> dict[str, Content]:
    """Run a command and return ``exit``, ``seconds`` and ``files``: those that it made or changed."""
    own = out / "runs" / step.name
    if step.copied:
        shutil.copytree(out / "runs" / step.copied, own)
    before, start = _stamps(out / "runs"), time.perf_counter()
    log = out / "logs" / f"{step.name}.txt"
    with log.open("w", encoding="utf-8") as file:
        ended = subprocess.run(
            _command(step, renames, data),
            cwd=out,
            env=_environment(out),
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
        )
    seconds = round(time.perf_counter() - start, 1)
    print(f"{step.name:20} {seconds:6.1f} s" + (f"  status {ended.returncode}" if ended.returncode else ""))
    if ended.returncode:
        print("\n".join(log.read_text(encoding="utf-8").splitlines()[-12:]))
    made = [path for path, stamp in _stamps(out / "runs").items() if before.get(path) != stamp]
    names = {Path(os.path.relpath(path, own)).as_posix(): path for path in made}
    files = {reader.text(name): reader.read(names[name], name) for name in sorted(names)}
    return {"exit": ended.returncode, "seconds": seconds, "files": files}


def take(out: Path, only: Sequence[str], renames: Renames) -> int:
    """Run every step and write ``witness.json``; return 1 where a command failed."""
    out = out.resolve()
    if out.exists() and any(out.iterdir()):
        sys.exit(f"{out} is not empty: name a new folder.")
    named = os.environ.get("CXRLAB_TEST_DATA")
    data = str(Path(named).resolve()) if named else ""
    for name in ("runs", "logs"):
        (out / name).mkdir(parents=True)
    write_inputs(out / "inputs")
    reader = Reader(
        {str(out): "<out>"} | ({data: "<data>"} if data else {}),
        VOLATILE_KEYS | {_renamed(key, renames.keys) for key in VOLATILE_KEYS},
        VOLATILE_COLUMNS | {_renamed(name, renames.columns) for name in VOLATILE_COLUMNS},
    )
    chosen = [one for one in STEPS if not only or one.name in only]
    if not data:
        print("CXRLAB_TEST_DATA is unset: steps that need real radiographs are left out.")
        chosen = [one for one in chosen if not any("@data" in argument for argument in one.arguments)]
    steps = {one.name: run_step(one, out, reader, renames, data) for one in chosen}
    where = subprocess.run(
        [sys.executable, "-c", "import cxrlab; print(cxrlab.__file__)"],
        cwd=out, env=_environment(out), capture_output=True, text=True, check=False,
    )  # fmt: skip
    witness = {"package": where.stdout.strip(), "made_with": _made_with(), "steps": steps}
    (out / "witness.json").write_text(json.dumps(witness, indent=0) + "\n", encoding="utf-8")
    failed = [name for name, step in steps.items() if step["exit"]]
    total = sum(step["seconds"] for step in steps.values())
    print(f"{len(steps)} steps, {total:.0f} s, code {witness['package']}: {out / 'witness.json'}")
    if failed:
        print(f"FAILED: {', '.join(failed)}; see {out / 'logs'}")
    return int(bool(failed))


def _made_with() -> dict[str, str]:
    """Return what numbers may depend on beside the code."""
    found = {"python": platform.python_version(), "machine": _processor()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    found = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(found, platform.processor())


# --- Comparing two.


@dataclass(frozen=True)
class Difference:
    """One difference.

    Attributes:
        path: Where: step, file, keys.
        kind: ``number``, ``word``, ``sentence``, ``checksum`` or ``file``.
        change: ``changed``; ``reworded`` for a sentence with the same numbers; ``gone`` or ``new``.
        old: The old value; of what is new, nothing.
        new: The new value; of what is gone, nothing.
        kinds: Of all values that are gone or new with it.
    """

    path: str
    kind: str
    change: str
    old: object
    new: object
    kinds: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.change in ("gone", "new"):
            value = self.old if self.change == "gone" else self.new
            told = f"{value!r}" if len(self.kinds) == 1 else f"{len(self.kinds)} values"
            return f"{self.change:8} {self.kind:8} {self.path}: {told}"
        return f"{self.change:8} {self.kind:8} {self.path}: {self.old!r} -> {self.new!r}"

    def fits(self, expected: Expected) -> bool:
        """Tell whether this difference is one that is wanted."""
        return expected.change in ("any", self.change) and fnmatchcase(self.path, expected.path)


def kind_of(value: object) -> str:
    """Return ``number``, ``word``, ``sentence``, ``checksum`` or ``file``."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return "number"
    if not isinstance(value, str):
        return "word"
    if value in ("<file>", "<checksum>") or value.startswith("sha256:"):
        return "file" if value == "<file>" else "checksum"
    try:
        float(value)
    except ValueError:
        return "sentence" if re.search(r"\s", value) else "word"
    return "number"


def flat(witness: Mapping[str, Any], renames: Renames, only: Sequence[str]) -> dict[str, object]:
    """Return every value by its path, in the new spelling.

    Raises:
        SystemExit: If renames give two values one path.
    """
    key = functools.lru_cache(maxsize=None)(renames.path)
    found: dict[str, object] = {}
    for step, taken in witness["steps"].items():
        if only and step not in only:
            continue
        found[f"{step}/#"] = taken["exit"]
        for old, file in taken["files"].items():
            name = _renamed(old, renames.files)
            columns = renames.columns if file["kind"] == "table" else None
            for path, value in _leaves(file["content"], (step, name), key, columns):
                text = renames.moved("/".join(path))
                if text in found:
                    sys.exit(f"The renames give two values the path {text}.")
                found[text] = _renamed(value, renames.values) if isinstance(value, str) else value
    return found


def _leaves(
    node: Content,
    path: tuple[str, ...],
    key: Callable[[tuple[str, ...]], tuple[str, ...]],
    columns: Mapping[str, str] | None,
) -> Iterator[tuple[tuple[str, ...], object]]:
    """Yield each value with its path; a file and what is empty have one too."""
    if len(path) == 2:
        yield path, "<file>"
    if isinstance(node, Mapping):
        for name, value in node.items():
            below = key((*path, name)) if columns is None else (*path, _renamed(name, columns))
            yield from _leaves(value, below, key, None if columns is None else {})
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from _leaves(value, (*path, str(number)), key, columns)
    elif node is not None and len(path) == 2:
        yield (*path, "#"), node
    elif len(path) > 2:
        yield path, node
    if isinstance(node, (Mapping, list)) and not node:
        yield (*path, "#"), 0


def _change(old: object, new: object, kind: str) -> str:
    if kind != "sentence":
        return "changed"
    same = Counter(NUMBER.findall(str(old))) == Counter(NUMBER.findall(str(new)))
    return "reworded" if same else "changed"


def _missing(
    gone: Sequence[str], there: Iterable[str], change: str, values: Mapping[str, object]
) -> list[Difference]:
    """Return what is on one side only, what lies below one key as one difference."""
    known = {path[:end] for path in there for end in _ends(path)}
    groups: dict[str, list[str]] = {}
    for path in gone:
        top = next((path[:end] for end in _ends(path) if path[:end] not in known), path)
        groups.setdefault(top, []).append(path)
    found = []
    for top, paths in groups.items():
        value, kinds = values[paths[0]], tuple(kind_of(values[path]) for path in paths)
        old, new = (value, None) if change == "gone" else (None, value)
        found.append(Difference(top, kinds[0], change, old, new, kinds))
    return found


def _ends(path: str) -> list[int]:
    return [*(match.start() for match in re.finditer("/", path)), len(path)]


def differences(
    old: Mapping[str, object], new: Mapping[str, object]
) -> tuple[list[Difference], Counter[str]]:
    """Return what differs, and how many values of each kind are equal."""
    found: list[Difference] = []
    equal: Counter[str] = Counter()
    for path, before in old.items():
        if path not in new:
            continue
        after = new[path]
        kinds = {kind_of(before), kind_of(after)}
        kind = next(one for one in ("number", "sentence", "checksum", "file", "word") if one in kinds)
        if repr(before) == repr(after):
            equal[kind] += 1
        else:
            found.append(Difference(path, kind, _change(before, after, kind), before, after))
    found += _missing([path for path in old if path not in new], new, "gone", old)
    found += _missing([path for path in new if path not in old], old, "new", new)
    return found, equal


def compare(old_path: Path, new_path: Path, only: Sequence[str], renames: Renames, limit: int | None) -> int:
    """Print every difference and a summary; return 1 where one is not expected."""
    witnesses = [json.loads(path.read_text(encoding="utf-8")) for path in (old_path, new_path)]
    for name, before in witnesses[0]["made_with"].items():
        after = witnesses[1]["made_with"].get(name)
        if before != after:
            print(f"WARNING: {name} is {before} in one, {after} in the other: numbers may differ for that.")
    nothing = Renames.read(None)
    old, new = flat(witnesses[0], renames, only), flat(witnesses[1], nothing, only)
    found, equal = differences(old, new)
    used: Counter[int] = Counter()
    unexpected = []
    for one in found:
        fitting = [place for place, rule in enumerate(renames.expected) if one.fits(rule)]
        used.update(fitting[:1])
        if not fitting:
            unexpected.append(one)
    for one in unexpected[:limit]:
        print(one)
    if limit is not None and len(unexpected) > limit:
        print(f"... and {len(unexpected) - limit} more")
    _summarise(found, unexpected, equal)
    for place, rule in enumerate(renames.expected):
        print(f"expected {rule.change:8} {used[place]:6}  {rule.path}: {rule.reason}")
    print("DIFFERENT" if unexpected else "The same but for what is expected." if found else "The same.")
    return int(bool(unexpected))


def _summarise(found: Sequence[Difference], unexpected: Sequence[Difference], equal: Counter[str]) -> None:
    print(f"\n{'':10} {'equal':>8} {'changed':>8} {'reworded':>8} {'gone':>8} {'new':>8}  not expected")
    for kind in ("number", "checksum", "word", "sentence", "file"):
        counts = [
            sum(one.kind == kind and one.change == change for one in found)
            for change in ("changed", "reworded")
        ]
        counts += [
            sum(one.kinds.count(kind) for one in found if one.change == change) for change in ("gone", "new")
        ]
        left = sum(one.kinds.count(kind) if one.kinds else one.kind == kind for one in unexpected)
        print(f"{kind + 's':10} {equal[kind]:8} " + " ".join(f"{count:8}" for count in counts) + f"  {left}")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Witness of every number that the commands compute.")
    commands = parser.add_subparsers(dest="command", required=True)
    taking = commands.add_parser("take", help="run every command and keep what it computes")
    taking.add_argument("--out", type=Path, required=True, help="a new folder")
    comparing = commands.add_parser("compare", help="print every difference between two")
    comparing.add_argument("old", type=Path)
    comparing.add_argument("new", type=Path)
    comparing.add_argument("--limit", type=int, help="differences that are printed, at most")
    for one in (taking, comparing):
        one.add_argument("--renames", type=Path, help="YAML file: what is called otherwise, or expected")
        one.add_argument("--only", default="", help="names of steps, with commas")
    asked = parser.parse_args()
    only, renames = [name for name in asked.only.split(",") if name], Renames.read(asked.renames)
    unknown = sorted(set(only) - {step.name for step in STEPS})
    if unknown:
        parser.error(f"--only: there is no step {', '.join(unknown)}")
    if asked.command == "take":
        sys.exit(take(asked.out, only, renames))
    sys.exit(compare(asked.old, asked.new, only, renames, asked.limit))


if __name__ == "__main__":
    main()
