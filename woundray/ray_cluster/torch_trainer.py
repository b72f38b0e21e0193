"""One run on the workers of a Ray cluster: the only place where the training loop meets Ray Train."""

import math
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from woundray.config import Config
from woundray.errors import UserError
from woundray.ray_cluster.actor_names import actors_named
from woundray.ray_cluster.nodes import Resources
from woundray.ray_cluster.train_worker import CHECKPOINT, FAILURE_FILE, METRICS, Failure, work_on
from woundray.system.checksums import fingerprint
from woundray.system.storage import check_not_lost
from woundray.tracking.journal import EpochReported
from woundray.training.entry_point import Loop

if TYPE_CHECKING:
    from ray.train import UserCallback

_KILLED_WITHIN_S = 2.0  # Ray takes 0.2 s from a driver's end to the kill of its controller, a busy machine longer
_ERROR_LINE = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt|Warning)\b")
_SHARES = 10_000  # the parts of a GPU that Ray counts in
_ADVICE = "For further information visit"  # pydantic's, after each error


class RunFailed(Exception):
    """A run ended in an error, and will not go on by itself.

    Attributes:
        reason: the error itself, in one line.
        details: all that is known of it, with tracebacks.
        permanent: it diverged: it would fail in the same way at any later time.
    """

    def __init__(self, reason: str, details: str, permanent: bool) -> None:
        super().__init__(reason, details, permanent)
        self.reason, self.details, self.permanent = reason, details, permanent

    def __str__(self) -> str:
        return self.reason


def error_line(text: str) -> str:
    """The error that a traceback ends with, in one line, without the names of modules before its own."""
    lines = [line for line in text.splitlines() if line.strip() and _ADVICE not in line]
    starts = [place for place, line in enumerate(lines) if _ERROR_LINE.match(line)]
    own = lines[starts[-1] :] if starts else lines[-1:]
    own[:1] = [re.sub(r"^[\w.]*\.(?=\w+\b)", "", line) for line in own[:1]]
    return " ".join(" ".join(own).split())


def resolve_gpus(config: Config, resources: Resources) -> Config:
    """The configuration with `hardware.gpus_per_worker: auto` made a number.

    Raises:
        UserError: the cluster can not hold the workers of one run.
    """
    hardware = config.hardware
    given = hardware.gpus_per_worker
    gpus = equal_share(hardware.workers, resources.gpus) if given == "auto" else given
    if gpus > 1 and gpus != math.floor(gpus):
        raise UserError(
            f"hardware.gpus_per_worker: {gpus:g} is no whole number, and more than one GPU can't be "
            "shared: give 1, 2 or more, or a part of one"
        )
    if gpus > 0 and _held(gpus, resources.gpus) < hardware.workers:
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
    """GPUs of one worker of one run, as many as there are: 1, or a part of one GPU where workers share them."""
    if gpus < 1:
        return 0.0
    on_one = math.ceil(workers / math.floor(gpus))
    return 1.0 if on_one == 1 else math.floor(_SHARES / on_one) / _SHARES


def _held(share: float, gpus: float) -> int:
    """How many workers find a place on so many GPUs: a part of a GPU is of one GPU, more than one are whole ones."""
    if share < 1:
        return math.floor(gpus) * math.floor(1 / share + 1e-9)
    return math.floor(gpus / share)


def runs_at_once(config: Config, resources: Resources) -> int:
    """How many runs of a settled configuration the cluster holds at one time, at least 1."""
    hardware = config.hardware
    assert hardware.gpus_per_worker != "auto", "settle() comes first"
    held = resources.cpus / (hardware.workers * hardware.cpus_per_worker)
    if hardware.gpus_per_worker > 0:
        held = min(held, _held(hardware.gpus_per_worker, resources.gpus) / hardware.workers)
    return max(1, math.floor(held + 1e-9))


