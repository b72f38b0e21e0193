"""Checks and timings on a machine with one or two NVIDIA GPUs; under ten minutes, without internet.

    python scripts/check_gpu.py [--work FOLDER] [--only WORD]
    python scripts/check_gpu.py --dry-run

The base model has the shape of Stable Diffusion 2.1 and random weights, which the script writes (2.6 GB). One line a
check, with its figure, and a table at the end; the exit code is the number of checks that failed. `--dry-run` runs
every line that needs no GPU, with the packaged tiny model on CPUs: its figures say nothing of GPUs.
"""

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import torch
from check_gpu_runs import (
    UPDATES,
    Failed,
    NotChecked,
    Setup,
    epoch,
    epoch_of,
    epoch_of_ranks,
    overflow_at,
    relative_difference,
)
from check_gpu_studies import Command, mlflow_runs, seconds_of_trials, start_up_seconds, study
from torch.profiler import ProfilerActivity, profile
from turns import describe_machine

from woundray.evaluation import epoch_metrics
from woundray.tracking.journal import EpochReported, TrialEnded
from woundray.training import loop
from woundray.training.distributed import DistributedContext
from woundray.training.loop import train

ROUNDING = 2e-3
"""Largest relative difference of losses and norms in fp32 that the order of sums can make."""
OF_BF16 = 0.05
"""The same of fp32 against bf16."""


@dataclass(frozen=True)
class Row:
    """Result of a check."""

    name: str
    result: str
    figure: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.result:11} {self.name:44} {self.figure} ({self.seconds:.0f} s)"


def two_ranks_on_one_card(setup: Setup) -> str:
    """Compare two ranks that share a GPU (gloo) with one rank of the same global batch."""
    return _two_ranks(setup, "gloo", [str(setup.device)] * 2)


def two_ranks_on_two_cards(setup: Setup) -> str:
    """Compare two ranks with a GPU each (NCCL) with one rank."""
    if setup.gpus < 2:
        raise NotChecked(f"{setup.gpus} GPUs")
    return _two_ranks(setup, "cpu:gloo,cuda:nccl", ["cuda:0", "cuda:1"])


def _two_ranks(setup: Setup, backend: str, devices: list[str]) -> str:
    exact = {"model__precision": "fp32", "hardware__tf32": False, "model__cuda_graphs": False}
    one = epoch_of(setup, setup.config(**exact, training__batch_size=4))
    two = epoch_of_ranks(setup, setup.config(**exact, training__batch_size=2), backend, devices)
    return _at_most(
        relative_difference(one, two), ROUNDING, f"on {', '.join(devices)}: relative difference of loss and norm"
    )


def graphs(setup: Setup) -> str:
    """Compare updates by CUDA graphs with eager ones."""
    return _graphs(setup, 1)


def graphs_with_accumulation(setup: Setup) -> str:
    """Compare accumulated micro-batches by CUDA graphs with eager ones."""
    return _graphs(setup, 4)


def _graphs(setup: Setup, accumulation: int) -> str:
    same = {"lora__dropout": 0.0, "training__gradient_accumulation_steps": accumulation}
    deterministic = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    try:
        recorded, eager = (epoch_of(setup, setup.config(**same, model__cuda_graphs=on)) for on in (True, False))
    finally:
        torch.backends.cudnn.deterministic = deterministic
    figure = _at_most(float((recorded.weights - eager.weights).abs().max()), 0.0, "difference of weights")
    if not setup.gpus:
        raise NotChecked(f"nothing is recorded on CPUs; both ran, {figure}")
    return figure


def fp16_overflow(setup: Setup) -> str:
    """Check fp16 training with an update whose gradient overflows."""
    with overflow_at(2):
        outcome = epoch_of(setup, setup.config(model__precision="fp16"))
    if not torch.isfinite(outcome.weights).all():
        raise Failed("weights are not finite")
    skipped = outcome.metrics["skipped_updates"]
    if not 1 <= skipped < UPDATES:
        raise Failed(f"{skipped:.0f} of {UPDATES} updates were left out")
    return f"{skipped:.0f} of {UPDATES} updates left out"


