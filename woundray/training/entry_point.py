"""The training loop's door: what is sent to other processes, light enough that those who only pass it on stay light."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from woundray.config import Config

if TYPE_CHECKING:
    from woundray.training.distributed import DistributedContext


Report = Callable[[dict[str, float], Path], None]
"""Told the metrics of an epoch and its checkpoint, after both are on disk."""


class Loop(Protocol):
    """A training loop. Every rank calls `report` once an epoch: Ray waits for all, and takes rank 0's."""

    def __call__(
        self, config: Config, *, precomputed: Path, output: Path, context: "DistributedContext", report: Report
    ) -> None: ...


def train(config: Config, *, precomputed: Path, output: Path, context: "DistributedContext", report: Report) -> None:
    """`woundray.training.loop.train`, imported with torch and diffusers where it runs and nowhere else.

    Each trial has a driver and a controller that only hand the loop to its workers.
    """
    from woundray.training import loop

    loop.train(config, precomputed=precomputed, output=output, context=context, report=report)
