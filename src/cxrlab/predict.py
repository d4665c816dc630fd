"""``cxrlab predict``: new image files by a trained model, as a table, a page and heatmaps."""

import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import hydra
from omegaconf import DictConfig

from cxrlab.cli import config, console
from cxrlab.cli.claims import claimed

if TYPE_CHECKING:
    from cxrlab.data.inputs import ImageFile
    from cxrlab.deploy.dicom_folder import DicomFolder
    from cxrlab.deploy.model import Model
    from cxrlab.deploy.prediction_folder import PredictionFolder

log = logging.getLogger(__name__)

LISTS = ("run", "input")
"""Keys whose values may be several, with commas between them."""

NOT_ALL_OK = 3
"""Exit status where some files have no prediction, or one with a warning."""

_VALUE_TYPES: Mapping[str, object] = {
    "run": str | list[str] | None,
    "input": str | list[str] | None,
    "output": str,
    "views": list[str] | None,
    "on_unlike": Literal["warn", "reject", "ignore"],
    "heatmaps": bool,
    "method": str,
    "dicom_results": bool,
    "embeddings": bool,
    "page": bool,
    "page_images": int,
    "batch_size": int,
    "num_workers": int | None,
    "device": str,
    "trust": list[str],
}


def checked(cfg: DictConfig) -> DictConfig:
    """Return the config, checked; see :func:`cxrlab.cli.config.checked`."""
    from cxrlab.errors import ConfigError, check_range
    from cxrlab.heatmaps.settings import check_methods

    cfg = config.checked(cfg, _VALUE_TYPES, "predict")
    if not _texts(cfg, "run"):
        raise ConfigError("Give run=<a run directory, checkpoint, exported file or shared folder>.")
    if not _texts(cfg, "input"):
        raise ConfigError(
            "Give input=<image files, folders, zip archives or CSV files>: what is to be predicted?"
        )
    check_methods(cfg.method, "method")
    check_range("batch_size", cfg.batch_size, 1)
    check_range("page_images", cfg.page_images, 0)
    check_range("num_workers", cfg.num_workers, 0)
    return cfg


def _texts(cfg: DictConfig, key: str) -> list[str]:
    """Return a value that may be one text or several as a list."""
    value = config.plain(cfg)[key]
    return [value] if isinstance(value, str) else list(value or ())


def predict(cfg: DictConfig) -> Mapping[str, int]:
    """Run the command from a composed config and return how many files have which status.

    Args:
        cfg: The config of conf/predict.yaml.

    Raises:
        UserError: If the config, the model or the input cannot be used; the message says what to do.
    """
    cfg = checked(cfg)
    console.configure_logging()
    folder = Path(cfg.output)
    memory = console.says_what_needs_memory(f"Give a smaller batch_size (now {cfg.batch_size}).")
    kept = f"The rows so far are kept. The same command with output={folder} goes on."
    with claimed(folder), console.says_when_stopped(kept), memory:
        return _predict(cfg, folder)


def _predict(cfg: DictConfig, folder: Path) -> Mapping[str, int]:
    from cxrlab.deploy.loading import load_model
    from cxrlab.deploy.prediction_folder import PredictionFolder, PredictionSettings
    from cxrlab.errors import MissingFileError

    num_files = sum(1 for _ in _files(cfg))
    if not num_files:
        raise MissingFileError(
            f"input={','.join(_texts(cfg, 'input'))} holds no image: nothing is predicted."
        )
    views = None if cfg.views is None else list(cfg.views)
    model = load_model(_texts(cfg, "run"), device=cfg.device, trust=list(cfg.trust), views=views)
    if cfg.heatmaps:
        model.check_explained(cfg.method)
    if cfg.embeddings:
        model.check_features()
    dicom = _dicom_folder(cfg, folder, model)
    _say_model(model)
    record = model.record
    settings = PredictionSettings(
        model.digest, record.labels, _texts(cfg, "input"), record.views, cfg.on_unlike, _extras(cfg)
    )
    rows = num_files if cfg.embeddings else None
    with PredictionFolder(folder, model, settings, num_features_rows=rows) as kept:
        _fill(cfg, model, kept, num_files, dicom)
        _write_page(cfg, model, kept)
        kept.finish()
    if dicom is not None:
        log.info("DICOM results of %d files: %s", dicom.num_files, dicom.folder)
    return dict(kept.counts)


def _dicom_folder(cfg: DictConfig, folder: Path, model: "Model") -> "DicomFolder | None":
    """Return where results as DICOM go, where they are wanted."""
    if not cfg.dicom_results:
        return None
    from cxrlab.deploy.dicom_folder import DicomFolder

    dicom = DicomFolder(folder / "dicom_results", model, cfg.method)
    if dicom.no_heatmaps:
        log.warning("The DICOM results are reports without heatmaps. %s", dicom.no_heatmaps)
    return dicom