def bf16(setup: Setup) -> str:
    """Compare bf16 with fp32."""
    outcomes = [epoch_of(setup, setup.config(model__precision=precision)) for precision in ("bf16", "fp32")]
    losses = [outcome.metrics["train_loss"] for outcome in outcomes]
    return _at_most(abs(losses[0] / losses[1] - 1), OF_BF16, "relative difference of loss to fp32")


def killed_worker(setup: Setup) -> str:
    """Check `woundray train` when its worker is killed after the first epoch."""
    share = 1.0 if setup.gpus else 0.0
    command = Command.start(setup, "train", "killed", hardware__gpus_per_worker=share, training__epochs=4)
    command.kill_worker()
    command.wait()
    epochs = [event.epoch for event in command.events() if isinstance(event, EpochReported)]
    if epochs != [1, 2, 3, 4]:
        raise Failed(f"epochs {epochs}")
    return "all of 4 epochs, each once"


def study_through_ray(setup: Setup) -> str:
    """Check a study of two sequential trials, with MLflow."""
    command = study(setup, "one-by-one", at_once=1)
    ended = [event for event in command.events() if isinstance(event, TrialEnded)]
    if [event.status for event in ended] != ["FINISHED"] * 2:
        raise Failed("; ".join(event.reason or event.status for event in ended))
    if mlflow_runs(command) < 3:
        raise Failed(f"MLflow has {mlflow_runs(command)} runs")
    starts = " and ".join(f"{seconds:.1f}" for seconds in start_up_seconds(command.events()))
    return f"trials start within {starts} s; MLflow has {mlflow_runs(command)} runs"


def two_trials_on_one_card(setup: Setup) -> str:
    """Compare two concurrent trials at half a GPU each with sequential ones."""
    before = setup.work / "one-by-one"
    if not (before / "own/events.jsonl").exists():
        raise NotChecked("needs the study of one after another")
    both = study(setup, "at-once", at_once=2)
    one_by_one = Command(before, both.process).events()
    return f"{seconds_of_trials(both.events()):.1f} s at once, {seconds_of_trials(one_by_one):.1f} s one after another"


def parts_of_an_epoch(setup: Setup) -> str:
    """Time the parts of a run's third epoch: in the first, libraries are loaded and graphs are captured."""
    config = setup.config(training__epochs=3)
    parts = {
        "training": (loop, "train_epoch"),
        "validation loss": (loop, "validation_loss"),
        "pictures": (loop, "sample_images"),
        "scores": (epoch_metrics, "score"),
        "checkpoint": (loop, "publish"),
    }
    seconds: dict[str, float] = {}
    with ExitStack() as stack:
        for name, (module, function) in parts.items():
            stack.enter_context(_timed(module, function, name, seconds))
        train(
            config,
            precomputed=setup.precomputed(config),
            output=setup.work / "parts",
            context=DistributedContext(0, 1, setup.device),
            report=lambda *_: None,
        )
    return ", ".join(f"{name} {value:.2f} s" for name, value in seconds.items())


@contextmanager
def _timed(module: object, function: str, name: str, seconds: dict[str, float]) -> Iterator[None]:
    """Context in which the seconds of a function's last call are recorded."""
    real: Callable[..., object] = getattr(module, function)

    def call(*arguments: object, **named: object) -> object:
        started = time.perf_counter()
        result = real(*arguments, **named)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds[name] = time.perf_counter() - started
        return result

    with patch.object(module, function, call):
        yield


def busy_share(setup: Setup) -> str:
    """Measure the share of an epoch's time in which a kernel runs, by torch's profiler."""
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if setup.gpus else [])
    with setup.run(setup.config()) as run:
        epoch(run)  # graphs are recorded
        with profile(activities=activities) as profiler:
            started = time.perf_counter()
            epoch(run)
            seconds = time.perf_counter() - started
    if not setup.gpus:
        raise NotChecked(f"no kernels on CPUs; {UPDATES} updates took {seconds:.2f} s")
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in profiler.events() or []
        if event.device_type.name == "CUDA"
    )
    busy_us, end_us = 0.0, 0.0
    for start_us, stop_us in spans:
        busy_us += max(0.0, stop_us - max(start_us, end_us))
        end_us = max(end_us, stop_us)
    return f"{busy_us / 1e6 / seconds:.0%} of {seconds:.2f} s for {UPDATES} updates"


