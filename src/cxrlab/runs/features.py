"""Features of images: what a network makes of them before its head, computed once and kept."""

import hashlib
import json
import logging
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cxrlab.data.dataset import Images
from cxrlab.data.feature_file import FeatureFile
from cxrlab.data.loader import FeatureStore
from cxrlab.errors import ConfigError
from cxrlab.models.network import in_eval_mode
from cxrlab.runs.predict import ImageRows, named_device, outputs
from cxrlab.training.module import Classifier

log = logging.getLogger(__name__)

Features = npt.NDArray[np.float32]

# Raised whenever the same network would give other features, so that no older file is taken for new.
_VERSION = 1
# Images whose features are computed again each time that a file is used, and how far they may lie off, as a
# share of their root mean square: another batch size rounds otherwise, another version may compute otherwise.
_NUM_CHECKED = 8
_FULL_TOLERANCE, _HALF_TOLERANCE = 1e-3, 5e-2
# Evaluated, not trained: no gradients need memory.
_LEAST_BATCH = 64

_PRECISIONS: dict[str, torch.dtype | None] = {
    "32-true": None, "32": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16,
}  # fmt: skip


@dataclass(frozen=True)
class ImageFeatures:
    """Features of some images of a data set.

    Attributes:
        values: float32, shape ``(n, F)``.
        rows: Of the data set's manifest, n of them.
        num_computed: Images that were not kept already.
        seconds: That it took.
    """

    values: Features
    rows: Sequence[int]
    num_computed: int
    seconds: float

    @property
    def store(self) -> FeatureStore:
        """The features as a loader takes them."""
        return FeatureStore(self.values, self.rows, self.num_computed)


def check_precision(precision: str) -> None:
    """Refuse a precision of the trainer in which features are not computed.

    Raises:
        ConfigError: Naming it.
    """
    if precision not in _PRECISIONS:
        raise ConfigError(
            f"trainer.precision={precision}: features are computed in {', '.join(_PRECISIONS)}. Set one of "
            "these, or solver=gradient solver.caches_features=false."
        )


def embed_images(
    classifier: Classifier,
    images: ImageRows,
    rows: Sequence[int],
    *,
    batch_size: int,
    device: str,
    show_progress: bool = True,
) -> Features:
    """Return the pooled features of images in 32-bit precision, shape ``(N, F)``.

    Arguments are those of :func:`cxrlab.runs.predict.predict_images`, and so are its errors.

    Raises:
        ConfigError: If the network does not tell its features from its head, too.
    """
    shown = "Computing features" if show_progress else None
    batches = [
        computed.numpy()
        for _, computed in outputs(
            classifier, classifier.embed, images, rows, batch_size=batch_size, device=device, shown=shown
        )
    ]
    return np.concatenate(batches) if batches else np.zeros((0, num_features(classifier)), np.float32)


def num_features(classifier: Classifier) -> int:
    """Return F; the classifier is left as it was.

    Raises:
        ConfigError: If the network does not tell its features from its head.
    """
    shape = classifier.preprocess
    black = torch.zeros((1, shape.channels, shape.image_size, shape.image_size), dtype=torch.uint8)
    with in_eval_mode(classifier), torch.inference_mode():
        return int(classifier.embed(black.to(classifier.device)).shape[1])


def tells_features(classifier: Classifier) -> bool:
    """Tell whether a classifier's network tells its features from its head; it is left as it was."""
    try:
        num_features(classifier)
    except ConfigError:
        return False
    return True


