"""``cxrlab export``: a trained model as one file for other programs, compared with the model first."""

import logging
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig

from cxrlab.cli import config, console
from cxrlab.cli.claims import claimed, warn_if_in_use

if TYPE_CHECKING:
    from cxrlab.deploy.backend import Pixels
    from cxrlab.deploy.export import ExportedModel, ExportSettings
    from cxrlab.deploy.quantization import ValidationImages
    from cxrlab.runs.run import Run
    from cxrlab.training.module import Classifier

log = logging.getLogger(__name__)

LISTS = ("images",)
"""Keys whose values may be several, with commas between them."""

_VALUE_TYPES: Mapping[str, object] = {
    "run": str | None,
    "output": str | None,
    "format": str,
    "precision": str,
    "quantize": str | None,
    "max_drop": float,
    "reference": bool | None,
    "calibration_images": int,
    "images": str | list[str] | None,
    "num_images": int,
    "licence": str,
    "root": str | None,
    "cache_dir": str | None,
    "batch_size": int,
    "trust": list[str],
    "check_weights": bool,
    "run_dir": str,
}

_SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}


def checked(cfg: DictConfig) -> DictConfig:
    """Return the config, checked; see :func:`cxrlab.cli.config.checked`."""
    from cxrlab.deploy.parity import LEAST_IMAGES
    from cxrlab.errors import ConfigError, check_range

    cfg = config.checked(cfg, _VALUE_TYPES, "export")
    if cfg.run is None:
        raise ConfigError("Give run=<a run directory, or a checkpoint>: which model is to be exported?")
    _settings(cfg)  # refuses a value that there is not
    check_range("num_images", cfg.num_images, LEAST_IMAGES)
    check_range("calibration_images", cfg.calibration_images, 1)
    if cfg.output is not None:
        output, suffix = Path(cfg.output).expanduser(), _SUFFIXES[cfg.format]
        if output.is_dir():
            raise ConfigError(f"output={cfg.output} is a folder: name a file in it, such as model{suffix}.")
        if output.suffix != suffix:
            raise ConfigError(f"output={cfg.output}: a file of format={cfg.format} ends in {suffix}.")
    return cfg


def _settings(cfg: DictConfig) -> "ExportSettings":
    from cxrlab.deploy.export import ExportSettings

    names = ("format", "precision", "quantize", "max_drop", "batch_size")
    return ExportSettings(**{name: cfg[name] for name in names})


def export(cfg: DictConfig) -> Path:
    """Run the command from a composed config and return the path of the file.

    Args:
        cfg: The config of conf/export.yaml; ``run_dir`` names the folder of the log, and of a file whose
            ``output`` is null.

    Raises:
        UserError: If the config, the run or an image cannot be used, or the file disagrees with the model.
    """
    cfg = checked(cfg)
    console.configure_logging()
    folder = Path(cfg.run_dir)
    memory = console.says_what_needs_memory(f"Give a smaller batch_size (now {cfg.batch_size}).")
    nothing = "Nothing was written: the same command starts again."
    with claimed(folder), console.says_when_stopped(nothing), memory:
        return _export(cfg, folder)


def _export(cfg: DictConfig, folder: Path) -> Path:
    from cxrlab.deploy.export import export_model
    from cxrlab.deploy.record import network_title, record_of
    from cxrlab.files import write_json
    from cxrlab.runs.reference import reference_for_others

    classifier, checkpoint, run = _model(cfg)
    settings = _settings(cfg)
    output = Path(cfg.output or folder / f"model{_SUFFIXES[cfg.format]}").expanduser()
    output.parent.mkdir(parents=True, exist_ok=True)
    has_fewer_bits = settings.quantize is not None or settings.precision != "fp32"
    images = _images(cfg, classifier, run)
    log.info("Exporting %s, and comparing it on %d images ...", network_title(classifier), len(images))
    exported = export_model(
        classifier,
        output,
        record=record_of(classifier, checkpoint, licence=cfg.licence),
        images=images,
        reference=reference_for_others(classifier, checkpoint, cfg.reference),
        calibration=_training_images(cfg, run) if settings.quantize == "int8" else None,
        validation=_validation(cfg, run) if has_fewer_bits else None,
        settings=settings,
    )
    write_json(folder / "export.json", asdict(exported) | {"path": str(output)})
    _say(exported)
    return output


