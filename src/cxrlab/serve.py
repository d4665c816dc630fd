"""``cxrlab serve``: a model as a service, with a page for a person."""

import logging
import os
import sys
from collections.abc import Mapping

import hydra
from omegaconf import DictConfig

from cxrlab.cli import config, console

log = logging.getLogger(__name__)

LISTS = ("run",)
"""Keys whose values may be several, with commas between them."""

_LESS_MEMORY = "Give a smaller service.batch_size or service.num_decoders."
_VALUE_TYPES: Mapping[str, object] = {
    "run": str | list[str] | None,
    "trust": list[str],
    "host": str,
    "port": int,
    "token": str | None,
    "device": str,
}


def checked(cfg: DictConfig) -> DictConfig:
    """Return the config, checked; see :func:`cxrlab.cli.config.checked`."""
    from cxrlab.deploy.service.settings import check_token
    from cxrlab.errors import ConfigError, check_range

    cfg = config.checked(cfg, _VALUE_TYPES, "serve")
    config.build(cfg.service)  # refuses a value out of its range
    if not cfg.run:
        raise ConfigError("Give run=<a run, a checkpoint, an exported file or a shared folder>.")
    check_range("port", cfg.port, 0, 65535)
    check_token(cfg.host, _token(cfg))
    return cfg


def _token(cfg: DictConfig) -> str:
    from cxrlab.deploy.service.settings import TOKEN_VARIABLE

    return str(cfg.token or os.environ.get(TOKEN_VARIABLE, ""))


def serve(cfg: DictConfig) -> None:
    """Run the command from a composed config, until it is stopped.

    Args:
        cfg: The config of conf/serve.yaml.

    Raises:
        UserError: If the model cannot be read or the address not be had; the message says what to do.
    """
    cfg = checked(cfg)
    from cxrlab.deploy.service.listening import address_of, listen, require_packages, run_server

    require_packages()
    console.configure_logging()
    with listen(cfg.host, cfg.port) as server, console.says_what_needs_memory(_LESS_MEMORY):
        from cxrlab.deploy.loading import load_model
        from cxrlab.deploy.service.app import build_app
        from cxrlab.deploy.service.settings import is_loopback

        model = load_model(config.plain(cfg)["run"], device=cfg.device, trust=tuple(cfg.trust))
        settings, is_local = config.build(cfg.service), is_loopback(cfg.host)
        app = build_app(model, settings, token=_token(cfg), is_local=is_local)
        address = address_of(server)
        log.info("For research only.\nThe page: %s\nFor programs: %s/docs", address, address)
        if not run_server(app, server):
            sys.exit(1)


@hydra.main(version_base="1.3", config_path=str(config.config_dir()), config_name="serve")
def _main(cfg: DictConfig) -> None:
    serve(cfg)


def main() -> None:
    """Run the command line."""
    sys.argv[1:] = console.listed(sys.argv[1:], LISTS)
    console.run_command(_main)


if __name__ == "__main__":
    main()
