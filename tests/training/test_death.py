"""SIGKILL in the middle of an epoch: the resumed run is bit-identical to one that was not killed."""

from pathlib import Path

import pytest
import torch
from mortal import outcome, work
from torch import multiprocessing

from woundray.config import Config
from woundray.training.checkpoint import read_progress
from woundray.training.precompute import Precomputed


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_run_killed_in_the_middle_of_epoch_4_ends_bit_identical(
    micro_config: Config, micro_precomputed: Precomputed, tmp_path: Path, world_size: int
) -> None:
    config = micro_config.with_values(
        {"training.epochs": 6, "training.steps_per_epoch": 3, "training.early_stopping_patience": 0}
    )
    work(config, micro_precomputed, tmp_path / "peace", world_size)
    with pytest.raises(multiprocessing.ProcessExitedException):  # type: ignore[attr-defined]
        work(config, micro_precomputed, tmp_path / "killed", world_size, fatal_update=3 * 3 + 2)
    assert read_progress(tmp_path / "killed" / "latest").epoch == 3
    work(config, micro_precomputed, tmp_path / "killed", world_size)

    (peace_history, peace), (killed_history, killed) = outcome(tmp_path / "peace"), outcome(tmp_path / "killed")
    assert killed_history == peace_history
    assert [entry["epoch"] for entry in killed_history] == [1, 2, 3, 4, 5, 6]
    assert killed.keys() == peace.keys()
    assert all(torch.equal(tensor, killed[name]) for name, tensor in peace.items())
