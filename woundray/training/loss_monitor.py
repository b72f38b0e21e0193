"""Losses and gradient norms of an epoch's updates, checked for NaN and averaged; and the loss scale of fp16.

They stay on the device and are fetched several updates at a time: each fetch makes the host wait for the device, and
the device is then idle while the host prepares the next kernels.
"""

import math

import torch
from torch import Tensor

from woundray.errors import NonFiniteError
from woundray.training.distributed import DistributedContext

FETCH_EVERY = 16
"""Updates on a GPU between two fetches: a loss that is not finite is found that late. On CPUs each is fetched."""
INITIAL_LOSS_SCALE = 2.0**16
MIN_LOSS_SCALE = 2.0**-8
"""A gradient that overflows at this scale, after 24 halvings, does not do so because of the scale."""
_NAMES = ("denoising loss", "perceptual loss", "gradient's norm")


def make_scaler(precision: str, device: torch.device) -> torch.amp.GradScaler:
    """Make the loss scaler of fp16, in which gradients of small activations would be 0; in other formats it is off.

    The scale is halved, and the update skipped, where a gradient overflows; it is doubled after 2,000 updates without.
    """
    return torch.amp.GradScaler(device.type, init_scale=INITIAL_LOSS_SCALE, enabled=precision == "fp16")


class LossMonitor:
    """Checks and averages the updates of one epoch on one rank.

    Args:
        scaler: where it is on, updates that are not finite were skipped; they are no error down to MIN_LOSS_SCALE.
    """

    def __init__(self, epoch: int, context: DistributedContext, scaler: torch.amp.GradScaler) -> None:
        self._epoch, self._context, self._scaler = epoch, context, scaler
        self._fetch_every = 1 if context.device.type == "cpu" else FETCH_EVERY
        self._on_device: list[Tensor] = []
        self._updates = 0
        self._skipped_updates = 0
        self._sums = torch.zeros(5, dtype=torch.float64)  # both losses, how many; the norm, how many

    def add(self, losses: Tensor, norm: Tensor) -> None:
        """Add an update: this rank's parts of the losses, (2,), and the gradient's norm, all on the device.

        Raises:
            NonFiniteError: as `fetch`, which is called every FETCH_EVERY updates.
        """
        self._on_device.append(torch.cat([losses, norm.detach().double().view(1)]))
        if len(self._on_device) == self._fetch_every:
            self.fetch()

    def fetch(self) -> None:
        """Fetch all updates so far from the device, and check them; waits for the device.

        Raises:
            NonFiniteError: names epoch, update, and the value that is infinite or NaN.
        """
        if not self._on_device:
            return
        rows, self._on_device = torch.stack(self._on_device).cpu(), []
        for row in rows:
            self._updates += 1
            denoising, perceptual, norm = row.tolist()
            self._check(dict(zip(_NAMES, (denoising, perceptual, norm), strict=True)))
            if math.isfinite(denoising + perceptual):
                self._sums += torch.tensor([denoising, perceptual, 1.0, 0.0, 0.0])
            if math.isfinite(norm):
                self._sums += torch.tensor([0.0, 0.0, 0.0, norm / self._context.world_size, 1.0])

    def _check(self, values: dict[str, float]) -> None:
        """Count an update that fp16 skipped, or raise NonFiniteError, where a value is not finite."""
        bad = next((name for name, value in values.items() if not math.isfinite(value)), None)
        if bad is None:
            return
        message = f"epoch {self._epoch}, step {self._updates}: the {bad} is {values[bad]}"
        if not self._scaler.is_enabled():
            raise NonFiniteError(message)
        self._skipped_updates += 1
        scale = self._scaler.get_scale()
        if scale < MIN_LOSS_SCALE:
            raise NonFiniteError(f"{message} at a loss scale of {scale:.2g}, too")

    def means(self) -> dict[str, float]:
        """Fetch, and return means over the epoch's updates and all ranks; of fp16 those of finite values.

        With fp16 also `skipped_updates`. A loss that was finite in no update is NaN.
        """
        self.fetch()
        denoising, perceptual, losses, norm, norms = self._context.all_reduce_sum(self._sums).tolist()
        ranks = self._context.world_size
        means = {
            "train_loss": denoising / (losses / ranks) if losses else math.nan,
            "perceptual_loss": perceptual / (losses / ranks) if losses else math.nan,
            "gradient_norm": norm / (norms / ranks) if norms else 0.0,
        }
        return means | ({"skipped_updates": float(self._skipped_updates)} if self._scaler.is_enabled() else {})
