"""Training in child processes that can be killed, and the result of a run."""

import json
import os
import signal
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import distributed as dist
from torch import multiprocessing
from torch.optim.optimizer import register_optimizer_step_post_hook

from woundray.config import Config
from woundray.training.distributed import DistributedContext
from woundray.training.loop import train
from woundray.training.precompute import Precomputed

NEVER = 10**9


def _rank(rank: int, world_size: int, config: Config, precomputed: Path, output: Path, fatal_update: int) -> None:
    """One worker, which kills itself after an optimizer update."""
    torch.set_num_threads(1)
    if world_size > 1:
        meeting = output.parent / f"meeting-{output.name}-{fatal_update}"
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world_size)
    updates = 0

    def count(*_: object) -> None:
        nonlocal updates
        updates += 1
        if updates == fatal_update:
            os.kill(os.getpid(), signal.SIGKILL)

    register_optimizer_step_post_hook(count)
    context = DistributedContext(rank, world_size, torch.device("cpu"))
    train(config, precomputed=precomputed, output=output, context=context, report=lambda *_: None)
    if world_size > 1:
        dist.destroy_process_group()


def work(config: Config, precomputed: Precomputed, output: Path, world_size: int, fatal_update: int = NEVER) -> None:
    """Trains on `world_size` workers of one thread each; each kills itself after an optimizer update.

    Raises:
        torch.multiprocessing.ProcessExitedException: they did.
    """
    arguments = (world_size, config, precomputed.folder, output, fatal_update)
    multiprocessing.start_processes(_rank, arguments, nprocs=world_size, start_method="spawn")  # type: ignore[no-untyped-call]


def outcome(output: Path) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    """History without times, and all that training changes."""
    history = json.loads((output / "history.json").read_text())
    scores = [{name: value for name, value in entry.items() if "seconds" not in name} for entry in history]
    return scores, load_file(output / "latest" / "state.safetensors")
