"""One run on the workers of a Ray cluster: the only place where the training loop meets Ray Train."""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from woundray.cluster import Resources
from woundray.config import Config
from woundray.errors import UserError
from woundray.tracking.events import EpochReported

if TYPE_CHECKING:
    from ray.train import UserCallback

    from woundray.training.place import Place

Report = Callable[[dict[str, float], Path], None]

CHECKPOINT, METRICS = "checkpoint_folder", "metrics"
"""Keys of the epoch's folder, and of all that the loop reported, among the values that go through Ray."""
PICTURES_PER_S, GPU_MEMORY = "pictures_per_s", "gpu_memory_gib"
"""Keys of what the epoch took of the machine, see `woundray.training.usage`."""

_KILLED_WITHIN_S = 2.0  # Ray takes 0.2 s from a driver's end to the kill of its controller, a busy machine longer


class Loop(Protocol):
    """A training loop. Every rank calls `report` once an epoch: Ray waits for all, and takes rank 0's."""

    def __call__(self, config: Config, *, materials: Path, output: Path, place: "Place", report: Report) -> None: ...


def settle(config: Config, resources: Resources) -> Config:
    """The configuration with `hardware.gpus_per_worker: auto` made a number.

    Raises:
        UserError: the cluster can not hold the workers of one run.
    """
    hardware = config.hardware
    shared = min(1.0, resources.gpus / hardware.workers)  # more workers than GPUs share them
    gpus: float = shared if hardware.gpus_per_worker == "auto" else hardware.gpus_per_worker
    if hardware.workers * gpus > resources.gpus:
        raise UserError(
            f"hardware.gpus_per_worker: {hardware.workers} x {gpus:g} GPUs are more than the "
            f"{resources.gpus:g} of the cluster: set a smaller share, or auto"
        )
    if hardware.workers * hardware.cpus_per_worker > resources.cpus:
        raise UserError(
            f"hardware.workers: {hardware.workers} x {hardware.cpus_per_worker:g} CPUs are more than the "
            f"{resources.cpus:g} of the cluster: set fewer workers or a smaller hardware.cpus_per_worker"
        )
    return config.with_values({"hardware.gpus_per_worker": gpus})


def runs_at_once(config: Config, resources: Resources) -> int:
    """How many runs of a settled configuration the cluster holds at one time, at least 1."""
    hardware = config.hardware
    assert hardware.gpus_per_worker != "auto", "settle() comes first"
    held = resources.cpus / (hardware.workers * hardware.cpus_per_worker)
    if hardware.gpus_per_worker > 0:
        held = min(held, resources.gpus / (hardware.workers * hardware.gpus_per_worker))
    return max(1, math.floor(held + 1e-9))


def fit(
    config: Config,
    *,
    loop: Loop,
    materials: Path,
    output: Path,
    name: str,
    storage: Path,
    callbacks: Sequence["UserCallback"] = (),
    told: int = 0,
) -> dict[str, Any]:
    """Runs the loop on `hardware.workers` workers and waits for its end.

    A worker that dies is replaced up to `study.max_failures` times; the loop then resumes from `output`.

    Args:
        config: settled configuration (see `settle`).
        loop: the training loop; it is pickled to the workers.
        materials: folder of what all runs of a study share.
        output: the run's own folder.
        name: name of the run, the same when it is resumed.
        storage: folder where Ray keeps the run's state.
        callbacks: Ray Train callbacks of the run.
        told: epochs of the run that are known already; those after it that are on disk are reported first.

    Returns:
        The last report of rank 0 by `epoch_event`'s keys; empty if there was none.

    Raises:
        ray.train.TrainingFailedError: the loop raised, or workers died too often.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig, UserCallback
    from ray.train.torch import TorchConfig, TorchTrainer

    hardware, gpus = config.hardware, config.hardware.gpus_per_worker
    assert gpus != "auto", "settle() comes first"
    materials, output = materials.absolute(), output.absolute()  # workers have their own working directory
    output.mkdir(parents=True, exist_ok=True)

    def work() -> Any:  # Ray brings rank 0's value back, though it asks for a function without one
        return _work(config, loop, materials, output, told)

    class Trainer(TorchTrainer):
        """Without the process that deals out parts of Ray Data's data sets: the loop has none."""

        def _create_default_callbacks(self) -> list[Any]:
            inherited: list[Any] = super()._create_default_callbacks()  # type: ignore[misc]
            return [callback for callback in inherited if type(callback).__name__ != "DatasetsCallback"]

    class Patience(UserCallback):
        """Lets a controller that is about to be killed not start workers again, in a place that nobody would free.

        Tune stops a trial by ending its driver. Ray kills the workers first, which the controller takes for a failure.
        """

        def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
            time.sleep(_KILLED_WITHIN_S)

    trainer = Trainer(
        work,
        # NCCL refuses two ranks on one GPU, gloo does not
        torch_config=TorchConfig(backend="nccl" if gpus >= 1 else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=hardware.workers,
            use_gpu=gpus > 0,
            resources_per_worker={"CPU": hardware.cpus_per_worker} | ({"GPU": gpus} if gpus > 0 else {}),
        ),
        run_config=RunConfig(
            name=name,
            storage_path=str(storage.absolute()),
            failure_config=FailureConfig(max_failures=config.study.max_failures),
            callbacks=list[Any]([Patience(), *callbacks]),
        ),
    )
    result: Any = trainer.fit()  # of Train V2, which its annotation is not
    last: dict[str, Any] = result.return_value
    return last


def _work(config: Config, loop: Loop, materials: Path, output: Path, told: int) -> dict[str, Any]:
    """One worker's part of a run."""
    import ray.train
    import ray.train.torch
    import torch

    from woundray.training.checkpoint import read_progress
    from woundray.training.place import Place
    from woundray.training.usage import usage

    hardware, context = config.hardware, ray.train.get_context()
    torch.set_num_threads(hardware.threads or math.ceil(hardware.cpus_per_worker))
    device = ray.train.torch.get_device()
    place = Place(rank=context.get_world_rank(), world_size=context.get_world_size(), device=device)
    last: dict[str, Any] = {}

    def report(metrics: dict[str, float], checkpoint: Path) -> None:
        last.clear()
        used = usage(metrics, checkpoint, config, place)
        last.update({**metrics, **used, METRICS: metrics, CHECKPOINT: str(checkpoint.absolute())})
        ray.train.report(dict(last))

    # Those who were told may have died while the loop went on. Ray needs one report at least: twice does no harm
    latest = (output / "latest").resolve()
    history = read_progress(latest).history if latest.is_dir() else []
    for entry in history[min(told, len(history) - 1) :] if history else ():
        report(entry, output / f"epoch_{int(entry['epoch']):04d}")

    loop(config, materials=materials, output=output, place=place, report=report)
    return last


def epoch_event(trial: str, reported: dict[str, Any]) -> EpochReported:
    """One report of the loop, out of what Ray made of it."""
    metrics = dict(reported[METRICS])
    epoch = int(metrics.pop("epoch"))
    return EpochReported(trial=trial, epoch=epoch, metrics=metrics, checkpoint=Path(reported[CHECKPOINT]))
