"""``cxrlab review``: labels that are probably wrong, as a page and a table to correct."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig

from cxrlab.cli import config, console
from cxrlab.cli.claims import claimed

if TYPE_CHECKING:
    from cxrlab.metrics.predictions import PredictionTable

log = logging.getLogger(__name__)

_VALUE_TYPES: Mapping[str, object] = {
    "predictions": str | None,
    "root": str | None,
    "corrections": str | None,
    "per_label": int,
    "run_dir": str,
    "report.images": bool,
}


def checked(cfg: DictConfig) -> DictConfig:
    """Return the config, checked; see :func:`cxrlab.cli.config.checked`."""
    from cxrlab.errors import ConfigError

    cfg = config.checked(cfg, _VALUE_TYPES, "review")
    if cfg.predictions is None:
        raise ConfigError(
            "Give predictions=<out_of_fold.csv of a cross-validation>: predictions of images that the "
            "networks did not train on."
        )
    if cfg.per_label < 1:
        raise ConfigError(f"per_label={cfg.per_label} must be at least 1.")
    if cfg.root is not None and not Path(cfg.root).expanduser().is_dir():
        raise ConfigError(f"root={cfg.root} is no folder: it is where the images lie.")
    return cfg


def review(cfg: DictConfig) -> Path:
    """Run the command from a composed config and return the path of what it wrote: the list, or the labels.

    Args:
        cfg: The config of conf/review.yaml; ``run_dir`` names the folder that everything is written to.

    Raises:
        UserError: If a table cannot be used; the message says what to do.
    """
    cfg = checked(cfg)
    from cxrlab.metrics.predictions import read_predictions

    console.configure_logging()
    table = read_predictions(Path(cfg.predictions).expanduser())
    with (
        claimed(Path(cfg.run_dir)),
        console.says_when_stopped("Nothing is kept: the same command starts again."),
    ):
        return _listed(cfg, table) if cfg.corrections is None else _corrected(cfg, table)


def _listed(cfg: DictConfig, table: "PredictionTable") -> Path:
    """Write the list of doubtful labels and its page."""
    from cxrlab.evaluation.label_errors import label_errors, suspects_frame
    from cxrlab.files import RunDir, write_json, write_text
    from cxrlab.report.label_errors_page import write_label_errors
    from cxrlab.report.model_info import Session
    from cxrlab.training.callbacks.provenance import environment

    start, session = time.perf_counter(), environment("cxrlab.review")
    folder = Path(cfg.run_dir)
    errors = label_errors(table)
    path = folder / "label_errors.csv"
    write_text(path, suspects_frame(table, errors).to_csv(index=False))
    page = write_label_errors(
        table,
        errors,
        folder,
        root=_root(cfg),
        images=cfg.report.images,
        per_label=cfg.per_label,
        session=Session.from_json(session),
    )
    session["seconds"] = {"everything": round(time.perf_counter() - start, 1)}
    write_json(RunDir(folder).provenance, {"sessions": [session]}, indent=2)
    log.info(
        "%d of %d labels are doubtful.\nThe list, to fill in: %s\nThe page: %s",
        len(errors),
        int(table.known.sum()),
        path,
        page,
    )
    return path


def _corrected(cfg: DictConfig, table: "PredictionTable") -> Path:
    """Write the labels of all images after correction."""
    from cxrlab.errors import DataError
    from cxrlab.evaluation.label_errors import corrected_labels, read_corrections
    from cxrlab.files import write_text

    given = Path(cfg.corrections).expanduser()
    corrections = read_corrections(given, table)
    if not corrections:
        raise DataError(f"{given} corrects nothing: fill in its column corrected with 1, 0 or unknown.")
    path = Path(cfg.run_dir) / "labels.csv"
    write_text(path, corrected_labels(table, corrections).to_csv(index=False))
    is_changed = [table.targets[row, column] != value for row, column, value in corrections]
    log.info(
        "%d labels of %d images are corrected, %d were confirmed.\nThe labels: %s\nTrain on them: cxrlab "
        "train data=table data.root=%s data.reader.tables=%s",
        sum(is_changed),
        len({row for (row, _, _), changed in zip(corrections, is_changed, strict=True) if changed}),
        len(is_changed) - sum(is_changed),
        path,
        _root(cfg) or "<the images>",
        path,
    )
    return path


def _root(cfg: DictConfig) -> Path | None:
    """Return the folder of the images: as it was given, else as the runs tell that the table lies with."""
    if cfg.root is not None:
        return Path(cfg.root).expanduser()
    from cxrlab.errors import UserError
    from cxrlab.files import RunDir, read_json, sweep_folders

    table = Path(cfg.predictions).expanduser().resolve()
    for folder in (table.parent.parent, *sweep_folders(table.parent)):
        path = RunDir(folder).audit
        if not path.is_file():
            continue
        try:
            root = Path(str(read_json(path).get("root", "")))
        except UserError as error:
            log.warning("%s", error)
            continue
        if root.is_dir():
            return root
    log.warning("The page has no pictures: give root=<the folder of the images>.")
    return None


@hydra.main(version_base="1.3", config_path=str(config.config_dir()), config_name="review")
def _main(cfg: DictConfig) -> None:
    review(cfg)


def main() -> None:
    """Run the command line."""
    console.run_command(_main)


if __name__ == "__main__":
    main()