def image_features(
    classifier: Classifier,
    images: Images,
    rows: Sequence[int],
    *,
    batch_size: int,
    device: str = "auto",
    precision: str = "32-true",
) -> ImageFeatures:
    """Return the features of images of a data set; those that were computed before are read from a file.

    The file lies in the folder of the decoded images. It is found by the network's architecture, the weights
    of all but its head, its preprocessing, the precision and the kind of device; its rows know the content of
    their images. Some of what it holds is computed again and compared. The classifier is left in the modes
    that it was in, on the device.

    Args:
        classifier: Whose network embeds.
        images: Of the data set, decoded.
        rows: Of its manifest, n of them.
        batch_size: Images at a time.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: As the trainer has it: ``32-true``, ``bf16-mixed`` or ``16-mixed``.

    Raises:
        ConfigError: If the network does not tell its features from its head, or there is no such precision.
        TrainingError: If the features are not finite.
    """
    start = time.perf_counter()
    check_precision(precision)
    place = named_device(device)
    classifier.to(place)
    file = FeatureFile(images.cache, feature_key(classifier, precision, place), num_features(classifier))
    positions = images.positions[np.asarray(rows, dtype=np.intp)]
    with in_eval_mode(classifier), file.locked(), _in_precision(precision, place):
        values, is_kept = file.read(positions)
        if is_kept.any() and not _agree(classifier, images, rows, values, is_kept, place, precision):
            log.warning(
                "The features in %s are not what the network gives now: they are computed again.", file.path
            )
            is_kept[:] = False
        missing = np.flatnonzero(~is_kept)
        is_writable = True
        for first, computed in outputs(
            classifier,
            classifier.embed,
            images,
            [rows[number] for number in missing.tolist()],
            batch_size=max(batch_size, _LEAST_BATCH),
            device=str(place),
            shown="Computing features" if len(missing) else None,
        ):
            chosen = missing[first : first + len(computed)]
            values[chosen] = computed.numpy()
            is_writable = is_writable and _keep(file, positions[chosen], values[chosen])
    return ImageFeatures(values, list(rows), len(missing), round(time.perf_counter() - start, 2))


def _keep(file: FeatureFile, positions: npt.NDArray[np.intp], values: Features) -> bool:
    try:
        file.write(positions, values)
    except OSError as error:  # a full disk, or a cache that others made: the next run is only slower
        log.warning("Features are not kept in %s: %s", file.path, error)
        return False
    return True


def _agree(
    classifier: Classifier,
    images: Images,
    rows: Sequence[int],
    values: Features,
    is_kept: npt.NDArray[np.bool_],
    device: torch.device,
    precision: str,
) -> bool:
    """Tell whether a few of the kept features are what the network gives now."""
    kept = np.flatnonzero(is_kept)
    sample = kept[:: max(1, len(kept) // _NUM_CHECKED)][:_NUM_CHECKED]
    chosen = [rows[number] for number in sample.tolist()]
    ((_, computed),) = outputs(
        classifier, classifier.embed, images, chosen, batch_size=len(chosen), device=str(device), shown=None
    )
    now, before = computed.numpy(), values[sample]
    tolerance = _FULL_TOLERANCE if _PRECISIONS[precision] is None else _HALF_TOLERANCE
    return bool(np.abs(now - before).max() <= tolerance * np.sqrt(np.square(now).mean()))


def feature_key(classifier: Classifier, precision: str, device: torch.device) -> str:
    """Return digits that depend on all that features depend on, but for the images.

    Args:
        classifier: The weights of its network's head do not count.
        precision: Of the trainer.
        device: Its kind counts: a GPU rounds otherwise than a CPU.
    """
    network, preprocess = classifier.network, classifier.preprocess
    described = [
        _VERSION, network.title, network.arguments(), precision, device.type, preprocess.normalize,
        preprocess.resize, preprocess.image_size, preprocess.channels,
    ]  # fmt: skip
    digest = hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode())
    of_head = {id(parameter) for parameter in network.head_parameters()}
    for module in (network, preprocess):
        for name, tensor in _tensors(module):
            if id(tensor) not in of_head:
                digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
                content = tensor.detach().cpu().contiguous().reshape(-1)
                digest.update(content.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(), *module.named_buffers()]


def _in_precision(precision: str, device: torch.device) -> AbstractContextManager[object]:
    dtype = _PRECISIONS[precision]
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)
