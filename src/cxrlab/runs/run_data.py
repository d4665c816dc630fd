"""The data of a run: built again from what it saved, and what it predicts of its own parts."""

import functools
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from cxrlab.data import BUILDABLE
from cxrlab.data.audit import AuditReport
from cxrlab.data.datamodule import DataModule
from cxrlab.data.dataset import FramedImages
from cxrlab.data.manifest import Manifest
from cxrlab.data.readers import synthetic
from cxrlab.errors import ConfigError
from cxrlab.files import PROVENANCE_REMEDY, RunDir, reading
from cxrlab.metrics.predictions import DataFacts, PredictionTable
from cxrlab.runs.own_predictions import read_own_predictions
from cxrlab.runs.predict import predict_table
from cxrlab.trust import build

if TYPE_CHECKING:
    from cxrlab.runs.run import Run

log = logging.getLogger(__name__)

_BUILT = ("reader", "split", "filter", "augment")
"""Keys below ``data`` that describe something to be built; all others are plain values."""

_DATA_MODULE = "cxrlab.data.datamodule.DataModule"


def build_data(
    description: Mapping[str, Any],
    *,
    trust: Sequence[str],
    source: str,
    root: Path | str | None = None,
    cache_dir: Path | str | None = None,
) -> DataModule:
    """Build the data module that a run's config describes; nothing in it chooses what else runs.

    Nor does it choose where anything is written: decoded images go to the user's own cache, whatever folder
    the run had for them, and the synthetic set is drawn only below a ``root`` that is given here.

    Args:
        description: ``data`` of the config, references followed.
        root: Folder of the data, where it was moved; None for where it was.
        cache_dir: Folder of the decoded images; None for the user's own cache.
        trust: Packages besides cxrlab whose classes and functions may be built.
        source: The file, for messages.

    Raises:
        ConfigError: If it names what is neither in ``cxrlab.data.BUILDABLE`` nor of a trusted package, or the
            synthetic set would have to be drawn first.
    """
    description = {key: value for key, value in description.items() if key != "cache_dir"}
    if root is not None:
        description["root"] = str(root)
    if cache_dir is not None:
        description["cache_dir"] = str(cache_dir)
    try:
        parts = {
            key: build(description[key], BUILDABLE, trust, source=source)
            for key in _BUILT
            if isinstance(description.get(key), Mapping)
        }
    except TypeError as error:
        raise ConfigError(f"{source} does not describe data: {error}.") from error
    plain = {key: value for key, value in description.items() if key not in parts}
    for key, part in parts.items():
        if not callable(part):
            raise ConfigError(f"{source} makes data.{key} a {type(part).__name__}, which cannot be called.")
    try:
        data: DataModule = build(plain, (_DATA_MODULE,), trust, source=source, **parts)
        reader: Any = data.reader
        if root is None and isinstance(reader, functools.partial):
            target = f"{reader.func.__module__}.{reader.func.__qualname__}"
            if what := would_write(target, reader.keywords, data.root):
                raise ConfigError(
                    f"{source} would have {what} written below {data.root}, where they are not. To have that "
                    f"done, give root={data.root}."
                )
    except TypeError as error:
        raise ConfigError(f"{source} does not describe data: {error}.") from error
    return data


def would_write(target: str, arguments: Mapping[str, Any], root: Path) -> str:
    """Return what a reader would write below the root before it can read; "" for nothing.

    A run's files must not choose where something is written, so that a reader that writes is only used for
    them where that was done before.

    Args:
        target: Of the reader, a dotted path.
        arguments: Its arguments but the root.
        root: Of the data.
    """
    if target == f"{synthetic.__name__}.read":
        return "" if synthetic.is_drawn(root, **arguments) else "synthetic radiographs"
    if target != "cxrlab.data.readers.table.read":
        return ""
    named = [name for name in _texts(list(arguments.values())) if name.lower().endswith(".npz")]
    if not arguments.get("tables"):  # the only table there is taken
        named += [path.name for path in root.glob("*.npz")]
    for name in named:
        path = root / Path(name).expanduser()
        is_there = (root / f"{path.name.partition('.')[0]}_images").is_dir()
        if not is_there or not path.resolve().is_relative_to(root.resolve()):
            return f"the images in {path.name}"
    return ""


def _texts(values: object) -> Iterator[str]:
    """Yield every text in lists and mappings, whatever it is for."""
    if isinstance(values, str):
        yield values
    elif isinstance(values, Mapping):
        yield from _texts([*values.values()])
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _texts(value)


def data_facts(data: DataModule) -> DataFacts:
    """Return what a data set is that is at hand, prepared."""
    manifest = data.manifest
    return DataFacts(
        manifest.name,
        data.split.method,
        manifest.fingerprint(),
        data.is_named,
        manifest.negative,
        data.public_name,
    )


