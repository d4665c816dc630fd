"""Test-time augmentation: fixed views of an image whose probabilities are averaged."""

import difflib
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cxrlab.augment.geometry import inverse_matrices, resample
from cxrlab.errors import ConfigError

_ZOOM = 1.1
_SHIFT = 0.05  # of the side
_TURN = math.radians(5.0)


def _moved(
    zoom: float = 1.0, right: float = 0.0, down: float = 0.0, clockwise: float = 0.0
) -> Callable[[Tensor], Tensor]:
    """Return what zooms, turns (in radians) and shifts (by fractions of the side) all images alike."""

    def move(images: Tensor) -> Tensor:
        size, device = images.shape[0], images.device
        height, width = images.shape[-2:]
        matrices = inverse_matrices(
            is_flipped=torch.zeros(size, dtype=torch.bool, device=device),
            zoom=(torch.full((size,), zoom, device=device),) * 2,
            shear=torch.zeros(size, device=device),
            angle=torch.full((size,), clockwise, device=device),
            shift=(
                torch.full((size,), right * width, device=device),
                torch.full((size,), down * height, device=device),
            ),
        )
        with torch.autocast(device.type, enabled=False):
            return resample(images.to(torch.float32), matrices, fill="border", fill_value=0.0)

    return move


_VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda images: images,
    "flip": lambda images: images.flip(-1),
    "zoom_in": _moved(zoom=_ZOOM),
    "zoom_out": _moved(zoom=1.0 / _ZOOM),
    "shift_left": _moved(right=-_SHIFT),
    "shift_right": _moved(right=_SHIFT),
    "shift_up": _moved(down=-_SHIFT),
    "shift_down": _moved(down=_SHIFT),
    "rotate_left": _moved(clockwise=-_TURN),
    "rotate_right": _moved(clockwise=_TURN),
}


def check_views(views: Sequence[str]) -> list[str]:
    """Return the names of views as a list.

    Raises:
        ConfigError: If there are none, one is unknown, or one stands twice.
    """
    names = list(views)
    if not names:
        raise ConfigError("views=[] leaves nothing to evaluate; views=[identity] is the image as it is.")
    for name in names:
        if name not in _VIEWS:
            near = difflib.get_close_matches(name, _VIEWS, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ConfigError(f"views={names}: {name!r} is none of {', '.join(_VIEWS)}.{hint}")
    if len(set(names)) < len(names):
        raise ConfigError(f"views={names} names a view twice, which would give it twice the weight.")
    return names


def view(images: Tensor, name: str) -> Tensor:
    """Return one view of images.

    Args:
        images: Values 0 to 255, uint8 or float, shape ``(B, C, H, W)``.
        name: ``identity``; ``flip`` (left to right); ``zoom_in`` and ``zoom_out`` by a tenth; ``shift_left``,
            ``shift_right``, ``shift_up`` and ``shift_down`` by a twentieth of the side; ``rotate_left`` and
            ``rotate_right`` by 5 degrees. Beyond the border its nearest pixel is repeated.

    Returns:
        The same shape; float32 where the image was resampled.

    Example:
        >>> view(torch.tensor([[[[1, 2, 3]]]]), "flip").flatten()
        tensor([3, 2, 1])
    """
    return _VIEWS[name](images)
