"""``python -m cxrlab.evaluate``: judge a run, an ensemble, or another program's predictions."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import hydra
from omegaconf import DictConfig, OmegaConf

from cxrlab import command, config

if TYPE_CHECKING:
    from cxrlab.data.datamodule import DataModule
    from cxrlab.evaluation.of_run import Judged
    from cxrlab.evaluation.settings import EvaluationSettings
    from cxrlab.report.writing import Evaluation
    from cxrlab.run import Run

_PLAIN: dict[str, Any] = {
    "run": str | list[str] | None,
    "predictions": str | None,
    "targets": str | None,
    "validation": str | None,
    "validation_targets": str | None,
    "threshold": float | None,
    "part": Literal["train", "val", "test", "all"] | None,
    "name": str | None,
    "root": str | None,
    "batch_size": int,
    "device": str,
    "heatmaps_per_label": int,
    "seed": int,
    "run_dir": str,
    "report.images": bool,
}


def checked(cfg: DictConfig) -> DictConfig:
    """Return the config, checked; see :func:`cxrlab.config.checked`."""
    from cxrlab.errors import ConfigError

    cfg = config.checked(cfg, _PLAIN)
    config.build(cfg.evaluation)  # refuses a value out of its range
    if (cfg.run is None) == (cfg.predictions is None):
        raise ConfigError(
            "Give one of run=<a run directory> and predictions=<a CSV file> (with targets=<another>)."
        )
    if cfg.run is not None and not config.plain(cfg)["run"]:
        raise ConfigError("run=[] names no run directory.")
    if cfg.run is None and cfg.targets is None:
        raise ConfigError(
            f"predictions={cfg.predictions} needs targets=<a CSV file with the labels>, perhaps the same."
        )
    needless = ("data", "part", "name", "root") if cfg.run is None else ("targets", "validation")
    for key in needless:
        if cfg.get(key) is not None:
            raise ConfigError(f"{key}= has no place beside {'predictions' if cfg.run is None else 'run'}=.")
    if cfg.get("data") is None and cfg.part == "all":
        raise ConfigError(
            "part=all would judge a run on its own training images too: give data=, or another part."
        )
    return cfg


def evaluate(cfg: DictConfig) -> dict[str, Any]:
    """Run the command from a composed config and return the numbers of evaluation.json.

    Args:
        cfg: The config of conf/evaluate.yaml; ``run_dir`` names the folder that everything is written to.

    Raises:
        UserError: If the config, a run or a table cannot be used; the message says what to do.
    """
    cfg = checked(cfg)
    from cxrlab import recording
    from cxrlab.report.writing import write_evaluation

    recording.quieten()
    settings: EvaluationSettings = config.build(cfg.evaluation)
    evaluation = _of_predictions(cfg, settings) if cfg.run is None else _of_runs(cfg, settings)
    return write_evaluation(evaluation, settings, Path(cfg.run_dir), images=cfg.report.images)


def _of_predictions(cfg: DictConfig, settings: "EvaluationSettings") -> "Evaluation":
    from cxrlab.evaluation.decisions import from_validation, given
    from cxrlab.evaluation.foreign import read_foreign
    from cxrlab.evaluation.judgement import DataFacts
    from cxrlab.evaluation.leakage import refuse_judged
    from cxrlab.report.subject import Subject
    from cxrlab.report.writing import Evaluation

    groups = config.plain(cfg.synonyms.groups)
    predictions, targets = Path(cfg.predictions).expanduser(), Path(cfg.targets).expanduser()
    thresholds, calibrator = None, None
    notes: tuple[str, ...] = ()
    if cfg.validation is None:
        table = read_foreign(predictions, targets, groups)
    else:
        other, named = Path(cfg.validation).expanduser(), cfg.validation_targets
        table = read_foreign(predictions, targets, groups, beside=None if named else other)
        validation = read_foreign(
            other,
            Path(named).expanduser() if named else targets,
            groups,
            beside=None if named else predictions,
        )
        notes = refuse_judged(validation, table)
        thresholds, calibrator = from_validation(validation.select_labels(table.labels), settings)
    if cfg.threshold is not None:
        thresholds = given(cfg.threshold, len(table.labels))
    subject = Subject(title=predictions.name, kind="predictions", notes=notes)
    return Evaluation(table, thresholds, calibrator, DataFacts(targets.name), subject)


def _of_runs(cfg: DictConfig, settings: "EvaluationSettings") -> "Evaluation":
    from cxrlab.evaluation.decisions import given
    from cxrlab.report.run_evaluation import evaluation_of_ensemble, evaluation_of_run
    from cxrlab.run import load_run

    named = config.plain(cfg)["run"]
    runs = [load_run(run_dir) for run_dir in ([named] if isinstance(named, str) else named)]
    judged = [_judged(cfg, run) for run in runs]
    if len(runs) == 1:
        folder = Path(cfg.run_dir)
        evaluation = evaluation_of_run(runs[0], judged[0], settings, folder, cfg.heatmaps_per_label)
    else:
        evaluation = evaluation_of_ensemble(runs, judged, settings)
    if cfg.threshold is not None:
        evaluation = evaluation.with_thresholds(given(cfg.threshold, len(evaluation.table.labels)))
    return evaluation


def _judged(cfg: DictConfig, run: "Run") -> "Judged":
    from cxrlab.evaluation.of_run import other_data, own_part

    if cfg.get("data") is None:
        return own_part(run, cfg.part or "test", lambda: _own_data(cfg, run), cfg.batch_size, cfg.device)
    shape = run.model.preprocess
    node = cfg.data.copy()
    node.image_size, node.channels, node.resize = shape.image_size, shape.channels, shape.resize
    data: DataModule = config.build(node)
    groups = config.plain(cfg.synonyms.groups)
    return other_data(run, data, cfg.part or "all", groups, cfg.batch_size, cfg.device)


def _own_data(cfg: DictConfig, run: "Run") -> "DataModule":
    """Build the data module of a run's own config, which may only name classes of this package."""
    node = OmegaConf.create(run.config["data"])
    config.refuse_foreign_targets(config.plain(node), str(run.run_dir))
    if cfg.root is not None:
        node.root = cfg.root
    data: DataModule = config.build(node)
    return data


@hydra.main(version_base="1.3", config_path=str(config.config_dir()), config_name="evaluate")
def _main(cfg: DictConfig) -> None:
    evaluate(cfg)


def main() -> None:
    """Run the command line."""
    command.run_command(_main)


if __name__ == "__main__":
    main()
