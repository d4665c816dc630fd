"""``cxrlab share``: a trained model as a folder that can be passed on, or on the Hugging Face Hub."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import hydra
from omegaconf import DictConfig

from cxrlab.cli import config, console

log = logging.getLogger(__name__)

_VALUE_TYPES: Mapping[str, object] = {
    "run": str | None,
    "output": str | None,
    "name": str | None,
    "licence": str | None,
    "sample": int,
    "reference": bool | None,
    "push": str | None,
    "private": bool,
    "trust": list[str],
    "check_weights": bool,
}


def checked(cfg: DictConfig) -> DictConfig:
    """Return the config, checked; see :func:`cxrlab.cli.config.checked`."""
    from cxrlab.errors import ConfigError, check_range

    cfg = config.checked(cfg, _VALUE_TYPES, "share")
    if cfg.run is None:
        raise ConfigError("Give run=<a run directory or a checkpoint>: which model is shared?")
    if cfg.output is None:
        raise ConfigError("Give output=<a folder>: it is written there, new.")
    check_range("sample", cfg.sample, 0)
    for key in ("name", "licence"):
        if cfg[key] is not None and not cfg[key].strip():
            raise ConfigError(f"{key}={cfg[key]!r} says nothing: give a text, or leave it out.")
    if cfg.push is not None and cfg.licence is None:
        raise ConfigError(
            f"push={cfg.push} needs licence=<of the weights, such as Apache-2.0>: without one nobody may use "
            "what is published."
        )
    return cfg


def share(cfg: DictConfig) -> list[Path]:
    """Run the command from a composed config and return the files that it wrote.

    Args:
        cfg: The config of conf/share.yaml.

    Raises:
        UserError: If the config, the run or the folder cannot be used; the message says what to do.
    """
    cfg = checked(cfg)
    console.configure_logging()
    with console.says_when_stopped("Nothing is kept: the same command starts again."):
        return _share(cfg)


def _share(cfg: DictConfig) -> list[Path]:
    from cxrlab.deploy import hub
    from cxrlab.deploy.share import share as share_model

    if cfg.push is not None:
        hub.check_can_push(cfg.push)
    folder = Path(cfg.output).expanduser()
    paths = share_model(
        cfg.run,
        folder,
        name=cfg.name or "",
        licence=cfg.licence or "",
        sample=cfg.sample,
        reference=cfg.reference,
        trust=config.plain(cfg)["trust"],
        check_weights=cfg.check_weights,
    )
    log.info("%s\n\nRead back, it predicts the same, bit by bit. The folder: %s", _listing(paths), folder)
    if cfg.licence is None:
        log.warning("No licence was given: nobody may use it but you. licence= writes it into the card.")
    if cfg.push is not None:
        log.info("On the Hub: %s", hub.push(folder, cfg.push, private=cfg.private))
    return paths


def _listing(paths: Sequence[Path]) -> str:
    """Return a line a file, with its size in bytes."""
    width = max(len(path.name) for path in paths)
    return "\n".join(f"{path.name:<{width}}  {path.stat().st_size:>12,} bytes" for path in paths)


@hydra.main(version_base="1.3", config_path=str(config.config_dir()), config_name="share")
def _main(cfg: DictConfig) -> None:
    share(cfg)


def main() -> None:
    """Run the command line."""
    console.run_command(_main)


if __name__ == "__main__":
    main()
