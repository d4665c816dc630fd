"""Heatmaps of image files by a run, for a notebook."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from cxrlab.errors import ConfigError
from cxrlab.heatmaps.methods.attention import attention_maps
from cxrlab.heatmaps.methods.cam import activation_maps
from cxrlab.heatmaps.settings import ATTENTION_METHODS, CAM_METHODS
from cxrlab.runs.run import Run


def file_heatmaps(
    run: Run,
    paths: Sequence[Path | str],
    label: str,
    *,
    method: str = "gradcam",
    layers: str | Sequence[str] = "auto",
    batch_size: int = 8,
) -> Tensor:
    """Return a heatmap of each image for one label: what speaks for the finding, and where.

    Args:
        run: Whose model is explained.
        paths: Image files of any size.
        label: One of ``run.labels``.
        method: ``gradcam``, ``gradcam++``, ``hirescam``, ``layercam``, ``eigencam``, ``attention`` or
            ``rollout``; the command ``cxrlab explain`` has others.
        layers: See :func:`cxrlab.heatmaps.methods.layers.target_layers`; the last two methods read none.
        batch_size: Images at a time.

    Returns:
        Values in [0, 1], shape ``(N, H, W)``, H and W being the network's input size.

    Raises:
        ConfigError: If there is no such label, method or layer.
        MissingFileError: If a file does not exist.
        DataError: If a file is no image.
    """
    if label not in run.labels:
        raise ConfigError(f"The run {run.run_dir} has no label {label!r}; it has {run.labels}.")
    known = (*CAM_METHODS, *ATTENTION_METHODS)
    if method not in known:
        raise ConfigError(f"method={method} is none of {', '.join(known)}; cxrlab explain has others.")
    images = run.model.preprocess(run.images(paths).to(run.model.device))
    pairs = [(place, run.labels.index(label)) for place in range(len(images))]
    network = run.model.network
    if method in ATTENTION_METHODS:
        return attention_maps(network, images, pairs, method=method, batch_size=batch_size)
    return activation_maps(network, images, pairs, method=method, layers=layers, batch_size=batch_size)