def _say(exported: "ExportedModel") -> None:
    is_whole = exported.agreement.tolerance is not None and exported.change is None
    log.info("The file %s: %s.", "agrees" if is_whole else "was compared", exported.agreement)
    if exported.change is not None:
        log.info("Fewer bits cost, %s.", exported.change)
    size = exported.path.stat().st_size
    log.info("\nThe file (%.1f MB): %s", size / 1e6, exported.path)


def _model(cfg: DictConfig) -> "tuple[Classifier, Path, Run | None]":
    """Return the classifier, its checkpoint, and its run where it was named by that."""
    from cxrlab.errors import ConfigError, MissingFileError
    from cxrlab.files import RunDir
    from cxrlab.runs.run import load_classifier, load_run

    path = Path(cfg.run).expanduser()
    if path.suffix in _SUFFIXES.values() and path.is_file():
        raise ConfigError(f"run={cfg.run} is exported already: name the run, or its checkpoint.")
    if path.is_file():
        return load_classifier(path, trust=cfg.trust), path, None
    if not path.is_dir():
        raise MissingFileError(f"run={cfg.run}: there is no such run directory or checkpoint.")
    warn_if_in_use(path)
    options = {name: cfg[name] for name in ("trust", "check_weights", "cache_dir")}
    run = load_run(path, **options)
    return run.model, RunDir(path).best_checkpoint, run


def _images(cfg: DictConfig, classifier: "Classifier", run: "Run | None") -> "Pixels":
    """Return the images on which the file is compared: those that are named, else the run's own."""
    from cxrlab.data.dataset import FileImages, image_files
    from cxrlab.errors import ConfigError

    if cfg.images is not None:
        names = config.plain(cfg)["images"]
        paths = image_files([names] if isinstance(names, str) else names)[: cfg.num_images]
        shape = classifier.preprocess
        images = FileImages(paths, image_size=shape.image_size, channels=shape.channels, resize=shape.resize)
        return images[range(len(paths))]
    if run is None:
        raise ConfigError(
            f"run={cfg.run} is a checkpoint alone, without radiographs on which the file could be compared: "
            "give images=<files or folders>, or the run directory."
        )
    data = run.data(cfg.root)
    rows = [*data.rows("test"), *data.rows("val")]
    return data.images[_spread(rows, cfg.num_images)]


def _spread(rows: list[int], number: int) -> list[int]:
    """Return some of the rows, evenly spaced."""
    import numpy as np

    places = np.linspace(0, len(rows) - 1, min(number, len(rows))).astype(int)
    return sorted(rows[place] for place in places)


def _training_images(cfg: DictConfig, run: "Run | None") -> "Pixels | None":
    if run is None:
        return None
    data = run.data(cfg.root)
    return data.images[_spread(data.rows("train"), cfg.calibration_images)]


def _validation(cfg: DictConfig, run: "Run | None") -> "ValidationImages | None":
    from cxrlab.deploy.quantization import ValidationImages

    if run is None:
        return None
    data = run.data(cfg.root)
    rows = data.rows("val")
    return ValidationImages(data.images, rows, data.targets.double().numpy()[rows])


@hydra.main(version_base="1.3", config_path=str(config.config_dir()), config_name="export")
def _main(cfg: DictConfig) -> None:
    export(cfg)


def main() -> None:
    """Run the command line."""
    sys.argv[1:] = console.listed(sys.argv[1:], LISTS)
    console.run_command(_main)


if __name__ == "__main__":
    main()
