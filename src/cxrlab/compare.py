"""``cxrlab compare``: rank runs or predictions over the same images, with paired differences."""

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import hydra
from omegaconf import DictConfig

from cxrlab.cli import config, console
from cxrlab.cli.claims import claimed

if TYPE_CHECKING:
    from cxrlab.evaluation.results import ComparisonResult

log = logging.getLogger(__name__)

_VALUE_TYPES: Mapping[str, object] = {
    "runs": str | list[str] | None,
    "predictions": str | list[str] | None,
    "targets": str | None,
    "part": Literal["val", "test"] | None,
    "margin": float | None,
    "metrics": list[str],
    "run_dir": str,
    "report.images": bool,
}


def checked(cfg: DictConfig) -> DictConfig:
    """Return the config, checked; see :func:`cxrlab.cli.config.checked`."""
    from cxrlab.errors import ConfigError
    from cxrlab.evaluation.comparison import check_margin
    from cxrlab.metrics import load_metrics

    cfg = config.checked(cfg, _VALUE_TYPES, "compare")
    config.build(cfg.evaluation)  # refuses a value out of its range
    load_metrics(cfg.metrics)
    check_margin(cfg.margin)
    if not cfg.runs and not cfg.predictions:
        raise ConfigError(
            "Give runs=[<run>,<run>], runs=<the directory of a sweep>, or predictions=[<file>,<file>] "
            "targets=<file>."
        )
    if not cfg.runs and cfg.targets is None:
        raise ConfigError("predictions= needs targets=<a CSV file with the labels>.")
    if not cfg.predictions and cfg.targets is not None:
        raise ConfigError("targets= has no place without predictions=: runs know their own.")
    return cfg


def compare(cfg: DictConfig) -> "ComparisonResult":
    """Run the command from a composed config and return the numbers of comparison.json.

    Args:
        cfg: The config of conf/compare.yaml; ``run_dir`` names the folder that everything is written to.

    Raises:
        UserError: If a run or a table cannot be used; the message says what to do.
    """
    cfg = checked(cfg)
    from cxrlab.errors import ConfigError
    from cxrlab.evaluation.comparison import compare as compare_tables
    from cxrlab.evaluation.comparison import external_tables, run_dirs, run_tables
    from cxrlab.evaluation.run_contamination import seen_by
    from cxrlab.evaluation.terminal import leaderboard
    from cxrlab.files import RunDir, write_json
    from cxrlab.metrics.predictions import DataFacts
    from cxrlab.report.comparison_page import write_comparison
    from cxrlab.report.model_info import Session, without_folder_name
    from cxrlab.runs.run_data import run_facts
    from cxrlab.training.callbacks.provenance import environment

    console.configure_logging()
    start = time.perf_counter()
    session = environment("cxrlab.compare")
    runs = run_dirs(_paths(cfg.runs))
    tables = run_tables(runs, cfg.part) if runs else {}
    predictions = _paths(cfg.predictions)
    if predictions:
        targets = Path(cfg.targets).expanduser() if cfg.targets else Path(next(iter(tables.values())).source)
        others = external_tables(predictions, targets, config.plain(cfg.synonyms.groups))
        tables |= {f"{name} (file)" if name in tables else name: table for name, table in others.items()}
    seen = seen_by(dict(zip(tables, runs, strict=False)), tables, allow_seen=cfg.evaluation.allow_seen)
    if len(tables) < 2:
        raise ConfigError(f"There is one table only ({next(iter(tables))}): a comparison needs two or more.")
    folder = Path(cfg.run_dir)
    facts = {run_facts(RunDir(run)) for run in runs} or {DataFacts(f"targets in {Path(cfg.targets).name}")}
    with claimed(folder), console.says_when_stopped("No results are kept: the same command starts again."):
        result = compare_tables(
            tables,
            config.build(cfg.evaluation),
            facts.pop() if len(facts) == 1 else None,
            margin=cfg.margin,
        )
        result = replace(result, flags=[*seen, *result.flags])
        kept = result if cfg.report.images else replace(result, data=without_folder_name(result.data))
        write_json(RunDir(folder).comparison, kept.to_json())
        session["seconds"] = {"everything": round(time.perf_counter() - start, 1)}
        write_json(RunDir(folder).provenance, {"sessions": [session]}, indent=2)
        page = write_comparison(folder, result, Session.from_json(session), images=cfg.report.images)
    log.info("%s\n\nThe page: %s", leaderboard(result), page)
    return result


def _paths(paths: Any) -> list[Path]:
    names = [] if paths is None else [paths] if isinstance(paths, str) else list(paths)
    return [Path(name).expanduser() for name in names]


@hydra.main(version_base="1.3", config_path=str(config.config_dir()), config_name="compare")
def _main(cfg: DictConfig) -> None:
    compare(cfg)


def main() -> None:
    """Run the command line."""
    console.run_command(_main)


if __name__ == "__main__":
    main()
