"""``cxrlab evaluate``: evaluate a run, an ensemble, or another program's predictions."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import hydra
from omegaconf import DictConfig

from cxrlab.cli import config, console
from cxrlab.cli.claims import claimed, warn_if_in_use

if TYPE_CHECKING:
    from cxrlab.evaluation.results import EvaluationResult
    from cxrlab.metrics.settings import EvaluationSettings
    from cxrlab.report.evaluation_page import Evaluation
    from cxrlab.runs.run import Run
    from cxrlab.runs.run_data import PredictedImages

_VALUE_TYPES: Mapping[str, object] = {
    "run": str | list[str] | None,
    "predictions": str | None,
    "targets": str | None,
    "validation": str | None,
    "validation_targets": str | None,
    "threshold": float | None,
    "trust": list[str],
    "check_weights": bool,
    "metrics": list[str],
    "part": Literal["train", "val", "test", "all"] | None,
    "name": str | int | None,
    "root": str | None,
    "cache_dir": str | None,
    "views": list[str] | None,
    "adapt": str | None,
    "batch_size": int,
    "device": str,
    "heatmaps_per_label": int,
    "interventions": int | None,
    "seed": int,
    "run_dir": str,
    "report.images": bool,
    "report.sections": list[str],
}


def checked(cfg: DictConfig) -> DictConfig:
    """Return the config, checked; see :func:`cxrlab.cli.config.checked`."""
    from cxrlab.errors import ConfigError, check_range
    from cxrlab.metrics import load_metrics
    from cxrlab.models.views import check_views
    from cxrlab.report.section import load_sections
    from cxrlab.runs.adaptation import check_adaptation

    cfg = config.checked(cfg, _VALUE_TYPES, "evaluate")
    config.build(cfg.evaluation)  # refuses a value out of its range
    load_metrics(cfg.metrics)
    load_sections(cfg.report.sections)
    if cfg.views is not None:
        check_views(cfg.views)
    check_adaptation(cfg.adapt)
    if cfg.adapt is not None and not isinstance(cfg.run, str) and len(cfg.run or []) > 1:
        raise ConfigError(f"adapt={cfg.adapt} is of one run: give run=<a run directory>, not a list.")
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
    of_runs = ("data", "part", "name", "root", "cache_dir", "views", "adapt")
    needless = of_runs if cfg.run is None else ("targets", "validation", "validation_targets")
    for key in needless:
        if cfg.get(key) is not None:
            raise ConfigError(f"{key}= has no place beside {'predictions' if cfg.run is None else 'run'}=.")
    if cfg.validation is None and cfg.validation_targets is not None:
        raise ConfigError(
            "validation_targets= are the targets of validation=<a CSV file>, which is not given."
        )
    if cfg.get("data") is not None and cfg.root is not None and cfg.views is None:
        raise ConfigError(f"root={cfg.root} is the folder of the run's own data; with data= set data.root.")
    if cfg.name is not None and not isinstance(cfg.run, str) and len(cfg.run) > 1:
        raise ConfigError(
            f"name={cfg.name} is a folder of one run; an ensemble goes to hydra.run.dir=<folder>."
        )
    if cfg.interventions is not None and (not isinstance(cfg.run, str) and len(cfg.run or []) != 1):
        raise ConfigError(
            f"interventions={cfg.interventions} change the images of one run: give run=<a run directory>."
        )
    check_range("interventions", cfg.interventions, 2)
    if cfg.heatmaps_per_label < 0:
        raise ConfigError(f"heatmaps_per_label={cfg.heatmaps_per_label} must be 0 or more.")
    if cfg.get("data") is None and cfg.part == "all":
        raise ConfigError(
            "part=all would evaluate a run on its own training images too: give data=, or another part."
        )
    return cfg


def evaluate(cfg: DictConfig) -> "EvaluationResult":
    """Run the command from a composed config and return the numbers of evaluation.json.

    Args:
        cfg: The config of conf/evaluate.yaml; ``run_dir`` names the folder that everything is written to.

    Raises:
        UserError: If the config, a run or a table cannot be used; the message says what to do.
    """
    cfg = checked(cfg)
    from cxrlab.report.evaluation_page import write_evaluation
    from cxrlab.report.section import load_sections

    console.configure_logging()
    settings: EvaluationSettings = config.build(cfg.evaluation)
    sections = load_sections(cfg.report.sections)
    folder = Path(cfg.run_dir)
    memory = console.says_what_needs_memory(f"Give a smaller batch_size (now {cfg.batch_size}).")
    with claimed(folder), console.says_when_stopped(lambda: _kept(folder)), memory:
        draw = None
        if cfg.run is None:
            evaluation = _of_predictions(cfg, settings)
        else:
            evaluation, draw = _of_runs(cfg, settings)
        return write_evaluation(
            evaluation, settings, folder, images=cfg.report.images, sections=sections, draw=draw
        )


def _kept(folder: Path) -> str:
    """Return what is kept of an evaluation that was stopped, and what goes on from there."""
    if (folder / "evaluation.json").is_file():
        return (
            f"Results and page are kept in {folder}, but not all heatmaps: with another name= the same "
            "command makes them too."
        )
    return "No results are kept: the same command starts again."


def _of_predictions(cfg: DictConfig, settings: "EvaluationSettings") -> "Evaluation":
    from cxrlab.evaluation.cohort import EVALUATED, predictions_cohort, table_cohort
    from cxrlab.evaluation.external_data import check_validation_differs
    from cxrlab.evaluation.external_predictions import holds_targets, read_external
    from cxrlab.evaluation.operating_point import from_validation, given
    from cxrlab.evaluation.run_baselines import external_baselines
    from cxrlab.metrics.predictions import DataFacts
    from cxrlab.report.evaluation_page import Evaluation
    from cxrlab.report.model_info import ModelInfo

    groups = config.plain(cfg.synonyms.groups)
    predictions, targets = Path(cfg.predictions).expanduser(), Path(cfg.targets).expanduser()
    thresholds, calibrator, validation = None, None, None
    notes: tuple[str, ...] = ()
    if cfg.validation is None:
        table = read_external(predictions, targets, groups)
        cohort = table_cohort(table)
    else:
        other = Path(cfg.validation).expanduser()
        own = other if holds_targets(other) else targets
        named = Path(cfg.validation_targets).expanduser() if cfg.validation_targets else own
        table = read_external(predictions, targets, groups, beside=other)
        validation = read_external(other, named, groups, beside=predictions)
        notes = check_validation_differs(validation, table)
        validation = validation.select_labels(table.labels)
        cohort = predictions_cohort({"val": validation, EVALUATED: table})
        thresholds, calibrator = from_validation(validation, settings)
    number = cfg.threshold if cfg.threshold is not None else settings.given_threshold
    if number is not None:
        thresholds = given(number, len(table.labels))
    model_info = ModelInfo(title=f"Predictions in {predictions.name}", kind="predictions", notes=notes)
    facts = DataFacts(f"targets in {targets.name}")
    baselines = external_baselines(validation, table, settings) if settings.baselines else None
    return Evaluation(
        table,
        thresholds,
        calibrator,
        facts,
        model_info,
        cohort=cohort,
        baselines=baselines,
        validation=validation,
    )


def _of_runs(
    cfg: DictConfig, settings: "EvaluationSettings"
) -> "tuple[Evaluation, Callable[[], Evaluation] | None]":
    """Return the evaluation of runs, and what draws heatmaps of one whose images are at hand."""
    from cxrlab.errors import ConfigError
    from cxrlab.evaluation.image_facts import run_image_facts
    from cxrlab.evaluation.operating_point import given
    from cxrlab.evaluation.run_baselines import run_baselines
    from cxrlab.report.evaluate_run import ensemble_evaluation, run_evaluation, with_interventions
    from cxrlab.runs.run import load_run

    named = config.plain(cfg)["run"]
    folders = [Path(name).expanduser() for name in ([named] if isinstance(named, str) else named)]
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ConfigError(f"run={named} names one run twice.")
    for folder in folders:
        warn_if_in_use(folder)
    options = {name: cfg[name] for name in ("trust", "check_weights", "cache_dir")}
    runs = [load_run(folder, **options) for folder in folders]
    predicted = [_predicted_images(cfg, run, allow_seen=settings.allow_seen) for run in runs]
    folder = Path(cfg.run_dir)

    def evaluation_of_run(heatmaps_per_label: int) -> "Evaluation":
        return at_threshold(
            run_evaluation(runs[0], predicted[0], settings, folder, heatmaps_per_label=heatmaps_per_label)
        )

    def at_threshold(evaluation: "Evaluation") -> "Evaluation":
        if cfg.threshold is None:
            return evaluation
        return evaluation.with_thresholds(given(cfg.threshold, len(evaluation.table.labels)))

    def with_baselines(evaluation: "Evaluation") -> "Evaluation":
        if not settings.baselines:
            return evaluation
        images = replace(predicted[0], table=evaluation.table)
        return replace(evaluation, baselines=run_baselines(runs[0], images, settings, root=cfg.root))

    if len(runs) > 1:
        return with_baselines(at_threshold(ensemble_evaluation(runs, predicted, settings))), None
    draws = bool(cfg.heatmaps_per_label) and predicted[0].images is not None
    draw = functools.partial(evaluation_of_run, cfg.heatmaps_per_label) if draws else None
    facts = run_image_facts(runs[0], predicted[0])
    evaluation = with_baselines(replace(evaluation_of_run(0), image_facts=facts))
    if cfg.interventions is not None:
        computing = {name: cfg[name] for name in ("root", "batch_size", "device")}
        evaluation = with_interventions(
            evaluation, runs[0], predicted[0], settings, most=cfg.interventions, **computing
        )
    return evaluation, draw


def _predicted_images(cfg: DictConfig, run: "Run", *, allow_seen: bool) -> "PredictedImages":
    from cxrlab.evaluation.run_contamination import check_run
    from cxrlab.runs.run_data import own_part, with_pixels, with_validation

    computing = {"batch_size": cfg.batch_size, "device": cfg.device}
    recompute = _sets_views(cfg, run)
    if cfg.get("data") is None:
        check_run(run, cfg.part or "test", allow_seen=allow_seen)
        predicted = own_part(run, cfg.part or "test", root=cfg.root, recompute=recompute, **computing)
    else:
        predicted = _predicted_elsewhere(cfg, run, allow_seen=allow_seen)
    if recompute:
        predicted = with_validation(run, predicted, root=cfg.root, **computing)
    if cfg.adapt is None:
        return predicted
    from cxrlab.models.batch_norm import check_batch_norm
    from cxrlab.runs.adaptation import adapted

    check_batch_norm(run.model.network)  # before any image is read
    if predicted.images is None:
        predicted = with_pixels(predicted, run.data(cfg.root))
    return adapted(run, predicted, **computing)


def _sets_views(cfg: DictConfig, run: "Run") -> bool:
    """Give a run's model the views that are asked for; tell whether they are others than its own."""
    from cxrlab.models.views import check_views

    if cfg.views is None or set(cfg.views) == set(run.model.views):
        return False
    run.model.views = check_views(cfg.views)
    return True


def _predicted_elsewhere(cfg: DictConfig, run: "Run", *, allow_seen: bool) -> "PredictedImages":
    from cxrlab.evaluation.external_data import other_data
    from cxrlab.evaluation.run_contamination import check_run

    data = config.build_data_like(cfg.data, run.model.preprocess)
    check_run(run, cfg.part or "all", allow_seen=allow_seen, data=data)
    groups = config.plain(cfg.synonyms.groups)
    return other_data(run, data, cfg.part or "all", groups, cfg.batch_size, cfg.device, audits=True)


@hydra.main(version_base="1.3", config_path=str(config.config_dir()), config_name="evaluate")
def _main(cfg: DictConfig) -> None:
    evaluate(cfg)


def main() -> None:
    """Run the command line."""
    console.run_command(_main)


if __name__ == "__main__":
    main()
