"""``cxrlab prepare``: decode a data set into the cache, split it, audit it, draw the page."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig

from cxrlab.cli import config, console, datasets
from cxrlab.cli.claims import claimed
from cxrlab.files import RunDir

if TYPE_CHECKING:
    from cxrlab.data.audit import AuditReport
    from cxrlab.data.datamodule import DataModule
    from cxrlab.data.manifest import Manifest

log = logging.getLogger(__name__)

_VALUE_TYPES: Mapping[str, object] = {
    "seed": int,
    "against": str | None,
    "against_root": str | None,
    "images": bool,
    "run_dir": str,
}


def checked(cfg: DictConfig) -> DictConfig:
    """Return the config, checked; see :func:`cxrlab.cli.config.checked`."""
    return config.checked(cfg, _VALUE_TYPES, "prepare")


def prepare(cfg: DictConfig) -> "AuditReport | None":
    """Run the command from a composed config and return the audit's report; None for ``data=auto``.

    Args:
        cfg: The config of conf/prepare.yaml; ``run_dir`` names the folder that everything is written to.

    Raises:
        UserError: If the config or the data cannot be used; the message says what to do.
    """
    cfg = checked(cfg)
    console.configure_logging()
    run_dir = Path(cfg.run_dir)
    config.check_outside_data(run_dir, cfg.data.root, "run_dir")
    if datasets.is_auto(cfg):
        datasets.look(Path(cfg.data.root).expanduser(), run_dir)
        return None
    config.check_unused_folder(run_dir)
    with claimed(run_dir), console.says_when_stopped("What is decoded is kept: the same command goes on."):
        return _prepare(cfg, run_dir)


def _prepare(cfg: DictConfig, run_dir: Path) -> "AuditReport":
    from cxrlab.data.audit import terminal_table
    from cxrlab.report.audit_page import write_audit_page
    from cxrlab.runs.writing import save_data

    data: DataModule = config.build(cfg.data)
    other = _other(cfg)
    data.prepare()
    report = data.audit()
    save_data(data, report, RunDir(run_dir))
    log.info("%s\n", terminal_table(report))
    if other is not None:
        _compare(cfg.against, other, data, run_dir)
    write_audit_page(
        report,
        data.manifest,
        data.images,
        data.images.facts,
        run_dir / "audit.html",
        images=cfg.images,
        is_named=data.is_named,
    )
    _log_what_was_done(data, run_dir)
    return report


def _other(cfg: DictConfig) -> "Manifest | None":
    """Return the manifest to compare with, read before any work is done."""
    from cxrlab.data.duplicates.overlap import read_other

    if cfg.against is None:
        return None
    root = None if cfg.against_root is None else Path(cfg.against_root).expanduser()
    return read_other(Path(cfg.against).expanduser(), root)


def _compare(against: str, other: "Manifest", data: "DataModule", run_dir: Path) -> None:
    """Look for the images of another manifest in this data set, and list them in against.csv.

    Patients of the same id are counted.
    """
    from cxrlab.data.duplicates.overlap import find_shared, find_shared_patients
    from cxrlab.files import write_text

    shared = find_shared(data.dataset, data.decode(other))
    write_text(run_dir / "against.csv", shared.to_csv(index=False))
    log.info(
        "%d of the %d images of %s are among the %d of this data set%s\n",
        shared["other_image"].nunique(), len(other), against, len(data.manifest),
        f"; {run_dir / 'against.csv'} lists them." if len(shared) else ".",
    )  # fmt: skip
    if patients := find_shared_patients(data.manifest, other):
        log.warning(
            "%d of the %d patients of this data set have the id of a patient of %s, such as %s: the same "
            "people, if both number their patients alike\n",
            len(patients), data.manifest.table["patient"].nunique(), against, ", ".join(patients[:3]),
        )  # fmt: skip


def _log_what_was_done(data: "DataModule", run_dir: Path) -> None:
    seconds = data.seconds
    log.info(
        "%d images are in %s (%.1f s to read the table, %.1f s to decode what was missing, %.1f s to "
        "compare).",
        len(data.manifest), data.images.cache.folder,
        seconds["read"], seconds["cache"], seconds["copies"],
    )  # fmt: skip
    if len(data.unreadable):
        log.info("%d images could not be read: %s", len(data.unreadable), RunDir(run_dir).unreadable)
    log.info("The page: %s", run_dir / "audit.html")


@hydra.main(version_base="1.3", config_path=str(config.config_dir()), config_name="prepare")
def _main(cfg: DictConfig) -> None:
    prepare(cfg)


def main() -> None:
    """Run the command line."""
    console.run_command(_main)


if __name__ == "__main__":
    main()
