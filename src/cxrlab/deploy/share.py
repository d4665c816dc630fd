"""A run, or a checkpoint, shared as a folder: what of it goes along, and what does not."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor

from cxrlab.data.manifest import read_table
from cxrlab.data.public import UNDER_AGREEMENT, canonical
from cxrlab.deploy.private_names import run_names
from cxrlab.deploy.record import record_of
from cxrlab.deploy.shared_card import run_card, run_results, shared_card
from cxrlab.deploy.shared_folder import FILES, SAMPLE, is_shared_folder, write_shared_folder
from cxrlab.errors import ConfigError, MissingFileError
from cxrlab.models.network import OWN_NETWORKS
from cxrlab.report.model_info import network_name
from cxrlab.runs.reference import reference_for_others
from cxrlab.runs.run import Run, load_classifier, load_run
from cxrlab.training.module import Classifier

log = logging.getLogger(__name__)

_SAMPLED = ("target/", "probability/", "prediction/")
_DIGITS = 4  # a probability to the last digit would tell an image to whoever has all images
_MOST_CHECKED = 16
_MOST_CHARACTERS = 500


@dataclass(frozen=True)
class _Source:
    """What is shared: a classifier with its checkpoint, and the run that made it, if that is known."""

    classifier: Classifier
    checkpoint: Path
    run: Run | None


def share(
    source: Path | str,
    folder: Path | str,
    *,
    name: str = "",
    licence: str = "",
    sample: int = 0,
    reference: bool | None = None,
    trust: Sequence[str] = (),
    check_weights: bool = True,
) -> list[Path]:
    """Write a run, or a checkpoint, as a folder that can be passed on.

    Args:
        source: A run directory, whose best epoch is taken, or a checkpoint.
        folder: Where to; new or empty, or one that holds this model already.
        name: Of the model; "" for that of the folder.
        licence: Of its weights, SPDX identifier or in words; "" where none is given.
        sample: Rows of the predictions of its test part that go along without names; 0 for none.
        reference: Whether what images of the training look like goes along, by which images that are unlike
            them are told; it holds features of single images. None: unless the training's data are under an
            agreement.
        trust: Packages besides cxrlab whose networks may be built.
        check_weights: Refuse a checkpoint that is not the one that the run's training noted.

    Returns:
        The files.

    Raises:
        MissingFileError: If the source, or what is wanted of it, is not there.
        ConfigError: If name or licence is no line of text, the folder holds something else, no sample of
            these data may be passed on, or is of these weights, or the name of a patient, an image or a
            folder would stand in a file.
        CheckpointError: If the checkpoint cannot be read, or what was written predicts something else.
        OutputError: If a file cannot be written.
    """
    for key, text in (("name", name), ("licence", licence)):
        if len(text) > _MOST_CHARACTERS or not text.isprintable():
            raise ConfigError(f"{key}={text[:80]!r} must be a line of at most {_MOST_CHARACTERS} characters.")
    loaded, folder = (
        _load(Path(source).expanduser(), trust, check_weights),
        Path(folder).expanduser().resolve(),
    )
    classifier, run = loaded.classifier, loaded.run
    drawn = _sample(loaded, sample) if sample else None
    kept = reference_for_others(loaded.classifier, loaded.checkpoint, reference)
    record = record_of(classifier, loaded.checkpoint, licence=licence)
    is_evaluated = run is not None and run.has_own_weights
    card = shared_card(
        record,
        name=name or folder.name,
        network=network_name({"model": classifier.hparams["network"]}),
        files=[file for file in FILES if file != SAMPLE or drawn is not None],
        results=run_results(run.files) if run is not None and is_evaluated else None,
        card=run_card(run.files) if run is not None and is_evaluated else "",
        needs_trust=classifier.hparams["network"].get("_target_") not in OWN_NETWORKS,
        has_reference=kept is not None,
    )
    return write_shared_folder(
        classifier,
        folder,
        record=record,
        card=card,
        reference=kept,
        sample=drawn,
        images=_images(run),
        names=set()
        if run is None or not run.files.manifest.is_file()
        else run_names(run.files, run.manifest),
    )


def _load(source: Path, trust: Sequence[str], check_weights: bool) -> _Source:
    if is_shared_folder(source):
        raise ConfigError(f"run={source} is a shared folder already: pass it on as it is.")
    if source.is_dir():
        run = load_run(source, trust=trust, check_weights=check_weights)
        return _Source(run.model, run.files.best_checkpoint, run)
    if not source.exists():
        raise MissingFileError(f"run={source}: there is no such run directory or checkpoint.")
    return _Source(load_classifier(source, trust=trust), source, None)


def _data(classifier: Classifier) -> str:
    """Return the name of the training's data; "" where it is not known, or not told."""
    trained_on = classifier.trained_on
    return canonical("" if trained_on is None else trained_on.data)


def _sample(source: _Source, count: int) -> pd.DataFrame:
    """Return rows of the test part's predictions, drawn anew each time.

    A seed that anybody knows would tell which image a row is of, for tables of public data are public.
    """
    data = _data(source.classifier)
    if data in UNDER_AGREEMENT:
        raise ConfigError(
            f"sample={count}: {data} is given only to those who agreed not to pass it on, and a sample holds "
            "its labels. Leave sample=0."
        )
    if source.run is None or not source.run.files.predictions("test").is_file():
        raise MissingFileError(
            f"sample={count} needs the predictions of a test part, and {source.checkpoint} comes without "
            "them. Give run=<a run directory>, or leave sample=0."
        )
    if not source.run.has_own_weights:
        raise ConfigError(
            f"sample={count}: the predictions of {source.run.run_dir} are of the weights that its training "
            "wrote, and these are others. Leave sample=0, or bring the run's own checkpoint back."
        )
    table = read_table(source.run.files.predictions("test"))
    columns = [column for column in table.columns if str(column).startswith(_SAMPLED)]
    rows = np.random.default_rng().permutation(len(table))[:count]
    return table[columns].iloc[rows].reset_index(drop=True).round(_DIGITS)


def _images(run: Run | None) -> Tensor | None:
    """Return images of the run's test part, decoded, where their files are at hand."""
    if run is None or not run.files.manifest.is_file():
        return None
    names = run.manifest.loc[run.manifest["part"] == "test", "image"].head(_MOST_CHECKED)
    try:
        return run.images([run.image_path(str(name)) for name in names]) if len(names) else None
    except MissingFileError:
        log.info("The images of the run are not at hand: the folder is compared on random ones alone.")
        return None
