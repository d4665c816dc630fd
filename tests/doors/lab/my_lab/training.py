from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor, nn


class CountEpochs(pl.Callback):
    """Writes how many epochs were trained."""

    def __init__(self, path: str) -> None:
        self.path = path

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        Path(self.path).write_text(str(trainer.current_epoch))


class SignDescent(torch.optim.Optimizer):
    """Goes along the sign of the gradient."""

    def __init__(self, params, lr: float = 1e-3) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.add_(parameter.grad.sign(), alpha=-group["lr"])
        return loss


def halving(optimizer: torch.optim.Optimizer, num_steps: int, num_epochs: int) -> dict:
    """Halve the rate after each epoch."""
    return {"scheduler": torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5), "interval": "epoch"}


class Noise(nn.Module):
    """Adds grey noise to a batch of uint8 images, drawn from the batch's own generator."""

    def __init__(self, amount: float = 5.0) -> None:
        super().__init__()
        self.amount = amount

    def forward(self, images: Tensor, generator: torch.Generator) -> Tensor:
        noise = self.amount * torch.randn(images.shape, generator=generator, device=images.device)
        return (images.float() + noise).clamp(0, 255).to(images.dtype)


class LabLogger(CSVLogger):
    """A logger of the lab's own."""