def fit(
    config: Config,
    *,
    loop: Loop,
    precomputed: Path,
    output: Path,
    name: str,
    storage: Path,
    callbacks: Sequence["UserCallback"] = (),
    last_reported: Callable[[], int] | None = None,
) -> dict[str, Any]:
    """Runs the loop on `hardware.workers` workers and waits for its end.

    A worker that dies is replaced up to `study.max_failures` times, and so is Ray Train's controller; the loop then
    resumes from `output`. A user's mistake and a loss that is not a number end the run at once.

    Args:
        config: settled configuration (see `resolve_gpus`).
        loop: the training loop; it is pickled to the workers.
        precomputed: folder of what all runs of a study share.
        output: the run's own folder.
        name: name of the run, the same when it is resumed; its actors bear it on Ray's dashboard.
        storage: folder where Ray keeps the run's state.
        callbacks: Ray Train callbacks of the run.
        last_reported: the last epoch that who listens has, asked whenever workers start: epochs after it that are on
            disk are reported first. None: nobody listens.

    Returns:
        The last report of rank 0 by `epoch_event`'s keys; empty if there was none.

    Raises:
        RunFailed: the loop raised, or workers or the controller died too often.
    """
    from ray.exceptions import RayError
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError, UserCallback
    from ray.train.torch import TorchConfig, TorchTrainer

    hardware, gpus = config.hardware, config.hardware.gpus_per_worker
    assert gpus != "auto", "settle() comes first"
    precomputed, output = precomputed.absolute(), output.absolute()  # workers have their own working directory
    output.mkdir(parents=True, exist_ok=True)
    (output / FAILURE_FILE).unlink(missing_ok=True)  # this is another try

    files = (file for file in precomputed.iterdir() if file.suffix in (".json", ".safetensors"))
    shared = {file.name: fingerprint(file) for file in files}  # a worker's machine may see them later than this one

    def work() -> Any:  # Ray brings rank 0's value back, though it asks for a function without one
        return work_on(config, loop, precomputed, output, last_reported, shared)

    class Trainer(TorchTrainer):
        """Without the process that deals out parts of Ray Data's data sets: the loop has none."""

        def _create_default_callbacks(self) -> list[Any]:
            inherited: list[Any] = super()._create_default_callbacks()  # type: ignore[misc]
            return [callback for callback in inherited if type(callback).__name__ != "DatasetsCallback"]

    class BeforeRetry(UserCallback):
        """Ends a run that would fail again, and one without a disk to write to.

        Lets a controller that is about to be killed not start workers again.

        Tune stops a trial by ending its driver. Ray kills the workers first, which the controller takes for a failure:
        it would start others, in a place that nobody would free.
        """

        def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
            failure = Failure.read(output)
            if failure is None:
                check_not_lost(output)
                time.sleep(_KILLED_WITHIN_S)
                failure = Failure.read(output)  # a shared file system may show it late
            if failure is not None:
                raise RuntimeError(failure.reason)

    def trainer() -> Trainer:
        return Trainer(
            work,
            # NCCL refuses two ranks on one GPU, and tensors on CPUs; gloo does not
            torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if gpus >= 1 else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=hardware.workers,
                use_gpu=gpus > 0,
                resources_per_worker={"CPU": hardware.cpus_per_worker} | ({"GPU": gpus} if gpus > 0 else {}),
            ),
            run_config=RunConfig(
                name=name,
                storage_path=str(storage.absolute()),
                failure_config=FailureConfig(max_failures=config.study.max_failures),
                callbacks=list[Any]([BeforeRetry(), *callbacks]),
            ),
        )

    for deaths in range(config.study.max_failures + 1):
        try:
            with actors_named(name):
                result: Any = trainer().fit()  # of Train V2, which its annotation is not
            last: dict[str, Any] = result.return_value
            return last
        except TrainingFailedError as error:
            failure = Failure.read(output)
            if failure is not None:
                raise RunFailed(failure.reason, str(error), permanent=failure.diverged) from None
            raise RunFailed(error_line(str(error)), str(error), permanent=False) from None
        except RayError as error:  # the controller died, or had to go as the machine's memory was full
            if deaths == config.study.max_failures:
                raise RunFailed(_first_line(error), str(error), permanent=False) from None
    raise AssertionError


def _first_line(error: Exception) -> str:
    """First line of an error of Ray's: the rest is advice."""
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"


def epoch_event(trial: str, reported: dict[str, Any]) -> EpochReported:
    """One report of the loop, out of what Ray made of it."""
    metrics = dict(reported[METRICS])
    epoch = int(metrics.pop("epoch"))
    return EpochReported(trial=trial, epoch=epoch, metrics=metrics, checkpoint=Path(reported[CHECKPOINT]))
