"""Training function of one Ray Train worker: reports the epochs of an earlier attempt, then runs the training loop."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from woundray.config import Config
from woundray.errors import NonFiniteError, UserError
from woundray.system.shared_files import wait_until_visible
from woundray.training.entry_point import TrainLoop

CHECKPOINT, METRICS = "checkpoint_folder", "metrics"
"""Keys of a report to Ray: the epoch's folder, and the metrics as the loop reported them."""

FAILURE_FILE = "failure.json"
"""File in a run's folder: reason of a failure that an immediate retry would repeat; removed before the next attempt."""


@dataclass(frozen=True)
class RunSetup:
    """Configuration, data and folders of one training run.

    Attributes:
        config: configuration with a number of GPUs (see `woundray.ray_cluster.torch_trainer.resolve_gpus`).
        loop: training loop; it is pickled to the workers.
        precomputed: folder of the precomputed data.
        output: folder of the run, with its checkpoints.
        name: name of the run, the same when it is resumed; Ray's dashboard shows it.
        storage: folder in which Ray keeps the state of the run.
    """

    config: Config
    loop: TrainLoop
    precomputed: Path
    output: Path
    name: str
    storage: Path


@dataclass(frozen=True)
class Failure:
    """Reason that a run would fail again if it were retried at once: divergence, or a user's mistake.

    Attributes:
        reason: in one line.
        diverged: it would also fail at any later time; a mistake may be mended.
    """

    reason: str
    diverged: bool

    def write(self, output: Path, rank: int) -> None:
        """Write the failure into a run's folder, atomically."""
        temporary = output / f".{FAILURE_FILE}.{rank}"
        temporary.write_text(json.dumps(asdict(self)), encoding="utf-8")
        temporary.replace(output / FAILURE_FILE)

    @classmethod
    def read(cls, output: Path) -> "Failure | None":
        """Read the failure of a run's folder; None: there is none."""
        file = output / FAILURE_FILE
        return cls(**json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None


def run_worker(
    setup: RunSetup, last_reported: Callable[[], int] | None, fingerprints: Mapping[str, str]
) -> dict[str, Any]:
    """Report the epochs that are on disk and not yet reported, then run the training loop.

    Args:
        setup: the run, with absolute folders.
        last_reported: see `woundray.ray_cluster.torch_trainer.fit`.
        fingerprints: file of the precomputed data -> its `woundray.system.checksums.fingerprint`.

    Returns:
        The last report.
    """
    import ray.train
    import ray.train.torch
    import torch

    from woundray.training.distributed import DistributedContext
    from woundray.training.throughput import usage

    config, output = setup.config, setup.output
    hardware, ray_context = config.hardware, ray.train.get_context()
    torch.set_num_threads(hardware.threads or math.ceil(hardware.cpus_per_worker))
    device = ray.train.torch.get_device()
    context = DistributedContext(
        rank=ray_context.get_world_rank(), world_size=ray_context.get_world_size(), device=device
    )
    last: dict[str, Any] = {}

    def send(metrics: dict[str, float], checkpoint: Path, used: dict[str, float]) -> None:
        assert all(map(math.isfinite, metrics.values())), metrics  # Tune would end the whole study
        last.clear()
        last.update({**metrics, **used, METRICS: metrics, CHECKPOINT: str(checkpoint.absolute())})
        ray.train.report(dict(last))

    def report(metrics: dict[str, float], checkpoint: Path) -> None:
        send(metrics, checkpoint, usage(metrics, config, context))

    for name, expected in fingerprints.items():
        wait_until_visible(setup.precomputed / name, expected)
    # The process that records reports may have died earlier. Checkpoints may be gone: only the history is read
    for entry in context.broadcast(_unreported(output, last_reported) if context.is_main_process else []):
        send(entry, output / f"epoch_{int(entry['epoch']):04d}", {})
    try:
        setup.loop(config, precomputed=setup.precomputed, output=output, context=context, report=report)
    except (UserError, NonFiniteError) as error:
        Failure(str(error), isinstance(error, NonFiniteError)).write(output, context.rank)
        raise
    return last


def _unreported(output: Path, last_reported: Callable[[], int] | None) -> list[dict[str, float]]:
    """Return the epochs of the newest checkpoint's history that were not yet reported, and always the last one.

    Tune needs at least one report; a second report of an epoch changes nothing.
    """
    from woundray.training.checkpoint import newest_checkpoint, read_progress

    newest = newest_checkpoint(output)
    if newest is None:
        return []
    history = read_progress(newest).history
    known = history[-1]["epoch"] if last_reported is None else last_reported()
    return [entry for entry in history if entry["epoch"] > known] or history[-1:]
