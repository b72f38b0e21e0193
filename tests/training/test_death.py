"""SIGKILL in the middle of an epoch: a resumed run ends as one that was left in peace, to the bit."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import distributed as dist
from torch import multiprocessing
from torch.optim.optimizer import register_optimizer_step_post_hook

from woundray.config import Config
from woundray.training.checkpoint import read_progress
from woundray.training.loop import train
from woundray.training.materials import Materials
from woundray.training.place import Place

NEVER = 10**9


def _rank(rank: int, world_size: int, config: Config, materials: Path, output: Path, fatal_update: int) -> None:
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
    place = Place(rank, world_size, torch.device("cpu"))
    train(config, materials=materials, output=output, place=place, report=lambda *_: None)
    if world_size > 1:
        dist.destroy_process_group()


def work(config: Config, materials: Materials, output: Path, world_size: int, fatal_update: int = NEVER) -> None:
    arguments = (world_size, config, materials.folder, output, fatal_update)
    multiprocessing.start_processes(_rank, arguments, nprocs=world_size, start_method="spawn")  # type: ignore[no-untyped-call]


def outcome(output: Path) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    history = json.loads((output / "history.json").read_text())
    scores = [{name: value for name, value in entry.items() if "seconds" not in name} for entry in history]
    return scores, load_file(output / "latest" / "state.safetensors")


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_run_killed_in_the_middle_of_epoch_4_ends_bit_identical(
    micro_config: Config, micro_materials: Materials, tmp_path: Path, world_size: int
) -> None:
    config = micro_config.with_values(
        {"training.epochs": 6, "training.steps_per_epoch": 3, "training.early_stopping_patience": 0}
    )
    work(config, micro_materials, tmp_path / "peace", world_size)
    with pytest.raises(multiprocessing.ProcessExitedException):  # type: ignore[attr-defined]
        work(config, micro_materials, tmp_path / "killed", world_size, fatal_update=3 * 3 + 2)
    assert read_progress(tmp_path / "killed" / "latest").epoch == 3
    work(config, micro_materials, tmp_path / "killed", world_size)

    (peace_history, peace), (killed_history, killed) = outcome(tmp_path / "peace"), outcome(tmp_path / "killed")
    assert killed_history == peace_history
    assert [entry["epoch"] for entry in killed_history] == [1, 2, 3, 4, 5, 6]
    assert killed.keys() == peace.keys()
    assert all(torch.equal(tensor, killed[name]) for name, tensor in peace.items())
