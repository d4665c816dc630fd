"""``cxrlab explain``: heatmaps of a run by several methods, and what the checks say of them."""

import difflib
import logging
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import hydra
from omegaconf import DictConfig

from cxrlab.cli import config, console
from cxrlab.cli.claims import claimed, warn_if_in_use

if TYPE_CHECKING:
    from cxrlab.data.datamodule import DataModule
    from cxrlab.heatmaps.settings import Check, ExplanationSettings
    from cxrlab.heatmaps.task import ExplainTask
    from cxrlab.runs.run import Run
    from cxrlab.runs.run_data import PredictedImages

log = logging.getLogger(__name__)

_TOP = r"top[1-9]\d*"

LISTS = ("method", "labels", "images", "checks")
"""Keys whose values may be several, with commas between them."""

_VALUE_TYPES: Mapping[str, object] = {
    "run": str | None,
    "trust": list[str],
    "check_weights": bool,
    "method": str | list[str] | None,
    "labels": str | list[str],
    "images": str | list[str] | None,
    "part": Literal["train", "val", "test", "all"] | None,
    "limit": int | None,
    "boxes": str | None,
    "checks": bool | str | list[str],
    "name": str | int | None,
    "root": str | None,
    "cache_dir": str | None,
    "batch_size": int,
    "device": str,
    "seed": int,
    "run_dir": str,
    "report.images": bool,
}


def checked(cfg: DictConfig) -> DictConfig:
    """Return the config, checked; see :func:`cxrlab.cli.config.checked`."""
    from cxrlab.errors import ConfigError

    cfg = config.checked(cfg, _VALUE_TYPES, "explain")
    _settings(cfg)  # refuses a value out of its range
    _checks(cfg)
    if cfg.run is None:
        raise ConfigError("Give run=<a run directory>: whose heatmaps are wanted?")
    for key in ("part", "data", "root"):
        if cfg.images is not None and cfg.get(key) is not None:
            raise ConfigError(f"{key}= has no place beside images=, which names the files.")
    if cfg.get("data") is not None and cfg.root is not None:
        raise ConfigError(f"root={cfg.root} is the folder of the run's own data; with data= set data.root.")
    if cfg.get("data") is None and cfg.part == "all":
        raise ConfigError("part=all needs data=<another data set>; a run has train, val and test.")
    if cfg.limit is not None and cfg.limit < 1:
        raise ConfigError(f"limit={cfg.limit} must be at least 1, or null for all images.")
    if not _texts(cfg, "labels") or (cfg.images is not None and not _texts(cfg, "images")):
        raise ConfigError(f"{'labels' if not _texts(cfg, 'labels') else 'images'}= names nothing.")
    return cfg


def _texts(cfg: DictConfig, key: str) -> list[str]:
    """Return a value that may be one text or several as a list."""
    value = config.plain(cfg)[key]
    return [value] if isinstance(value, str) else list(value or ())


def _settings(cfg: DictConfig) -> "ExplanationSettings":
    from cxrlab.heatmaps.settings import check_methods

    settings: ExplanationSettings = config.build(cfg.explanation)
    if cfg.method is None:
        return settings
    return replace(settings, methods=check_methods(_texts(cfg, "method"), "method"))


def _checks(cfg: DictConfig) -> "list[Check]":
    """Return the checks that are wanted; auto: all of a part of a data set, none of image files."""
    from cxrlab.heatmaps.settings import named_checks

    wanted = config.plain(cfg)["checks"]
    return named_checks(cfg.images is None if wanted == "auto" else wanted, "checks")


def explain(cfg: DictConfig) -> Path:
    """Run the command from a composed config and return the path of its page.

    Args:
        cfg: The config of conf/explain.yaml; ``run_dir`` names the folder that everything is written to.

    Raises:
        UserError: If the config, the run or an image cannot be used; the message says what to do.
    """
    cfg = checked(cfg)
    console.configure_logging()
    folder = Path(cfg.run_dir)
    memory = console.says_what_needs_memory(
        f"Give a smaller batch_size (now {cfg.batch_size}) or explanation.batch_size (now "
        f"{cfg.explanation.batch_size})."
    )
    with claimed(folder), console.says_when_stopped(lambda: _kept(folder)), memory:
        return _explain(cfg)


def _kept(folder: Path) -> str:
    """Return what is kept of an explanation that was stopped, and what goes on from there."""
    if (folder / "report.html").is_file():
        return (
            f"The heatmaps and their page are kept in {folder}; the checks are not finished. With another "
            "name= the same command makes them."
        )
    return "Nothing is kept: the same command starts again."


def _explain(cfg: DictConfig) -> Path:
    from cxrlab.heatmaps.methods import check_fit
    from cxrlab.report.explanation_page import write_explained
    from cxrlab.runs.predict import named_device
    from cxrlab.runs.run import load_run
    from cxrlab.training.callbacks.provenance import environment

    start, session = time.perf_counter(), environment("cxrlab.explain")
    device = str(named_device(cfg.device))
    warn_if_in_use(Path(cfg.run).expanduser())
    options = {name: cfg[name] for name in ("trust", "check_weights", "cache_dir")}
    run = load_run(cfg.run, device=device, **options)
    check_fit(run.model, _settings(cfg))
    _check_labels(_texts(cfg, "labels"), run.labels)
    predicted, data = _predicted_images(cfg, run)
    explain_task = _explain_task(cfg, run, predicted, data)
    part = f", part {predicted.table.part}" if predicted.table.part else ""
    page = write_explained(
        explain_task,
        Path(cfg.run_dir),
        title=f"Heatmaps of {_on_data(run, predicted)}{part}",
        limit=cfg.limit,
        checks=_checks(cfg),
        images=cfg.report.images,
        session=session,
        start=start,
    )
    log.info("\nThe page: %s", page)
    return page


