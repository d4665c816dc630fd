"""What can be said for and against heatmaps.

What is explained comes in (``ExplainTask``), an ``ExplanationResult`` goes out: whether the heatmaps point at
boxes, lie on the lungs, depend on the model and tell where the score comes from, and what to beware of.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from cxrlab.data.datamodule import DataModule
from cxrlab.data.manifest import read_csv
from cxrlab.errors import ConfigError, UserError
from cxrlab.files import RunDir
from cxrlab.heatmaps.cases import pick_cases
from cxrlab.heatmaps.checks.faithfulness import RANDOM_ORDER, check_faithfulness
from cxrlab.heatmaps.checks.flags import flags
from cxrlab.heatmaps.checks.pointing import OVERLAP_LEVELS, RANDOM, check_pointing
from cxrlab.heatmaps.checks.randomization import check_agreement, check_randomization, sample_heatmaps
from cxrlab.heatmaps.checks.shortcuts import ZONES, check_shortcuts
from cxrlab.heatmaps.drawing import draw_task, write_gallery
from cxrlab.heatmaps.methods.cam import Pair
from cxrlab.heatmaps.methods.layers import unexplainable_reason
from cxrlab.heatmaps.results import ExplanationResult, IntervalLevel
from cxrlab.heatmaps.settings import CHECKS, METHOD_NAMES, TRAINING_CHECKS, Check, ExplanationSettings
from cxrlab.heatmaps.task import ExplainTask, best_labels, explain_task_of
from cxrlab.metrics.bootstrap import CaseBootstrap
from cxrlab.metrics.predictions import DataFacts
from cxrlab.runs.own_predictions import read_own_predictions
from cxrlab.runs.run_data import PredictedImages, with_pixels
from cxrlab.training.module import Classifier

__all__ = [
    "OVERLAP_LEVELS",
    "RANDOM",
    "RANDOM_ORDER",
    "ZONES",
    "check_heatmaps",
    "explain_training",
    "save_checks",
]

log = logging.getLogger(__name__)


def check_heatmaps(
    explain_task: ExplainTask, checks: Sequence[Check] = CHECKS
) -> tuple[ExplanationResult, list[Pair]]:
    """Make checks of heatmaps.

    Args:
        explain_task: What is explained; it must hold at least one image.
        checks: Which ones. Without known boxes, ``pointing`` finds nothing.

    Returns:
        What they found, and the cases, as pairs of a row and an output, that show best what the check of the
        lungs flags.

    Raises:
        ConfigError: If there is no image, or a method does not fit the network.
    """
    if not len(explain_task.cases):
        raise ConfigError("There is no image to explain.")
    settings = explain_task.settings
    clock = _Clock()
    examples: list[Pair] = []
    result = ExplanationResult(
        data=explain_task.data,
        checks=[check for check in CHECKS if check in checks],
        methods={method: METHOD_NAMES[method] for method in settings.methods},
        labels=[explain_task.names[label] for label in explain_task.labels],
        images=int(explain_task.cases["row"].nunique()),
        interval=IntervalLevel(settings.level, settings.num_resamples),
        settings=_plain(settings),
    )
    if "pointing" in checks:
        with clock.measured("pointing"):
            result = replace(result, pointing=check_pointing(explain_task))
    result = _with_model_checks(result, explain_task, checks, clock)
    if "lungs" in checks:
        with clock.measured("lungs"):
            shortcuts, examples = check_shortcuts(explain_task)
        result = replace(result, shortcuts=shortcuts)
    result = replace(result, seconds=clock.seconds | {"everything": round(sum(clock.seconds.values()), 1)})
    return replace(result, flags=list(flags(result))), examples


def _with_model_checks(
    result: ExplanationResult, explain_task: ExplainTask, checks: Sequence[Check], clock: "_Clock"
) -> ExplanationResult:
    """Add the checks that are about the model; each is of the same sample of positives."""
    if not {"randomization", "faithfulness", "agreement"} & set(checks):
        return result
    settings = explain_task.settings
    cases = explain_task.sample(settings.num_checked)
    bootstrap = CaseBootstrap.of(
        [explain_task.patient(row) for row, _ in cases],
        num_resamples=settings.num_resamples,
        level=settings.level,
        seed=settings.seed,
    )
    with clock.measured("maps"):
        maps = sample_heatmaps(explain_task, cases)
    if "randomization" in checks:
        with clock.measured("randomization"):
            randomization = check_randomization(explain_task, cases, maps, bootstrap)
        result = replace(result, randomization=randomization)
    if "faithfulness" in checks:
        with clock.measured("faithfulness"):
            faithfulness = check_faithfulness(explain_task, cases, maps, bootstrap)
        result = replace(result, faithfulness=faithfulness)
    if "agreement" in checks:
        with clock.measured("agreement"):
            result = replace(result, agreement=check_agreement(maps, bootstrap))
    return result


class _Clock:
    """Seconds by what took them."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def measured(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 1)


