"""Losses and gradient norms of an epoch's updates, which stay on the device until several are looked at together.

Each look makes the host wait for the device, and the device is then idle while the host prepares the next kernels.
"""

import math

import torch
from torch import Tensor

from woundray.errors import NonFiniteError
from woundray.training.distributed import DistributedContext

LOOK_EVERY = 16
"""Updates on a GPU that a loss which is not finite may go unseen. On CPUs each is looked at: nothing waits there."""
FIRST_LOSS_SCALE = 2.0**16
LEAST_LOSS_SCALE = 2.0**-8
"""A gradient that overflows at this scale, after 24 halvings, does not do so because of the scale."""
_NAMES = ("denoising loss", "perceptual loss", "gradient's norm")


def make_scaler(precision: str, device: torch.device) -> torch.amp.GradScaler:
    """The loss scale of fp16, in which gradients of small activations would be 0; in other formats it does nothing.

    It is halved, and the update left out, where a gradient overflows; it is doubled after 2,000 updates without.
    """
    return torch.amp.GradScaler(device.type, init_scale=FIRST_LOSS_SCALE, enabled=precision == "fp16")


class LossMonitor:
    """Watches over the updates of one epoch on one rank.

    Args:
        scaler: where it scales, updates that are not finite were left out, and are borne down to LEAST_LOSS_SCALE.
    """

    def __init__(self, epoch: int, context: DistributedContext, scaler: torch.amp.GradScaler) -> None:
        self._epoch, self._place, self._scaler = epoch, context, scaler
        self._every = 1 if context.device.type == "cpu" else LOOK_EVERY
        self._unseen: list[Tensor] = []
        self._updates = 0
        self._left_out = 0
        self._sums = torch.zeros(5, dtype=torch.float64)  # both losses, how many; the norm, how many

    def add(self, losses: Tensor, norm: Tensor) -> None:
        """Takes note of an update: this rank's parts of the losses, (2,), and the gradient's norm, all on the device.

        Raises:
            NonFiniteError: as `look`, which is called every so many updates.
        """
        self._unseen.append(torch.cat([losses, norm.detach().double().view(1)]))
        if len(self._unseen) == self._every:
            self.look()

    def look(self) -> None:
        """Looks at all updates so far; waits for the device.

        Raises:
            NonFiniteError: naming epoch and update, and what of it is infinite or not a number.
        """
        if not self._unseen:
            return
        rows, self._unseen = torch.stack(self._unseen).cpu(), []
        for row in rows:
            self._updates += 1
            denoising, perceptual, norm = row.tolist()
            if not all(map(math.isfinite, (denoising, perceptual, norm))):
                self._bear(dict(zip(_NAMES, (denoising, perceptual, norm), strict=True)))
            if math.isfinite(denoising + perceptual):
                self._sums += torch.tensor([denoising, perceptual, 1.0, 0.0, 0.0])
            if math.isfinite(norm):
                self._sums += torch.tensor([0.0, 0.0, 0.0, norm / self._place.world_size, 1.0])

    def _bear(self, values: dict[str, float]) -> None:
        """Counts an update that fp16 left out, or raises NonFiniteError."""
        name, value = next((name, value) for name, value in values.items() if not math.isfinite(value))
        said = f"epoch {self._epoch}, step {self._updates}: the {name} is {value}"
        if not self._scaler.is_enabled():
            raise NonFiniteError(said)
        self._left_out += 1
        scale = self._scaler.get_scale()
        if scale < LEAST_LOSS_SCALE:
            raise NonFiniteError(f"{said} at a loss scale of {scale:.2g}, too")

    def means(self) -> dict[str, float]:
        """Looks, and gives the means over the epoch's updates and all ranks; of fp16 those of finite values.

        With fp16 also `skipped_updates`, how many were left out. A loss that was finite in no update is nan.
        """
        self.look()
        denoising, perceptual, losses, norm, norms = self._place.total(self._sums).tolist()
        ranks = self._place.world_size
        found = {
            "train_loss": denoising / (losses / ranks) if losses else math.nan,
            "perceptual_loss": perceptual / (losses / ranks) if losses else math.nan,
            "gradient_norm": norm / (norms / ranks) if norms else 0.0,
        }
        return found | ({"skipped_updates": float(self._left_out)} if self._scaler.is_enabled() else {})