def run_facts(files: RunDir) -> DataFacts:
    """Return what a run was trained and tested on, as its provenance says."""
    data = files.data_record()
    with reading(files.provenance, PROVENANCE_REMEDY):
        method = data.get("split", {}).get("method")
        split = None if method is None else str(method)
        is_named = data.get("is_named") is True
        negative = str(data.get("negative", ""))
        public = str(data.get("public", ""))
        return DataFacts(
            str(data.get("name", "")), split, data.get("fingerprint"), is_named, negative, public
        )


@dataclass(frozen=True)
class PredictedImages:
    """Images with predictions, and what is known of them.

    Attributes:
        table: The predictions.
        facts: What the images are.
        manifest: Their manifest, whose rows ``rows`` they are; None where nothing was read from disk.
        images: The pixels of the manifest.
        rows: Shape ``(N,)``.
        notes: What the reader must be told.
        is_external: Whether they are of another data set than the run's own.
        audit: What the audit of that data set found; None for the run's own, which wrote it down.
        unseen: Whether it is known that the run was trained on none of them; None where the part tells.
        validation: The run's validation part, predicted as the table was where that is not as in training:
            thresholds and calibration are chosen on it. None where those of the checkpoint hold.
        looks: Brightness and the like of these images, in their order, where they are of another data set.
        own_looks: The same of the run's own images, with columns ``image`` and ``part``; None where they
            could not be read.
        num_asked: Images of another data set that were asked for, before those of the training were left out.
    """

    table: PredictionTable
    facts: DataFacts
    manifest: Manifest | None = None
    images: FramedImages | None = None
    rows: Sequence[int] = ()
    notes: tuple[str, ...] = ()
    is_external: bool = False
    audit: AuditReport | None = None
    unseen: bool | None = None
    validation: PredictionTable | None = None
    num_asked: int | None = None
    looks: pd.DataFrame | None = None
    own_looks: pd.DataFrame | None = None


def own_part(
    run: "Run",
    part: str,
    *,
    root: Path | str | None = None,
    batch_size: int = 64,
    device: str = "auto",
    recompute: bool = False,
) -> PredictedImages:
    """Return the predictions of one of the run's own parts: those it wrote, else new ones.

    Args:
        run: The run.
        part: ``train``, ``val`` or ``test``.
        root: Folder of its data, where it was moved; None for where it was.
        batch_size: Images at a time.
        device: ``auto``, ``cpu`` or ``cuda``.
        recompute: Predict them also where the run wrote predictions: with other views of the images, say.

    Raises:
        DataError: If its data are no longer those that it was trained on.
    """
    path = run.files.predictions(part)
    recompute |= not run.has_own_weights
    if path.is_file() and not recompute:
        return PredictedImages(read_own_predictions(run.files, part), run.facts)
    others = "Views or weights are others than the run's"
    why = others if recompute else f"The run has no {path.name} in predictions"
    log.info("%s: predicting the images of its part %s ...", why, part)
    data = run.data(root)
    rows = data.rows(part)
    table = predict_table(
        run.model,
        data.manifest,
        data.images,
        rows,
        batch_size=batch_size,
        device=device,
        source=f"{data.manifest.name or data.manifest.root} predicted by {run.run_dir}",
    )
    return PredictedImages(table, run.facts, data.manifest, data.images, rows)


def with_pixels(predicted: PredictedImages, data: DataModule) -> PredictedImages:
    """Add manifest and pixels to predictions of one of a run's own parts that were read from its table.

    Args:
        predicted: Its images are among those of ``data``.
        data: Prepared.
    """
    if predicted.images is not None:
        return predicted
    row_of_image = {image: row for row, image in enumerate(data.manifest.table["image"])}
    rows = [row_of_image[image] for image in predicted.table.images]
    return replace(predicted, manifest=data.manifest, images=data.images, rows=rows)


def with_validation(
    run: "Run", predicted: PredictedImages, *, root: Path | str | None, batch_size: int, device: str
) -> PredictedImages:
    """Add the run's validation part, predicted with the views that its model has now.

    The thresholds and the calibration of its checkpoint are of probabilities with the views it was trained
    with. Arguments and errors are those of :func:`own_part`.
    """
    is_validation = predicted.table.part == "val" and not predicted.is_external
    own = (
        predicted
        if is_validation
        else own_part(run, "val", root=root, batch_size=batch_size, device=device, recompute=True)
    )
    note = (
        f"Probabilities are the mean over the views {', '.join(run.model.views)}, which are not those of the "
        "training; thresholds and calibration were chosen again, on validation images predicted so."
    )
    return replace(predicted, validation=own.table, notes=(*predicted.notes, note))
