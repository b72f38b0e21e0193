"""Exponential moving average (EMA) of the trained parameters."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


def ramped_decay(decay: float, step: int) -> float:
    """Return min(decay, (1 + step) / (10 + step)), step = 0 for the first update, as diffusers' EMAModel.

    Without the ramp an average of decay 0.9999 is still 95 % initial weights after 500 updates.
    """
    return min(decay, (1 + step) / (10 + step))


class EMA:
    """Moving average of some parameters by name; the frozen base is not copied.

    Own code beside diffusers.training_utils.EMAModel, whose first update has decay 0 and drops the initial weights,
    whose state has no names, and which swaps weights with a second copy of all of them.

    Attributes:
        average: name -> tensor like the parameter.
        step: number of updates so far.
    """

    def __init__(self, parameters: Mapping[str, Tensor], decay: float) -> None:
        self.decay = decay
        self.step = 0
        self.average = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    @torch.no_grad()
    def update(self, parameters: Mapping[str, Tensor]) -> None:
        """Set average <- d average + (1 - d) parameter, with the ramped decay d."""
        decay = ramped_decay(self.decay, self.step)
        values = [parameters[name].detach() for name in self.average]
        torch._foreach_lerp_(list(self.average.values()), values, 1 - decay)
        self.step += 1

    @contextmanager
    def applied(self, parameters: Mapping[str, Tensor]) -> Iterator[None]:
        """Within the context the parameters hold the average; after it their own values, to the bit.

        Parameter and average are swapped one tensor at a time: no second copy of all of them is made.
        """
        self._swap(parameters)
        try:
            yield
        finally:
            self._swap(parameters)

    @torch.no_grad()
    def _swap(self, parameters: Mapping[str, Tensor]) -> None:
        for name, average in self.average.items():
            own = parameters[name].detach().clone()
            parameters[name].copy_(average)
            average.copy_(own)