def _files(cfg: DictConfig) -> "Iterator[ImageFile]":
    """Yield what is to be predicted, each file once."""
    from cxrlab.data.inputs import image_inputs

    seen: set[str] = set()
    for file in image_inputs(_texts(cfg, "input")):
        if file.name not in seen:
            seen.add(file.name)
            yield file


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _say_model(model: "Model") -> None:
    record = model.record
    rule = f", thresholds by {record.threshold_rule} on validation" if record.threshold_rule else ""
    calibration = f", calibrated by {record.calibration}" if record.calibration else ""
    log.info("%s, %s%s%s.", record.title, _counted(len(record.labels), "label"), rule, calibration)
    for caveat in record.caveats:
        log.warning("%s", caveat)
    if not model.knows_its_images:
        log.warning(
            "The checkpoint has no record of what the images of its training look like: whether an image is "
            "unlike them is not checked."
        )


def _fill(
    cfg: DictConfig,
    model: "Model",
    folder: "PredictionFolder",
    num_files: int,
    dicom: "DicomFolder | None",
) -> None:
    """Predict every file that has no row yet."""
    from cxrlab.data.cache_worker import num_cores
    from cxrlab.data.decode_files import decode_files
    from cxrlab.deploy.prediction_folder import writing
    from cxrlab.deploy.prediction_page import write_heatmaps

    if folder.done:
        log.info("%d of %d files have their row already.", len(folder.done), num_files)
    missing = (file for file in _files(cfg) if file.name not in folder.done)
    workers = cfg.num_workers if cfg.num_workers is not None else num_cores()
    decoded = decode_files(missing, model.decoding, num_workers=workers)
    with _progress(num_files, len(folder.done)) as advance:
        while batch := list(islice(decoded, cfg.batch_size)):
            predictions = model.predict_decoded(batch, on_unlike=cfg.on_unlike)
            first = folder.counts.total()
            if dicom is not None:
                with writing(folder.folder):
                    results = zip(batch, predictions, strict=True)
                    predictions = [dicom.add(*result, row) for row, result in enumerate(results, start=first)]
            if cfg.heatmaps:
                for row, (file, prediction) in enumerate(zip(batch, predictions, strict=True), start=first):
                    write_heatmaps(folder.folder / "heatmaps", model, file, prediction, row, cfg.method)
            folder.add(predictions)
            advance(len(batch))


@contextmanager
def _progress(total: int, done: int) -> "Iterator[Callable[[int], None]]":
    """Show how many files are predicted, and how many a second; give what adds to them."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    shown = Progress(
        TextColumn("Predicting images"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    start, predicted = time.perf_counter(), 0
    with shown:
        bar = shown.add_task("", total=total, completed=done, rate="")

        def advance(number: int) -> None:
            nonlocal predicted
            predicted += number
            rate = predicted / max(time.perf_counter() - start, 1e-9)
            shown.update(bar, advance=number, rate=f"{rate:.1f} images/s")

        yield advance


def _extras(cfg: DictConfig) -> list[str]:
    """Return what is written beside the table: a run that goes on must write the same."""
    wanted = {
        f"heatmaps by {cfg.method}": cfg.heatmaps,
        "embeddings": cfg.embeddings,
        "dicom_results": cfg.dicom_results,
    }
    return [name for name, is_wanted in wanted.items() if is_wanted]


def _write_page(cfg: DictConfig, model: "Model", folder: "PredictionFolder") -> None:
    """Say what was written, and write the page."""
    from cxrlab.deploy.prediction_folder import writing
    from cxrlab.deploy.prediction_page import write_page

    counts = folder.counts
    parts = [f"{counts[status]} {status}" for status in ("ok", "warned", "rejected", "unreadable")]
    log.info(
        "%s: %s.",
        _counted(counts.total(), "file"),
        ", ".join(part for part in parts if not part.startswith("0 ")),
    )
    log.info("The table: %s", folder.table)
    if not cfg.page:
        return
    with writing(folder.folder):
        page = write_page(
            folder.folder,
            model,
            _files(cfg),
            counts,
            num_images=cfg.page_images,
            method=cfg.method if cfg.heatmaps else None,
        )
    log.info("The page: %s", page)


_num_not_ok: list[int] = []


@hydra.main(version_base="1.3", config_path=str(config.config_dir()), config_name="predict")
def _main(cfg: DictConfig) -> None:
    counts = predict(cfg)
    _num_not_ok.append(sum(number for status, number in counts.items() if status != "ok"))


def main() -> None:
    """Run the command line."""
    sys.argv[1:] = console.listed(sys.argv[1:], LISTS)
    console.run_command(_main)
    if any(_num_not_ok):
        number = sum(_num_not_ok)
        are = "is" if number == 1 else "are"
        print(f"{_counted(number, 'file')} {are} not ok: see the columns status and reason.", file=sys.stderr)
        sys.exit(NOT_ALL_OK)


if __name__ == "__main__":
    main()