def memory(setup: Setup) -> str:
    """Measure the peak GPU memory of an epoch's updates, at three resolutions."""
    found = []
    for side in (128, 256, 512) if setup.gpus else (64, 128):
        if setup.gpus:
            torch.cuda.reset_peak_memory_stats()
        epoch_of(setup, setup.config(model__resolution=side))
        held = f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if setup.gpus else "ran"
        found.append(f"{side} px {held}")
    if not setup.gpus:
        raise NotChecked(", ".join(found))
    return ", ".join(found)


def _at_most(value: float, most: float, what: str) -> str:
    if not value <= most:
        raise Failed(f"{what} {value:.1e}, more than {most:g}")
    return f"{what} {value:.1e}"


CHECKS: dict[str, Callable[[Setup], str]] = {
    "recorded updates are the eager ones": graphs,
    "the same, 4 micro-batches an update": graphs_with_accumulation,
    "two ranks on one GPU (gloo) are one": two_ranks_on_one_card,
    "two ranks on two GPUs (NCCL) are one": two_ranks_on_two_cards,
    "fp16 bears an overflow": fp16_overflow,
    "bf16 is near fp32": bf16,
    "a killed worker's run goes on": killed_worker,
    "a study through Ray, with MLflow": study_through_ray,
    "time: two trials on one GPU": two_trials_on_one_card,
    "time: parts of an epoch": parts_of_an_epoch,
    "time: share in which kernels run": busy_share,
    "memory of an epoch's updates, batch 4": memory,
}


def check(name: str, work: Callable[[Setup], str], setup: Setup) -> Row:
    """Run one check; an error becomes its result."""
    started = time.perf_counter()
    try:
        result, figure = "ok", work(setup)
    except NotChecked as reason:
        result, figure = "not checked", str(reason)
    except Exception as error:
        logging.getLogger(__name__).debug("%s", name, exc_info=True)
        result, figure = "FAILED", f"{type(error).__name__}: {' '.join(str(error).split())[-200:]}"
    return Row(name, result, figure, time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry-run", action="store_true", help="the packaged tiny model, on CPUs")
    parser.add_argument("--only", default="", help="checks whose name has this word")
    parser.add_argument("--work", type=Path, help="keeps model and runs there; a new folder, else they are removed")
    parser.add_argument("--verbose", action="store_true", help="tracebacks of checks that fail")
    arguments = parser.parse_args()
    if not arguments.dry_run and not torch.cuda.is_available():
        parser.error("no GPU here: --dry-run runs what needs none")
    if arguments.dry_run:
        torch.set_num_threads(1)  # on a busy machine two wait for each other
    logging.basicConfig(level=logging.WARNING)
    logging.getLogger(__name__).setLevel(logging.DEBUG if arguments.verbose else logging.WARNING)
    print(f"{describe_machine()}{'; a dry run: no figure is one of a GPU' if arguments.dry_run else ''}", flush=True)
    rows = []
    with tempfile.TemporaryDirectory(prefix="woundray-check-") as scratch:
        work = arguments.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        setup = Setup.make(work, dry=arguments.dry_run)
        for name, what in CHECKS.items():
            if arguments.only in name:
                rows.append(check(name, what, setup))
                print(rows[-1], flush=True)
    print(f"\n{'check':44} result")
    for row in rows:
        print(f"{row.name:44} {row.result}")
    failed = sum(row.result == "FAILED" for row in rows)
    print(f"{len(rows)} checks, {failed} failed, {sum(row.seconds for row in rows):.0f} s")
    sys.exit(failed)


if __name__ == "__main__":
    main()
