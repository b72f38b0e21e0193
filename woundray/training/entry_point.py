"""Worker entry point of the training loop; imports torch only in the worker."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from woundray.config import Config

if TYPE_CHECKING:
    from woundray.training.distributed import DistributedContext


ReportCallback = Callable[[dict[str, float], Path], None]
"""Called with the metrics of an epoch and its checkpoint, after both are on disk."""


class TrainLoop(Protocol):
    """A training loop. Every rank calls `report` once an epoch: Ray waits for all, and takes rank 0's."""

    def __call__(
        self,
        config: Config,
        *,
        precomputed: Path,
        output: Path,
        context: "DistributedContext",
        report: ReportCallback,
    ) -> None: ...


def train(
    config: Config, *, precomputed: Path, output: Path, context: "DistributedContext", report: ReportCallback
) -> None:
    """Run `woundray.training.loop.train`; torch and diffusers are imported here and not with this module.

    Each trial has a driver and a controller that only pass the loop on to its workers.
    """
    from woundray.training import loop

    loop.train(config, precomputed=precomputed, output=output, context=context, report=report)