def _plain(settings: ExplanationSettings) -> ExplanationSettings:
    """Return settings whose lists are Python's own, whatever the config made them of."""
    layers = settings.layers if isinstance(settings.layers, str) else list(settings.layers)
    return replace(
        settings, methods=list(settings.methods), layers=layers, size_edges=list(settings.size_edges)
    )


def save_checks(
    explain_task: ExplainTask, path: Path, flagged_dir: Path, checks: Sequence[Check] = CHECKS
) -> ExplanationResult:
    """Make checks, write what they found, and draw what they flag.

    Args:
        explain_task: What is explained.
        path: Of ``explanation.json``.
        flagged_dir: Folder of the heatmaps that show what is flagged; it is not made where there are none.
        checks: Which ones.

    Raises:
        ConfigError: If there is no image, or a method does not fit the network.
        OutputError: If a file cannot be written.
    """
    result, examples = check_heatmaps(explain_task, checks)
    result.save(path)
    if examples:
        first = explain_task.settings.methods[:1]
        cases = pick_cases(explain_task.cases, examples)
        write_gallery(flagged_dir, draw_task(explain_task, cases, first), explain_task.manifest)
    return result


def explain_training(
    run_dir: Path,
    classifier: Classifier,
    data: DataModule,
    facts: DataFacts,
    *,
    part: str,
    settings: ExplanationSettings,
) -> None:
    """Make the checks at the end of a training: ``explanation.json``, and ``heatmaps/flagged/``.

    They are those of ``TRAINING_CHECKS``; the others are made by the command. Of a network without spatial
    features none is made. What goes wrong is said in a warning: an evaluation must not be lost for its
    heatmaps, whether these do not fit the network, are not finite, cannot be written, or need more memory
    than a GPU has.

    Args:
        run_dir: With ``results.csv`` and the predictions of the part.
        classifier: With the weights of the best epoch.
        data: Prepared.
        facts: What the images are.
        part: ``val`` or ``test``.
        settings: How.
    """
    reason = unexplainable_reason(classifier.network, settings.methods)
    if reason is not None:  # said in a warning before the training
        log.info("Heatmaps are not checked: %s.", reason)
        return
    log.info("Checking heatmaps ...")
    run = RunDir(run_dir)
    with _errors_as_warnings(settings.batch_size):
        table = read_own_predictions(run, part)
        labels = best_labels(read_csv(run.results), classifier.labels, settings.num_labels)
        classifier.eval()
        explain_task = explain_task_of(
            classifier,
            with_pixels(PredictedImages(table, facts), data),
            settings,
            labels=labels,
            data=data,
            thresholds=classifier.operating_point.threshold_values(),
        )
        save_checks(explain_task, run.explanation, run.flagged_heatmaps, TRAINING_CHECKS)


@contextmanager
def _errors_as_warnings(batch_size: int) -> Iterator[None]:
    """Turn what may go wrong with heatmaps into a warning."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        log.warning(
            "The heatmaps were not checked to the end: %s. With a smaller explanation.batch_size, now %d, "
            "cxrlab explain does it afterwards.",
            str(error).split(". ")[0],
            batch_size,
        )
    except (UserError, OSError) as error:
        log.warning("The heatmaps were not checked to the end: %s", error)
