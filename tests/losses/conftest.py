from collections.abc import Callable

import pytest
import torch

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Check = Callable[[Loss, torch.Tensor, torch.dtype], None]


@pytest.fixture
def stays_finite_at_extremes() -> Check:
    """Check that logits of 200 and -200 give a finite loss and gradient, and a loss of 0 if all is unknown."""

    def check(loss: Loss, targets: torch.Tensor, dtype: torch.dtype) -> None:
        logits = torch.tensor([[200.0, -200.0], [200.0, -200.0]], dtype=dtype, requires_grad=True)
        value = loss(logits, targets)
        value.backward()
        assert value.dtype == torch.float32
        assert bool(torch.isfinite(value))
        assert logits.grad is not None
        assert bool(torch.isfinite(logits.grad).all())
        assert (float(value.detach()) == 0) == bool(targets.isnan().all())

    return check
