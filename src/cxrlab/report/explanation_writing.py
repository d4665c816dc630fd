"""What is explained becomes files: panels, arrays, explanation.json and the page."""

import json
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.lib.format import open_memmap
from rich.console import Console
from rich.progress import track

from cxrlab.atomic import write_text
from cxrlab.errors import OutputError
from cxrlab.explain.cases import choose_images, pick_cases
from cxrlab.explain.checks import check_heatmaps
from cxrlab.explain.gallery import Drawn, draw_panels, write_gallery
from cxrlab.explain.material import Material
from cxrlab.explain.method_names import METHOD_NAMES
from cxrlab.explain.of_training import draw_examples, save_checks
from cxrlab.report.explanation_page import write_explanation
from cxrlab.report.explanation_section import headline
from cxrlab.report.panels import read_panels

if TYPE_CHECKING:
    from cxrlab.evaluation.of_run import Judged

log = logging.getLogger(__name__)

_ALL_BYTES = 2**40  # the page itself chooses what it has room for


def write_explained(
    material: Material,
    judged: "Judged",
    folder: Path,
    *,
    title: str,
    limit: int | None,
    checks: bool,
    images: bool,
    session: dict[str, Any],
    start: float,
) -> Path:
    """Draw heatmaps, check them, and write everything to a folder of its own.

    Args:
        material: What is explained; each image for each of its ``labels``.
        judged: What the material was made of.
        folder: Where to.
        title: Of the page.
        limit: Images that are drawn, at most; None for all. The checks are of all.
        checks: Whether to check heatmaps.
        images: Whether radiographs, and names of images and patients, may stand on the page.
        session: Of ``provenance.json``.
        start: When it began, by ``time.perf_counter``.

    Returns:
        The path of ``report.html``.

    Raises:
        ConfigError: If a method does not fit the network.
        OutputError: If a file cannot be written.
    """
    cases = drawn_cases(material, limit)
    write_gallery(folder / "panels", _saved(_panels(material, cases), folder / "maps", material, len(cases)),
                  material.manifest)  # fmt: skip
    numbers = None
    if checks:
        numbers, examples = check_heatmaps(material)
        save_checks(folder / "explanation.json", numbers, judged)
        draw_examples(folder / "flagged", material, examples)
        log.info("\n%s", "\n".join([headline(numbers), *(flag["message"] for flag in numbers["flags"])]))
    session["seconds"] = {"everything": round(time.perf_counter() - start, 1)}
    shown, flagged = (
        read_panels(folder / name, budget_bytes=_ALL_BYTES)[0] for name in ("panels", "flagged")
    )
    page = write_explanation(
        folder, title, numbers, shown, flagged, session, labels=material.names, images=images
    )
    write_text(folder / "provenance.json", json.dumps({"sessions": [session]}, indent=2) + "\n")
    return page


def drawn_cases(material: Material, limit: int | None) -> pd.DataFrame:
    """Return the cases that are drawn: each label of the images that tell most.

    Args:
        material: What is explained.
        limit: Images, at most; None for all.
    """
    labels = list(material.labels)
    of_labels = material.cases[material.cases["label"].isin(labels)]
    rows = choose_images(of_labels, material.manifest, limit)
    return pick_cases(of_labels, [(row, label) for row in rows for label in labels])


def _panels(material: Material, cases: pd.DataFrame) -> Iterator[Drawn]:
    methods = material.settings.methods
    drawn = draw_panels(
        cases,
        material.manifest,
        read_image=material.image,
        explain={METHOD_NAMES[method]: material.explain(method) for method in methods},
        num_images=material.settings.batch_size,
    )
    yield from track(drawn, "Drawing heatmaps", total=len(cases), console=Console(stderr=True))


def _saved(panels: Iterable[Drawn], folder: Path, material: Material, num_cases: int) -> Iterator[Drawn]:
    """Pass panels through, and keep their heatmaps: of each method an array ``(P, H, W)`` in their order."""
    methods: Sequence[str] = material.settings.methods
    files = {METHOD_NAMES[method]: folder / f"{method}.npy" for method in methods}
    arrays: dict[str, np.memmap[Any, Any]] = {}
    number = 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number, drawn in enumerate(panels, 1):
            for name, heat in drawn.heatmaps.items():
                if name not in arrays:
                    shape = (num_cases, *heat.shape)
                    arrays[name] = open_memmap(files[name], mode="w+", dtype=np.float32, shape=shape)
                arrays[name][number - 1] = heat.numpy()
            yield drawn
        for name, array in arrays.items():
            array.flush()
            if number < num_cases:  # an image could not be read
                np.save(files[name], np.array(array[:number]))
    except OSError as error:
        raise OutputError(f"Heatmaps could not be written to {folder}: {error}. Make room there.") from error
