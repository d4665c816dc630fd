"""Files: written whole, read with their name in every message.

``replacing`` and the ``write_…`` functions leave the old file or the new one, never half of either;
``reading`` and the ``read_…`` functions say which file is damaged. ``RunDir`` knows every name in a run
directory, once.
"""

import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, cast

import yaml

from cxrlab.errors import ConfigError, MissingFileError, UserError

Part = Literal["train", "val", "test"]

_log = logging.getLogger(__name__)


def user_cache_dir() -> Path:
    """Return the folder for what can be made again, of the person who runs this: XDG_CACHE_HOME/cxrlab."""
    base = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(base) / "cxrlab"


def config_dir() -> Path:
    """Return the folder of the YAML files: inside an installed package, or beside a checkout's src."""
    package = Path(__file__).resolve().parent
    installed = package / "conf"
    return installed if (installed / "train.yaml").is_file() else package.parents[1] / "conf"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path to write to; it takes the place of ``path`` at the end, in one step.

    The temporary file lies in the same folder, hence on the same disk, so that a kill at any moment leaves
    the old file or the new one. It is removed where writing fails. Where ``path`` is a symbolic link, the
    link is replaced, and what it points at is left alone.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    temporary.unlink(missing_ok=True)  # a link of this name would be followed
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        # An error without a number has words of its own, which a file's name would hide.
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


_LEFT = re.compile(r"\..+\.\d+\.part")


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes were writing in a folder and those in it; nobody else may write there.

    Folders of evaluations and explanations, each of which may have a process of its own, are left alone.
    """
    folders = [folder]
    if folder.is_dir():
        own = (RunDir(folder).evaluations, RunDir(folder).explanations)
        folders += [path for path in folder.iterdir() if path.is_dir() and path not in own]
    for each in folders:
        for path in each.glob(".*.part"):
            if _LEFT.fullmatch(path.name):
                path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace a text file, in UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: object, *, indent: int = 1) -> None:
    """Replace a JSON file; NaN and infinity, which JSON lacks, are errors of the caller."""
    write_text(path, json.dumps(content, indent=indent, allow_nan=False) + "\n")


# What a file's reader, or who looks for its entries, raises where the file was cut or edited.
_DAMAGE = (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError)


@contextmanager
def reading(path: Path, remedy: str = "") -> Iterator[None]:
    """Turn whatever goes wrong while a file is read into a message that names it.

    Args:
        path: The file.
        remedy: What to do where it is damaged, a sentence.

    Raises:
        MissingFileError: If there is no such file.
        ConfigError: If it cannot be read, or holds something else than is expected of it.
    """
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise MissingFileError(f"There is no {path}.") from error
    except (
        yaml.YAMLError,
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        size = path.stat().st_size if path.is_file() else None
        what = "is empty" if size == 0 else f"cannot be read ({type(error).__name__}: {_one_line(error)})"
        advice = remedy or "It was cut short or edited: bring it back from a copy."
        raise ConfigError(f"{path} {what}. {advice}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def read_json(path: Path, remedy: str = "") -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        MissingFileError: If there is no such file.
        ConfigError: If it holds anything else; the message ends with ``remedy``.
    """
    with reading(path, remedy):
        return _object(json.loads(path.read_text(encoding="utf-8")))


def read_yaml(path: Path, remedy: str = "") -> dict[str, Any]:
    """Read a YAML file that holds an object, as plain values: nothing in it is built, or evaluated.

    Raises:
        MissingFileError: If there is no such file.
        ConfigError: If it holds anything else, or refers to itself by aliases, of which a few lines can
            unfold to gigabytes; the message ends with ``remedy``.
    """
    with reading(path, remedy):
        text = path.read_text(encoding="utf-8")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise ValueError("it has aliases, which cxrlab does not write")
        return _object(yaml.safe_load(text))


def _object(loaded: object) -> dict[str, Any]:
    if not isinstance(loaded, dict):
        raise ValueError(f"it holds a {type(loaded).__name__}, not an object")
    return loaded


def check_links(folder: Path, within: Path) -> None:
    """Refuse symbolic links by which writing into a folder would write somewhere else.

    A run directory may be a stranger's: a link in it, such as ``evaluate.log``, would have a file changed
    that is no part of it.

    Args:
        folder: What is written to; it need not be there.
        within: The run directory, ``folder`` itself or above it. Links that stay inside it are let be.

    Raises:
        ConfigError: If ``folder``, a folder between, or anything below it leads out.
    """
    home = within.resolve()
    between = [path for path in (folder, *folder.parents) if path != within and path.is_relative_to(within)]
    below = (Path(top) / name for top, folders, files in os.walk(folder) for name in (*folders, *files))
    for path in (*between, *below):
        if path.is_symlink() and not path.resolve().is_relative_to(home):
            raise ConfigError(
                f"{path} is a link that leads out of {within}, to {path.readlink()}: what is written there "
                "would change files that are no part of the run. Remove the link, or put what it points at "
                "in its place."
            )


