"""Files: written whole, found by their name in a run directory, and what a file may build.

``replacing`` and the ``write_…`` functions leave the old file or the new one, never half of either.
``RunDir`` knows every name in a run directory, once. ``build`` makes objects from what a file says, and only
those that its caller lists.
"""

import functools
import importlib
import inspect
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

from cxrlab.errors import ConfigError, MissingFileError

Part = Literal["train", "val", "test"]


def user_cache_dir() -> Path:
    """Return the folder for what can be made again, of the person who runs this: XDG_CACHE_HOME/cxrlab."""
    base = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(base) / "cxrlab"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path to write to; it takes the place of ``path`` at the end, in one step.

    The temporary file lies in the same folder, hence on the same disk, so that a kill at any moment leaves
    the old file or the new one. It is removed where writing fails.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace a text file, in UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: object, *, indent: int = 1) -> None:
    """Replace a JSON file; NaN and infinity, which JSON lacks, are errors of the caller."""
    write_text(path, json.dumps(content, indent=indent, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        MissingFileError: If there is no such file.
        ConfigError: If it holds anything else.
    """
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingFileError(f"There is no {path}.") from error
    except ValueError as error:
        raise ConfigError(f"{path} is no JSON file: {error}.") from error
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path} holds a {type(loaded).__name__}, not an object.")
    return loaded


def sweep_jobs(sweep_dir: Path) -> list[dict[str, Any]]:
    """Return what a sweep wrote down of each of its jobs, in the order of their numbers.

    Args:
        sweep_dir: The folder of ``sweep.csv``.

    Raises:
        ConfigError: If a record cannot be read.
    """
    jobs = [read_json(path) for path in (sweep_dir / ".jobs").glob("*.json")]
    return sorted(jobs, key=lambda job: int(job["job"]))


def sweep_folders(sweep_dir: Path) -> list[Path]:
    """Return the folders of a sweep's jobs, whatever their names; those that were taken away are left out.

    Where the records of the jobs are missing (a copy without hidden folders), every folder below that holds
    predictions is a job's.
    """
    named = [sweep_dir / job["folder"] for job in sweep_jobs(sweep_dir) if job.get("folder")]
    if not named:
        named = sorted({path.parent.parent for path in sweep_dir.rglob("predictions/*.csv")})
    return list(dict.fromkeys(folder for folder in named if folder.is_dir()))


class DataRecord(TypedDict, total=False):
    """What a session of ``provenance.json`` says of its data.

    Attributes:
        name: Of the data set.
        images: How many.
        patients: How many.
        fingerprint: Of the manifest.
        split: The split's settings, with ``method``.
        negative: What it calls images without its one label, or "".
    """

    name: str
    images: int
    patients: int
    fingerprint: str
    split: Mapping[str, object]
    negative: str


@dataclass(frozen=True)
class RunDir:
    """A run directory: where each of its files stands, whether it is there or not.

    Attributes:
        path: The folder, such as ``outputs/2026-01-31/12-00-00``.
    """

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def config(self) -> Path:
        """The config as it was composed, references kept; a resume starts from it."""
        return self.path / ".hydra" / "config.yaml"

    @property
    def resolved_config(self) -> Path:
        """The config with references followed and everything decided, for reading."""
        return self.path / ".hydra" / "resolved.yaml"

    @property
    def overrides(self) -> Path:
        """What the command line set."""
        return self.path / ".hydra" / "overrides.yaml"

    @property
    def manifest(self) -> Path:
        """Every image with its labels and its part."""
        return self.path / "manifest.csv"

    @property
    def audit(self) -> Path:
        """What the audit of the data found."""
        return self.path / "audit.json"

    @property
    def unreadable(self) -> Path:
        """Images that could not be read; only there if there are any."""
        return self.path / "unreadable.csv"

    @property
    def layers(self) -> Path:
        """The table of the network's layers, for reading."""
        return self.path / "layers.txt"

    @property
    def network(self) -> Path:
        """The network drawn."""
        return self.path / "network.png"

    @property
    def inputs(self) -> Path:
        """Training images as the network sees them."""
        return self.path / "inputs.png"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def best_checkpoint(self) -> Path:
        """The epoch that is best by the monitored validation metric."""
        return self.checkpoints / "best.ckpt"

    @property
    def last_checkpoint(self) -> Path:
        """The epoch, or the step, that a resume goes on from."""
        return self.checkpoints / "last.ckpt"

    @property
    def metrics(self) -> Path:
        """Learning curves: one row an epoch."""
        return self.path / "metrics.csv"

    @property
    def learning_curves(self) -> Path:
        """The same, drawn."""
        return self.path / "learning_curves.png"

    @property
    def results(self) -> Path:
        """Metrics of the best checkpoint by part and label."""
        return self.path / "results.csv"

    @property
    def predictions_dir(self) -> Path:
        """Folder of the predictions tables."""
        return self.path / "predictions"

    def predictions(self, part: str) -> Path:
        """Return the predictions table of a part."""
        return self.predictions_dir / f"{part}.csv"

    @property
    def evaluation(self) -> Path:
        """The evaluation's numbers, with their intervals."""
        return self.path / "evaluation.json"

    @property
    def comparison(self) -> Path:
        """A comparison's numbers, with their intervals."""
        return self.path / "comparison.json"

    @property
    def curves(self) -> Path:
        """Points of the ROC and precision-recall curves."""
        return self.path / "curves.csv"

    @property
    def heatmaps(self) -> Path:
        """Folder of the drawn heatmaps."""
        return self.path / "heatmaps"

    @property
    def test_heatmaps(self) -> Path:
        """Heatmaps of the best network on the test part."""
        return self.heatmaps / "test"

    @property
    def flagged_heatmaps(self) -> Path:
        """Heatmaps that show what the checks flag."""
        return self.heatmaps / "flagged"

    @property
    def explanation(self) -> Path:
        """What the checks of heatmaps found."""
        return self.path / "explanation.json"

    @property
    def report(self) -> Path:
        """The page."""
        return self.path / "report.html"

    @property
    def model_card(self) -> Path:
        """The model card."""
        return self.path / "model_card.md"

    @property
    def figures(self) -> Path:
        """Folder of the page's figures as PNG files."""
        return self.path / "figures"

    @property
    def evaluations(self) -> Path:
        """Folder of later evaluations."""
        return self.path / "evaluations"

    @property
    def explanations(self) -> Path:
        """Folder of later explanations."""
        return self.path / "explanations"

    @property
    def panels(self) -> Path:
        """Folder of the heatmaps that an explanation draws."""
        return self.path / "panels"

    @property
    def maps(self) -> Path:
        """Folder of the same as arrays, one file a method."""
        return self.path / "maps"

    @property
    def flagged_panels(self) -> Path:
        """Folder of the heatmaps that show what the checks of an explanation flag."""
        return self.path / "flagged"

    @property
    def provenance(self) -> Path:
        """With what it was trained: command, commit, packages, hardware, data; one record a session."""
        return self.path / "provenance.json"

    def data_record(self) -> DataRecord:
        """Return what the provenance says of the data, or nothing.

        Raises:
            ConfigError: If the file holds no such thing.
        """
        if not self.provenance.is_file():
            return {}
        try:
            record: DataRecord = read_json(self.provenance)["sessions"][-1]["data"]
        except (KeyError, IndexError, TypeError) as error:
            raise ConfigError(
                f"{self.provenance} holds no session with its data: it was cut short."
            ) from error
        return record if isinstance(record, dict) else {}


def build(
    node: Mapping[str, Any], allowed: Collection[str], trust: Sequence[str], *, source: str, **arguments: Any
) -> Any:
    """Build what a file describes, if its class or function is listed; plain arguments, no nesting.

    A stranger's checkpoint or config must not choose what code runs, so that a prefix would be no boundary:
    a module of ours also holds functions that write files.

    Args:
        node: ``_target_``, a dotted path, and its arguments; with ``_partial_``, it waits for more.
        allowed: Dotted paths that may be built.
        trust: Packages whose classes and functions may be built too, such as ``["my_lab"]``.
        source: The file, for messages.
        arguments: Further arguments, from the code.

    Raises:
        ConfigError: If the target is neither listed nor trusted, does not exist, or an argument is itself a
            description of something to be built.
    """
    target = str(node.get("_target_"))
    function = locate(target, allowed, trust, source=source)
    plain = {key: value for key, value in node.items() if key not in _RESERVED}
    for key, value in plain.items():
        _check_plain(value, f"{target}({key}=...)", source)
    if node.get("_partial_"):
        inspect.signature(function).bind_partial(**plain, **arguments)  # a TypeError now, not at the call
        return functools.partial(function, **plain, **arguments)
    return function(**plain, **arguments)


def locate(target: str, allowed: Collection[str], trust: Sequence[str], *, source: str) -> Any:
    """Import a class or function that a file names, if it is listed or of a trusted package.

    Raises:
        ConfigError: If it is neither, or does not exist.
    """
    package = target.partition(".")[0]
    if target not in allowed and package not in trust:
        raise ConfigError(
            f"{source} names {target}, which is none of cxrlab's own classes for this place, so it was not "
            f"built: a file must not choose what code runs. If you know its package, add trust=[{package}]."
        )
    loaded = import_path(target, f"{source} names {target}, which")
    if not (inspect.isclass(loaded) or inspect.isfunction(loaded)):
        raise ConfigError(f"{source} names {target}, which is no class and no function.")
    return loaded


def import_path(path: str, subject: str) -> Any:
    """Import what a dotted path names, such as ``my_lab.metrics.squared_error``.

    Args:
        path: A module and a name in it. The caller answers for it: importing a module runs its code.
        subject: What the message says of it first, such as ``metrics=my_lab.metrics.squared_error``.

    Raises:
        ConfigError: If there is no such module, or no such name in it.
    """
    module_name, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{subject} cannot be imported ({error}). Is the package {path.partition('.')[0]} installed, or "
            "its folder on PYTHONPATH? A dotted path names a module and a name in it."
        ) from error


_RESERVED = {"_target_", "_partial_", "_convert_", "_recursive_"}


def _check_plain(value: object, where: str, source: str) -> None:
    if isinstance(value, Mapping):
        if "_target_" in value:
            raise ConfigError(f"{source} holds {value.get('_target_')} inside {where}: not built.")
        values: list[object] = list(value.values())
    elif isinstance(value, list | tuple):
        values = list(value)
    else:
        if isinstance(value, str) and "${" in value:
            raise ConfigError(f"{source} holds {value!r} in {where}, which is no plain value: not built.")
        return
    for inner in values:
        _check_plain(inner, where, source)
