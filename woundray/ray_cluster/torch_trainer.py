"""Ray Train's TorchTrainer for one run: workers, retries and resources. No other module starts the loop on workers."""

import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from woundray.config import Config
from woundray.errors import UserError
from woundray.ray_cluster.actor_names import actors_named
from woundray.ray_cluster.nodes import Resources
from woundray.ray_cluster.train_worker import CHECKPOINT, FAILURE_FILE, METRICS, Failure, RunSetup, run_worker
from woundray.system.checksums import fingerprint
from woundray.system.storage import check_not_lost
from woundray.tracking.journal import EpochReported

if TYPE_CHECKING:
    from ray.train import UserCallback

_KILL_DELAY_S = 2.0  # Ray kills a controller 0.2 s after its driver has ended, on a busy machine later
_ERROR_LINE = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt|Warning)\b")
_GPU_PARTS = 10_000  # Ray counts GPUs in parts of this size
_ADVICE = "For further information visit"  # a line of pydantic's after each error


class RunFailed(Exception):
    """A run ended in an error and is not retried.

    Attributes:
        reason: the error in one line.
        details: the error with its tracebacks.
        permanent: the run diverged, and would fail in the same way at any later time.
    """

    def __init__(self, reason: str, details: str, permanent: bool) -> None:
        super().__init__(reason, details, permanent)
        self.reason, self.details, self.permanent = reason, details, permanent

    def __str__(self) -> str:
        return self.reason


def error_line(text: str) -> str:
    """Return the last error of a traceback in one line; its class without the name of the module."""
    lines = [line for line in text.splitlines() if line.strip() and _ADVICE not in line]
    starts = [index for index, line in enumerate(lines) if _ERROR_LINE.match(line)]
    error = lines[starts[-1] :] if starts else lines[-1:]
    error[:1] = [re.sub(r"^[\w.]*\.(?=\w+\b)", "", line) for line in error[:1]]
    return " ".join(" ".join(error).split())


def resolve_gpus(config: Config, resources: Resources) -> Config:
    """Return the configuration with `hardware.gpus_per_worker: auto` replaced by a number.

    Raises:
        UserError: the workers of one run do not fit on the cluster.
    """
    hardware = config.hardware
    given = hardware.gpus_per_worker
    gpus = equal_share(hardware.workers, resources.gpus) if given == "auto" else given
    if gpus > 1 and gpus != math.floor(gpus):
        raise UserError(
            f"hardware.gpus_per_worker: {gpus:g} is no whole number, and more than one GPU can't be "
            "shared: give 1, 2 or more, or a part of one"
        )
    if gpus > 0 and _workers_that_fit(gpus, resources.gpus) < hardware.workers:
        raise UserError(
            f"hardware.gpus_per_worker: {hardware.workers} x {gpus:g} GPUs are more than the "
            f"{resources.gpus:g} of the cluster hold: set a smaller share, or auto"
        )
    if hardware.workers * hardware.cpus_per_worker > resources.cpus:
        raise UserError(
            f"hardware.workers: {hardware.workers} x {hardware.cpus_per_worker:g} CPUs are more than the "
            f"{resources.cpus:g} of the cluster: set fewer workers or a smaller hardware.cpus_per_worker"
        )
    return config.with_values({"hardware.gpus_per_worker": gpus})


def equal_share(workers: int, gpus: float) -> float:
    """Return the GPUs of each worker of one run: 1, or a part of one GPU where workers share GPUs; 0: there is none."""
    if gpus < 1:
        return 0.0
    workers_per_gpu = math.ceil(workers / math.floor(gpus))
    return 1.0 if workers_per_gpu == 1 else math.floor(_GPU_PARTS / workers_per_gpu) / _GPU_PARTS


def _workers_that_fit(share: float, gpus: float) -> int:
    """Return the number of workers that fit on the GPUs: a share below 1 is of one GPU, larger ones are whole GPUs."""
    if share < 1:
        return math.floor(gpus) * math.floor(1 / share + 1e-9)
    return math.floor(gpus / share)


def runs_at_once(config: Config, resources: Resources) -> int:
    """Return the number of runs that fit on the cluster at one time, at least 1; `resolve_gpus` comes first."""
    hardware = config.hardware
    assert hardware.gpus_per_worker != "auto", "resolve_gpus() comes first"
    runs = resources.cpus / (hardware.workers * hardware.cpus_per_worker)
    if hardware.gpus_per_worker > 0:
        runs = min(runs, _workers_that_fit(hardware.gpus_per_worker, resources.gpus) / hardware.workers)
    return max(1, math.floor(runs + 1e-9))


