"""Work of one worker of a run, inside Ray Train."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from woundray.config import Config
from woundray.errors import NonFiniteError, UserError
from woundray.system.shared_files import wait_until_visible
from woundray.training.entry_point import Loop

CHECKPOINT, METRICS = "checkpoint_folder", "metrics"
"""Keys of the epoch's folder, and of all that the loop reported, among the values that go through Ray."""

FAILURE_FILE = "failure.json"
"""In a run's folder, while it is not tried again: why, and whether it diverged, which no later try would change."""


@dataclass(frozen=True)
class Failure:
    """Reason that a run would fail in the same way when it is tried again at once: divergence, or a user's mistake.

    Attributes:
        reason: in one line.
        diverged: it would also fail at any later time; a mistake may be mended.
    """

    reason: str
    diverged: bool

    def write(self, output: Path, rank: int) -> None:
        """Writes it into a run's folder, beside and renamed into place."""
        beside = output / f".{FAILURE_FILE}.{rank}"
        beside.write_text(json.dumps(asdict(self)), encoding="utf-8")
        beside.replace(output / FAILURE_FILE)

    @classmethod
    def read(cls, output: Path) -> "Failure | None":
        """That of a run's folder; None: there is none."""
        file = output / FAILURE_FILE
        return cls(**json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None


def work_on(
    config: Config,
    loop: Loop,
    precomputed: Path,
    output: Path,
    last_reported: Callable[[], int] | None,
    shared: Mapping[str, str],
) -> dict[str, Any]:
    """One worker's part of a run: reports what nobody has heard of yet, and trains.

    Args:
        last_reported: see `woundray.ray_cluster.torch_trainer.fit`.
        shared: files of `precomputed`, name -> `woundray.system.checksums.fingerprint` where they were written.

    Returns:
        The last report.
    """
    import ray.train
    import ray.train.torch
    import torch

    from woundray.training.distributed import DistributedContext
    from woundray.training.throughput import usage

    hardware, ray_context = config.hardware, ray.train.get_context()
    torch.set_num_threads(hardware.threads or math.ceil(hardware.cpus_per_worker))
    device = ray.train.torch.get_device()
    context = DistributedContext(
        rank=ray_context.get_world_rank(), world_size=ray_context.get_world_size(), device=device
    )
    last: dict[str, Any] = {}

    def pass_on(metrics: dict[str, float], checkpoint: Path, used: dict[str, float]) -> None:
        assert all(map(math.isfinite, metrics.values())), metrics  # Tune would end the whole study
        last.clear()
        last.update({**metrics, **used, METRICS: metrics, CHECKPOINT: str(checkpoint.absolute())})
        ray.train.report(dict(last))

    def report(metrics: dict[str, float], checkpoint: Path) -> None:
        pass_on(metrics, checkpoint, usage(metrics, config, context))

    for name, expected in shared.items():
        wait_until_visible(precomputed / name, expected)
    # The listener may have died while the loop went on. Checkpoints may be gone: only the history is read
    for entry in context.from_first(_unreported(output, last_reported) if context.is_first else []):
        pass_on(entry, output / f"epoch_{int(entry['epoch']):04d}", {})
    try:
        loop(config, precomputed=precomputed, output=output, context=context, report=report)
    except (UserError, NonFiniteError) as error:
        Failure(str(error), isinstance(error, NonFiniteError)).write(output, context.rank)
        raise
    return last


def _unreported(output: Path, last_reported: Callable[[], int] | None) -> list[dict[str, float]]:
    """Epochs on disk that who listens does not have.

    The last one is always among them: Tune needs one report, and a second one of an epoch does no harm.
    """
    from woundray.training.checkpoint import newest_checkpoint, read_progress

    newest = newest_checkpoint(output)
    if newest is None:
        return []
    history = read_progress(newest).history
    known = history[-1]["epoch"] if last_reported is None else last_reported()
    return [entry for entry in history if entry["epoch"] > known] or history[-1:]
