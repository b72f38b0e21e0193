"""Short runs for scripts/check_gpu.py: settings, base model, and epochs in this process or in several ranks."""

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import torch
from random_model import write_sd21
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch import distributed as dist
from torch.multiprocessing.spawn import start_processes

from woundray.config import Config
from woundray.config.layers import load
from woundray.models.loading import free_memory
from woundray.training import loop
from woundray.training import train_step as steps
from woundray.training.distributed import DistributedContext
from woundray.training.precompute import precompute
from woundray.training.train_state import TrainState, build_train_state

UPDATES = 3
METRICS = ("train_loss", "gradient_norm")


class Failed(Exception):
    """A check has failed."""


class NotChecked(Exception):
    """A check that this machine can not do."""


@dataclass(frozen=True)
class Setup:
    """Where checks run.

    Attributes:
        work: folder for model, precomputed data and runs.
        gpus: GPUs of this machine; 0: a dry run, of the packaged tiny model on CPUs.
    """

    work: Path
    gpus: int

    @classmethod
    def make(cls, work: Path, *, dry: bool) -> "Setup":
        """Writes the base model, of random weights, where it is not there yet."""
        setup = cls(work.absolute(), 0 if dry else torch.cuda.device_count())
        if setup.gpus:
            os.environ["WOUNDRAY_WEIGHTS"] = str(setup.work)  # where the tiny decoder is looked for
            write_sd21(setup.work)
        return setup

    @property
    def base(self) -> str:
        """The base model."""
        return str(self.work / "sd21") if self.gpus else "tiny"

    @property
    def device(self) -> torch.device:
        """Of the first rank."""
        return torch.device("cuda:0" if self.gpus else "cpu")

    def flags(self) -> dict[str, object]:
        """Settings of all runs: few photographs, few updates, few pictures."""
        return {
            "model.base": self.base,
            "model.precision": "bf16" if self.gpus else "fp32",
            "data.phantom_patients": 8,
            "data.views_per_photo": 1,
            "lora.target_modules": ("attention",),
            "training.batch_size": 4,
            "training.steps_per_epoch": UPDATES,
            "training.epochs": 2,
            "training.warmup_steps": 0,
            "training.learning_rate": 1e-3,
            "training.perceptual_weight": 0.0,
            "training.early_stopping_patience": 0,
            "validation.pictures": 8,
            "validation.batch_size": 8,
            "validation.sampling_steps": 4,
            "metrics.baseline_repeats": 2,
            "metrics.objective": "fd_lite0",
        }

    def config(self, **changes: object) -> Config:
        """The settings with some changed, by dotted name with `__` for the dot."""
        return load("I", profile="demo", flags=self.flags() | {k.replace("__", "."): v for k, v in changes.items()})

    def precomputed(self, config: Config) -> Path:
        """What runs at a resolution share, prepared once."""
        folder = self.work / f"precomputed-{self.base_name}-{config.model.resolution}"
        precompute(config, folder, device=self.device, progress=lambda *_: None)
        return folder

    @property
    def base_name(self) -> str:
        """Name of the base model, for names of folders."""
        return Path(self.base).name

    @contextmanager
    def run(self, config: Config) -> Iterator[TrainState]:
        """Build a run of one rank, whose memory is freed at the end."""
        folder = self.work / f"run-{os.getpid()}-{len(os.listdir(self.work))}"
        yield build_train_state(config, self.precomputed(config), folder, DistributedContext(0, 1, self.device))
        free_memory()


@dataclass(frozen=True)
class Outcome:
    """Metrics of an epoch, and the concatenated weights after it, on the CPU."""

    metrics: dict[str, float]
    weights: Tensor


def epoch(run: TrainState) -> Outcome:
    """Train the first epoch of a run: UPDATES updates."""
    metrics = loop.train_epoch(run, 1, 0)
    return Outcome(metrics, torch.cat([value.detach().flatten().cpu() for value in run.parameters.values()]))


def epoch_of(setup: Setup, config: Config) -> Outcome:
    """Train the first epoch of a new run in this process."""
    with setup.run(config) as run:
        return epoch(run)


@dataclass(frozen=True)
class _RankJob:
    """Inputs of each rank."""

    config: Config
    precomputed: Path
    folder: Path
    backend: str
    devices: tuple[str, ...]


def _run_rank(rank: int, job: _RankJob) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", FutureWarning)  # of an argument of DDP that later versions rename
    folder, devices = job.folder, job.devices
    device = torch.device(devices[rank])
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(job.backend, init_method=f"file://{folder}/meeting", rank=rank, world_size=len(devices))
    context = DistributedContext(rank, len(devices), device)
    outcome = epoch(build_train_state(job.config, job.precomputed, folder, context))
    if rank == 0:
        values = {name: torch.tensor(value, dtype=torch.float64) for name, value in outcome.metrics.items()}
        save_file(values | {"weights": outcome.weights}, folder / "outcome.safetensors")
    dist.barrier()
    dist.destroy_process_group()


def epoch_of_ranks(setup: Setup, config: Config, backend: str, devices: Sequence[str]) -> Outcome:
    """Train the first epoch of a new run of several ranks, each a process on its device."""
    folder = setup.work / f"ranks-{len(os.listdir(setup.work))}"
    folder.mkdir()
    job = _RankJob(config, setup.precomputed(config), folder, backend, tuple(devices))
    sys.stdout.flush()
    start_processes(_run_rank, (job,), nprocs=len(devices), start_method="spawn")  # type: ignore[no-untyped-call]
    values = load_file(folder / "outcome.safetensors")
    weights = values.pop("weights")
    return Outcome({name: value.item() for name, value in values.items()}, weights)


@contextmanager
def overflow_at(update: int) -> Iterator[None]:
    """Within the context the loss of this update is so large that its gradient overflows fp16's loss scale."""
    real, seen = steps.compute_losses, 0

    def planted(*arguments: object) -> tuple[Tensor, Tensor]:
        nonlocal seen
        seen += 1
        denoising, perceptual = real(*arguments)  # type: ignore[arg-type]
        return (denoising * 1e35 if seen == update else denoising), perceptual

    with patch.object(steps, "compute_losses", planted):
        yield


def relative_difference(one: Outcome, other: Outcome) -> float:
    """The largest relative difference of loss and gradient norm."""
    return max(abs(one.metrics[name] / other.metrics[name] - 1) for name in METRICS)