def fit(
    setup: RunSetup,
    *,
    callbacks: Sequence["UserCallback"] = (),
    last_reported: Callable[[], int] | None = None,
) -> dict[str, Any]:
    """Run the training loop on `hardware.workers` workers and wait for its end.

    Workers and Ray Train's controller are replaced up to `study.max_failures` times when they die; the loop then
    resumes from the run's folder. A user's mistake and a loss that is not a number end the run at once.

    Args:
        setup: the run.
        callbacks: Ray Train callbacks of the run.
        last_reported: returns the last epoch that was recorded; called whenever workers start. Later epochs that are
            on disk are reported first. None: reports are not recorded.

    Returns:
        The last report of rank 0, with the keys that `epoch_event` reads; empty if there was none.

    Raises:
        RunFailed: the loop raised, or workers or the controller died too often.
    """
    from ray.exceptions import RayError
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError, UserCallback
    from ray.train.torch import TorchConfig, TorchTrainer

    config, name, hardware = setup.config, setup.name, setup.config.hardware
    gpus = hardware.gpus_per_worker
    assert gpus != "auto", "resolve_gpus() comes first"
    precomputed, output = (
        setup.precomputed.absolute(),
        setup.output.absolute(),
    )  # workers have another working directory
    setup = replace(setup, precomputed=precomputed, output=output)
    output.mkdir(parents=True, exist_ok=True)
    (output / FAILURE_FILE).unlink(missing_ok=True)  # of an earlier attempt

    files = (file for file in precomputed.iterdir() if file.suffix in (".json", ".safetensors"))
    fingerprints = {file.name: fingerprint(file) for file in files}  # a shared file system may show them late elsewhere

    def train_function() -> Any:  # Ray returns rank 0's value, though its annotation is None
        return run_worker(setup, last_reported, fingerprints)

    class Trainer(TorchTrainer):
        """TorchTrainer without the process that splits Ray Data's data sets: the loop uses none."""

        def _create_default_callbacks(self) -> list[Any]:
            inherited: list[Any] = super()._create_default_callbacks()  # type: ignore[misc]
            return [callback for callback in inherited if type(callback).__name__ != "DatasetsCallback"]

    class BeforeRetry(UserCallback):
        """End a run that would fail again, or whose disk is lost; keep a dying controller from restarting workers.

        Tune stops a trial by ending its driver. Ray kills the workers first, which the controller takes for a failure:
        it would start others, whose resources would never be freed.
        """

        def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
            failure = Failure.read(output)
            if failure is None:
                check_not_lost(output)
                time.sleep(_KILL_DELAY_S)
                failure = Failure.read(output)  # which a shared file system may show late
            if failure is not None:
                raise RuntimeError(failure.reason)

    def trainer() -> Trainer:
        return Trainer(
            train_function,
            # NCCL refuses two ranks on one GPU, and tensors on CPUs; gloo does not
            torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if gpus >= 1 else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=hardware.workers,
                use_gpu=gpus > 0,
                resources_per_worker={"CPU": hardware.cpus_per_worker} | ({"GPU": gpus} if gpus > 0 else {}),
            ),
            run_config=RunConfig(
                name=name,
                storage_path=str(setup.storage.absolute()),
                failure_config=FailureConfig(max_failures=config.study.max_failures),
                callbacks=list[Any]([BeforeRetry(), *callbacks]),
            ),
        )

    for deaths in range(config.study.max_failures + 1):
        try:
            with actors_named(name):
                result: Any = trainer().fit()  # Train V2's result; the annotation is of V1
            last: dict[str, Any] = result.return_value
            return last
        except TrainingFailedError as error:
            failure = Failure.read(output)
            if failure is not None:
                raise RunFailed(failure.reason, str(error), permanent=failure.diverged) from None
            raise RunFailed(error_line(str(error)), str(error), permanent=False) from None
        except RayError as error:  # the controller died, or was killed because memory was full
            if deaths == config.study.max_failures:
                raise RunFailed(_first_line(error), str(error), permanent=False) from None
    raise AssertionError


def _first_line(error: Exception) -> str:
    """Return the first line of an error of Ray's; the rest is advice."""
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"


def epoch_event(trial: str, reported: dict[str, Any]) -> EpochReported:
    """Return the journal's event for a report that came through Ray."""
    metrics = dict(reported[METRICS])
    epoch = int(metrics.pop("epoch"))
    return EpochReported(trial=trial, epoch=epoch, metrics=metrics, checkpoint=Path(reported[CHECKPOINT]))