def _on_data(run: "Run", predicted: "PredictedImages") -> str:
    """Return which network is explained on which data."""
    from cxrlab.report.model_info import network_name
    from cxrlab.report.text import on_data

    facts, own = predicted.facts, run.facts
    trained_on = None if facts == own else (own.name, own.fingerprint)
    return on_data(network_name(run.config), facts.name, facts.fingerprint, trained_on=trained_on)


def _predicted_images(cfg: DictConfig, run: "Run") -> tuple["PredictedImages", "DataModule | None"]:
    """Return what is explained, with its pixels, and the run's own data where they are needed."""
    from cxrlab.evaluation.external_data import other_data
    from cxrlab.runs.run_data import own_part, with_pixels

    if cfg.images is None and cfg.get("data") is None:
        predicted = own_part(
            run, cfg.part or "test", root=cfg.root, batch_size=cfg.batch_size, device=cfg.device
        )
        data = run.data(cfg.root)
        return _with_boxes(cfg, run, with_pixels(predicted, data)), data
    if cfg.images is None:
        groups, other = (
            config.plain(cfg.synonyms.groups),
            config.build_data_like(cfg.data, run.model.preprocess),
        )
        predicted = other_data(run, other, cfg.part or "all", groups, cfg.batch_size, cfg.device)
    else:
        predicted = _files(cfg, run)
    return _with_boxes(cfg, run, predicted), _background(cfg, run)


def _files(cfg: DictConfig, run: "Run") -> "PredictedImages":
    from cxrlab.data.dataset import image_files
    from cxrlab.heatmaps.task import predict_files

    paths = image_files(_texts(cfg, "images"))
    if cfg.limit is not None and len(paths) > cfg.limit:
        log.warning("images names %d files; the first limit=%d are explained.", len(paths), cfg.limit)
        paths = paths[: cfg.limit]
    return predict_files(run, paths, cfg.batch_size, cfg.device)


def _background(cfg: DictConfig, run: "Run") -> "DataModule | None":
    """Return the run's own data, of which SHAP takes training images; None where nothing needs them."""
    from cxrlab.errors import UserError

    if "gradient_shap" not in _settings(cfg).methods:
        return None
    try:
        return run.data(cfg.root)
    except UserError as error:
        log.warning("SHAP compares with an even grey, for want of training images: %s", error)
        return None


def _with_boxes(cfg: DictConfig, run: "Run", predicted: "PredictedImages") -> "PredictedImages":
    """Return the same with the boxes of the table that was given."""
    if cfg.boxes is None or predicted.manifest is None:
        return predicted
    from cxrlab.data.boxes import read_boxes
    from cxrlab.evaluation.synonyms import match_labels

    labels = predicted.manifest.labels
    matched = match_labels(run.labels, labels, config.plain(cfg.synonyms.groups))
    manifest = read_boxes(Path(cfg.boxes).expanduser(), predicted.manifest, matched)
    own_name = {other: own for own, other in matched.items()}
    return replace(predicted, manifest=replace(manifest, boxes=manifest.boxes.replace({"label": own_name})))


def _explain_task(
    cfg: DictConfig, run: "Run", predicted: "PredictedImages", data: "DataModule | None"
) -> "ExplainTask":
    from cxrlab.heatmaps.task import explain_task_of

    columns = [run.labels.index(label) for label in predicted.table.labels]
    return explain_task_of(
        run.model,
        predicted,
        _settings(cfg),
        labels=_labels(cfg, run, predicted),
        data=data,
        thresholds=run.model.operating_point.thresholds.double().cpu().numpy()[columns],
    )


def _labels(cfg: DictConfig, run: "Run", predicted: "PredictedImages") -> list[str]:
    """Return the labels that are wanted, in the order of the network's outputs where a rule chooses them."""
    from cxrlab.heatmaps.task import best_labels

    labels, wanted = list(predicted.table.labels), _texts(cfg, "labels")
    rule = wanted[0] if len(wanted) == 1 and wanted[0] not in labels else ""
    if rule == "all":
        return labels
    if re.fullmatch(_TOP, rule):
        return best_labels(run.results, labels, int(rule.removeprefix("top")))
    return list(dict.fromkeys(wanted))


def _check_labels(wanted: Sequence[str], labels: Sequence[str]) -> None:
    """Raise ConfigError for a label that the network lacks, before anything is read or predicted."""
    from cxrlab.errors import ConfigError

    if len(wanted) == 1 and re.fullmatch(rf"all|{_TOP}", wanted[0]):
        return
    by_lower = {label.lower(): label for label in labels}
    for name in wanted:
        if name not in labels:
            near = difflib.get_close_matches(name.lower(), by_lower, n=1)
            hint = f" Did you mean {by_lower[near[0]]}?" if near else ""
            raise ConfigError(f"labels names {name!r}; the labels at hand are {', '.join(labels)}.{hint}")


@hydra.main(version_base="1.3", config_path=str(config.config_dir()), config_name="explain")
def _main(cfg: DictConfig) -> None:
    explain(cfg)


def main() -> None:
    """Run the command line."""
    sys.argv[1:] = console.listed(sys.argv[1:], LISTS)
    console.run_command(_main)


if __name__ == "__main__":
    main()