def sweep_jobs(sweep_dir: Path) -> list[dict[str, Any]]:
    """Return what a sweep wrote down of each of its jobs, in the order of their numbers.

    Args:
        sweep_dir: The folder of ``sweep.csv``.

    Of one whose record is damaged, ``status`` is ``unknown`` and ``error`` says why, with a warning: the
    table of the other jobs must not be lost with it.
    """
    jobs = [_sweep_job(path) for path in (sweep_dir / ".jobs").glob("*.json") if path.stem.isdigit()]
    return sorted(jobs, key=lambda job: int(job["job"]))


_OF_JOB = (
    "job", "status", "metric", "seconds", "overrides", "error", "fold", "num_folds", "configuration", "seed",
    "but_seed", "folder", "monitor", "maximize",
)  # fmt: skip


def _sweep_job(path: Path) -> dict[str, Any]:
    number = int(path.stem)
    try:
        with reading(path):
            job = dict.fromkeys(_OF_JOB) | read_json(path)
            if job["job"] != number:
                raise ValueError(f"it is of the job {job['job']}")
            if not isinstance(job["status"], str | None) or not isinstance(job["folder"], str | None):
                raise ValueError("status and folder are no text")
            float(job["metric"] if job["metric"] is not None else "nan")
            return job
    except ConfigError as error:
        _log.warning(
            "Job %d of the sweep %s is listed without its result: %s", number, path.parent.parent, error
        )
        known = {"job": number, "status": "unknown", "overrides": "", "error": str(error), "maximize": True}
        return dict.fromkeys(_OF_JOB) | known


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
        is_named: Whether a person gave the name (``data.name``).
        images: How many.
        patients: How many.
        fingerprint: Of the manifest.
        content: Of the image files' bytes; see :attr:`cxrlab.data.dataset.Dataset.content`.
        split: The split's settings, with ``method``.
        negative: What it calls images without its one label, or "".
        public: Name of the public data set that it is, or "".
    """

    name: str
    is_named: bool
    images: int
    patients: int
    fingerprint: str
    content: str
    split: Mapping[str, object]
    negative: str
    public: str


class FeaturesRecord(TypedDict):
    """What a session of ``provenance.json`` says of features that were read in the place of images.

    Attributes:
        number: Features of an image.
        images: How many.
        computed: Of how many images they were computed in this session; the others were kept from before.
    """

    number: int
    images: int
    computed: int


class SolverRecord(TypedDict):
    """What a session of ``provenance.json`` says of a head that was solved for.

    Attributes:
        name: Of what solved.
        strength: Of the best checkpoint: scikit-learn's ``C``.
        strengths: All that were to be tried.
    """

    name: str
    strength: float
    strengths: list[float]


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
    def trackers(self) -> Path:
        """Ids of the run in trackers of experiments, by tracker; a resume continues them."""
        return self.path / "trackers.json"

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

    def baselines(self, part: str) -> Path:
        """Return what simple models predict of a part; see :mod:`cxrlab.evaluation.run_baselines`."""
        return self.predictions_dir / f"baselines_{part}.npz"

    def image_facts(self, part: str) -> Path:
        """Return what the images of a part look like; see :mod:`cxrlab.evaluation.image_facts`."""
        return self.predictions_dir / f"image_facts_{part}.npz"

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
    def checklist_claim(self) -> Path:
        """The items of CLAIM 2024, answered as far as they are known."""
        return self.path / "checklist_claim.md"

    @property
    def checklist_tripod_ai(self) -> Path:
        """The items of TRIPOD+AI, answered as far as they are known."""
        return self.path / "checklist_tripod_ai.md"

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
        sessions = self.sessions()
        if not sessions:
            return {}
        record = sessions[-1].get("data")
        if not isinstance(record, dict):
            raise ConfigError(
                f"{self.provenance}: its last session does not say on what data: it was cut short or edited. "
                f"{PROVENANCE_REMEDY}"
            )
        return cast("DataRecord", record)

    def sessions(self) -> list[dict[str, Any]]:
        """Return the sessions of the provenance, the oldest first; none where there is no such file.

        Raises:
            ConfigError: If the file holds anything else.
        """
        if not self.provenance.is_file():
            return []
        return read_sessions(self.provenance)


PROVENANCE_REMEDY = (
    "Bring it back from a copy, or rename it: the run can be used without it, but says no longer what it was "
    "trained on."
)


def read_sessions(path: Path) -> list[dict[str, Any]]:
    """Read the sessions of a ``provenance.json``, the oldest first; there is one at least.

    Raises:
        MissingFileError: If there is no such file.
        ConfigError: If it holds anything else.
    """
    sessions = read_json(path, PROVENANCE_REMEDY).get("sessions")
    if not isinstance(sessions, list) or not sessions or not all(isinstance(one, dict) for one in sessions):
        raise ConfigError(
            f"{path} holds no list of sessions: it was cut short or edited. {PROVENANCE_REMEDY}"
        )
    return sessions
