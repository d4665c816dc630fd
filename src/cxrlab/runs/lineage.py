"""What a network has seen: the data of its own training, and those of the weights that it started from."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from cxrlab.data.datamodule import DataModule
from cxrlab.data.manifest import images_digest
from cxrlab.files import RunDir, read_yaml
from cxrlab.metrics.predictions import DataFacts
from cxrlab.models.network import described_start
from cxrlab.models.weights import InitialWeights, SeenData, read_initial_weights
from cxrlab.runs.run_data import data_facts
from cxrlab.training.checkpoint import read_checkpoint

if TYPE_CHECKING:
    from cxrlab.runs.run import Run

_OF_TRAINING = ("train", "val")


def training_data(data: DataModule) -> SeenData:
    """Return what a network is trained on, as its checkpoint keeps it.

    Args:
        data: Prepared.
    """
    return _seen(data.manifest.table, data_facts(data))


def run_training_data(run: "Run") -> SeenData:
    """Return what a run was trained on, by its manifest and its provenance."""
    return _seen(run.manifest, run.facts)


def _seen(table: pd.DataFrame, facts: DataFacts) -> SeenData:
    """Describe training data without a name that may be private: such data are told by their fingerprint."""
    seen = table[table["part"].isin(_OF_TRAINING)]
    parts = set(seen["split"].dropna()) if "split" in table else set()
    note = f"fingerprint {facts.fingerprint}" if facts.fingerprint else ""
    named = tuple(part for part in ("train", "val", "test") if part in parts)
    held_out = images_digest(table[table["part"] == "test"])
    return SeenData(data=facts.known_as, parts=named, note=note, held_out=held_out)


def saved_start(path: Path, model: Mapping[str, Any]) -> InitialWeights | None:
    """Return what the network of a checkpoint had started from.

    Args:
        path: The checkpoint.
        model: The config's description of the network, for a checkpoint of before this was recorded.

    Returns:
        None where it is not known.

    Raises:
        CheckpointError: If it cannot be read, or its record cannot be meant.
    """
    description = read_checkpoint(path)["hyper_parameters"]
    key = "initial_weights"
    if key not in description:
        return described_start(model)
    return read_initial_weights(description[key], path, f"hyper_parameters.{key}")


def noted_start(files: RunDir) -> InitialWeights | None:
    """Return what a run started from as its provenance, or else its config, says; no weights are read.

    Returns:
        None where it is not known.

    Raises:
        CheckpointError: If the record cannot be meant.
    """
    key = "initial_weights"
    session = next((session for session in files.sessions() if key in session), None)
    if session is not None:
        return read_initial_weights(session[key], files.provenance, key)
    config = read_yaml(files.resolved_config) if files.resolved_config.is_file() else {}
    model = config.get("model")
    return described_start(model) if isinstance(model, Mapping) else None


def run_start(run: "Run") -> InitialWeights | None:
    """Return what a run started from: of one of before this was recorded what its config says.

    Returns:
        None where it is not known.
    """
    if "initial_weights" in run.model.hparams:
        return run.model.initial_weights
    model = run.config.get("model")
    return described_start(model if isinstance(model, Mapping) else {})
