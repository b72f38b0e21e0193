"""Epochs that a worker reports before it trains, and the file with the reason of a failure."""

from pathlib import Path

from woundray.ray_cluster.train_worker import Failure, _unreported
from woundray.system.atomic_files import write_json


def write_run(output: Path, epochs: int) -> None:
    """Write a run with so many epochs, of which only the last checkpoint is left."""
    history = [{"epoch": float(epoch), "fd_lite0": 100.0 - epoch} for epoch in range(1, epochs + 1)]
    (output / f"epoch_{epochs:04d}").mkdir(parents=True)
    write_json({"epoch": epochs, "updates": epochs, "history": history}, output / f"epoch_{epochs:04d}/run.json")


def test_only_unreported_epochs_are_reported_after_a_death(tmp_path: Path) -> None:
    write_run(tmp_path, 22)
    assert [entry["epoch"] for entry in _unreported(tmp_path, lambda: 19)] == [20, 21, 22]
    assert [entry["epoch"] for entry in _unreported(tmp_path, lambda: 22)] == [22]  # Tune needs one
    assert [entry["epoch"] for entry in _unreported(tmp_path, None)] == [22]  # reports are not recorded
    assert len(_unreported(tmp_path, lambda: 0)) == 22
    assert _unreported(tmp_path / "new", lambda: 0) == []


def test_a_failure_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert Failure.read(tmp_path) is None
    Failure("lora.target_modules: none", diverged=False).write(tmp_path, rank=1)
    assert Failure.read(tmp_path) == Failure("lora.target_modules: none", diverged=False)
