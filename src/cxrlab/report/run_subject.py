"""What a run directory tells of its model: for the page of an evaluation."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from cxrlab.data.manifest import PARTS, read_table
from cxrlab.report.panels import read_panels
from cxrlab.report.subject import Panel, Subject, TrainingData

_EXAMPLE_BYTES = 500_000


def run_subject(
    run_dir: Path, config: Mapping[str, Any], *, panels: Sequence[Panel], notes: Sequence[str]
) -> Subject:
    """Return what is known of a run; what it did not write is left out.

    Args:
        run_dir: The run directory.
        config: Its resolved config.
        panels: Heatmaps of the images that are judged.
        notes: Sentences for the reader.
    """
    session, *resumed = _sessions(run_dir)
    data = session.get("data", {})
    return Subject(
        title=f"{_network_name(config)} on {data.get('name') or 'its data'}",
        kind="run",
        network=_network(run_dir, config),
        trained_on=_training_data(run_dir, data),
        config=config,
        audit=_read_json(run_dir / "audit.json"),
        metrics=pd.read_csv(run_dir / "metrics.csv") if (run_dir / "metrics.csv").is_file() else None,
        provenance=session or None,
        resumed=resumed,
        panels=panels,
        notes=notes,
    )


def with_checks(subject: Subject, run_dir: Path) -> Subject:
    """Add what a run found when it checked its heatmaps of the test part, if it did."""
    examples, _ = read_panels(run_dir / "heatmaps" / "flagged", budget_bytes=_EXAMPLE_BYTES)
    explanation = _read_json(run_dir / "explanation.json")
    return replace(subject, explanation=explanation, examples=examples if explanation else ())


def ensemble_subject(
    run_dirs: Sequence[Path], configs: Sequence[Mapping[str, Any]], *, notes: Sequence[str]
) -> Subject:
    """Return what is known of several runs whose probabilities are averaged."""
    networks = [_network(run_dir, config) for run_dir, config in zip(run_dirs, configs, strict=True)]
    session = _sessions(run_dirs[0])[0]
    trained = [_training_data(run_dir, _sessions(run_dir)[0].get("data", {})) for run_dir in run_dirs]
    return Subject(
        title=f"An ensemble of {len(run_dirs)} networks",
        kind="ensemble",
        network="; ".join(networks),
        trained_on=trained[0] if all(one == trained[0] for one in trained) else None,
        audit=_read_json(run_dirs[0] / "audit.json"),
        provenance=session or None,
        notes=notes,
    )


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def _sessions(run_dir: Path) -> list[dict[str, Any]]:
    record = _read_json(run_dir / "provenance.json")
    sessions: list[dict[str, Any]] = record["sessions"] if record else [{}]
    return sessions


def _network_name(config: Mapping[str, Any]) -> str:
    model = config.get("model", {})
    return str(model.get("backbone") or str(model.get("_target_", "a network")).rpartition(".")[2])


def _network(run_dir: Path, config: Mapping[str, Any]) -> str:
    """Return a network's name, input and size in words."""
    data, model = config.get("data", {}), config.get("model", {})
    words = [_network_name(config)]
    if "image_size" in data:
        kind = "grey" if data.get("channels") == 1 else "colour"
        words.append(f"{kind} images of {data['image_size']} x {data['image_size']} pixels")
    layers = run_dir / "layers.txt"
    if layers.is_file():
        total, trainable = layers.read_text(encoding="utf-8").strip().splitlines()[-1].split(", ")
        words.append(total if trainable.split()[0] == total.split()[0] else f"{total}, {trainable}")
    if model.get("pretrained"):
        words.append("weights of ImageNet at the start")
    return ", ".join(words)


def _training_data(run_dir: Path, data: Mapping[str, Any]) -> TrainingData | None:
    path = run_dir / "manifest.csv"
    if not path.is_file():
        return None
    table = read_table(path)
    parts = {
        part: (int((table["part"] == part).sum()), int(table.loc[table["part"] == part, "patient"].nunique()))
        for part in PARTS
    }
    split = data.get("split", {}).get("method")
    return TrainingData(
        name=str(data.get("name") or "its data"),
        parts=parts,
        split=split,
        fingerprint=data.get("fingerprint"),
    )
