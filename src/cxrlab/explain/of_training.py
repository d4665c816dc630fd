"""The heatmaps of a training's best network, checked at its end."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from cxrlab.atomic import write_text
from cxrlab.errors import UserError
from cxrlab.evaluation.judgement import DataFacts
from cxrlab.evaluation.of_run import Judged, with_pixels
from cxrlab.evaluation.prediction_table import read_predictions
from cxrlab.explain.activation_maps import Pair
from cxrlab.explain.cases import pick_cases
from cxrlab.explain.checks import check_heatmaps
from cxrlab.explain.gallery import draw_panels, write_gallery
from cxrlab.explain.material import Material
from cxrlab.explain.method_names import METHOD_NAMES
from cxrlab.explain.of_run import best_labels, material_of
from cxrlab.explain.settings import ExplanationSettings

if TYPE_CHECKING:
    from cxrlab.data.datamodule import DataModule
    from cxrlab.models.classifier import Classifier

log = logging.getLogger(__name__)


def explain_training(
    run_dir: Path,
    classifier: "Classifier",
    data: "DataModule",
    facts: DataFacts,
    *,
    part: str,
    settings: ExplanationSettings,
) -> None:
    """Write ``explanation.json``, and ``heatmaps/flagged/`` where something is flagged.

    What goes wrong is said in a warning: an evaluation must not be lost for its heatmaps, whether these do
    not fit the network, are not finite, cannot be written, or need more memory than a GPU has.

    Args:
        run_dir: With ``results.csv`` and the predictions of the part.
        classifier: With the weights of the best epoch.
        data: Prepared.
        facts: What the images are.
        part: ``val`` or ``test``.
        settings: How.
    """
    log.info("Checking heatmaps ...")
    with _told_only(settings.batch_size):
        table = read_predictions(run_dir / "predictions" / f"{part}.csv")
        judged = with_pixels(Judged(table, facts), data)
        labels = best_labels(pd.read_csv(run_dir / "results.csv"), classifier.labels, settings.num_labels)
        classifier.eval()
        material = material_of(
            classifier,
            judged,
            settings,
            labels=labels,
            data=data,
            thresholds=classifier.decision.thresholds.double().cpu().numpy(),
        )
        numbers, examples = check_heatmaps(material)
        save_checks(run_dir / "explanation.json", numbers, judged)
        draw_examples(run_dir / "heatmaps" / "flagged", material, examples)


@contextmanager
def _told_only(batch_size: int) -> Iterator[None]:
    """Turn what may go wrong with heatmaps into a warning."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        log.warning(
            "The heatmaps were not checked to the end: %s. With a smaller explanation.batch_size, now %d, "
            "cxrlab.explain does it afterwards.",
            str(error).split(". ")[0],
            batch_size,
        )
    except (UserError, OSError) as error:
        log.warning("The heatmaps were not checked to the end: %s", error)


def save_checks(path: Path, numbers: dict[str, Any], judged: Judged) -> None:
    """Write what the checks found, and on which images."""
    facts = {"name": judged.facts.name, "part": judged.table.part, "fingerprint": judged.facts.fingerprint}
    write_text(path, json.dumps({"data": facts, **numbers}, indent=1, allow_nan=False) + "\n")


def draw_examples(folder: Path, material: Material, examples: list[Pair]) -> None:
    """Draw what the checks flag, by the first method; nothing where there is nothing."""
    if not examples:
        return
    method = material.settings.methods[0]
    panels = draw_panels(
        pick_cases(material.cases, examples),
        material.manifest,
        read_image=material.image,
        explain={METHOD_NAMES[method]: material.explain(method)},
        num_images=material.settings.batch_size,
    )
    write_gallery(folder, panels, material.manifest)
