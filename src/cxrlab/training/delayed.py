"""A value on its way from the device, to be looked at later: a GPU that is waited for has nothing to do."""

import torch
from torch import Tensor


class Delayed:
    """A copy of a small tensor on the CPU, which starts now and is waited for where it is read.

    Args:
        value: On any device.
    """

    def __init__(self, value: Tensor) -> None:
        self._copy = value.detach().to("cpu", non_blocking=value.is_cuda)
        self._is_there: torch.cuda.Event | None = None
        if value.is_cuda:
            self._is_there = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._is_there.record()

    def read(self) -> Tensor:
        """Return the copy, once all that was queued before it is done."""
        if self._is_there is not None:
            self._is_there.synchronize()
        return self._copy
