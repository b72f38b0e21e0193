"""A resumed run keeps its own settings, except for more epochs."""

from pathlib import Path

import pytest

from woundray.cli.command import parse
from woundray.config import Config
from woundray.config.layers import read_yaml
from woundray.errors import UserError
from woundray.search.training_run import _start_from_checkpoint, resume_config
from woundray.system.atomic_files import write_json
from woundray.train import Train
from woundray.training.checkpoint import newest_checkpoint, write_config


def train(*arguments: str) -> tuple[Config, dict[str, object]]:
    command = parse(Train, list(arguments))
    return command.settings, command.typed


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run of rank 4 and 9 epochs, on one GPU."""
    folder = tmp_path / "mine"
    (folder / "run").mkdir(parents=True)
    config, _ = train("--study.name", "mine", "--study.output", str(tmp_path), "--lora.rank", "4")
    write_config(config.with_values({"training.epochs": 9, "hardware.gpus_per_worker": 1}), folder / "run")
    return folder


def test_a_run_goes_on_by_its_name_alone(folder: Path) -> None:
    config, typed = train("--study.name", "mine", "--study.output", str(folder.parent))
    own = resume_config(config, folder, typed)
    assert (own.lora.rank, own.training.epochs) == (4, 9)
    assert own.hardware.gpus_per_worker == "auto"  # of the machine where it goes on


def test_more_epochs_are_kept(folder: Path) -> None:
    context = ("--study.name", "mine", "--study.output", str(folder.parent))
    assert resume(folder, *context, "--training.epochs", "12").training.epochs == 12
    assert read_yaml(folder / "run/config.yaml")["training"]["epochs"] == "12"
    assert resume(folder, *context).training.epochs == 12
    with pytest.raises(UserError, match=r"training\.epochs 12, not 9"):
        resume(folder, *context, "--training.epochs", "9")


def test_the_same_command_goes_on_and_another_is_refused(folder: Path) -> None:
    context = ("--study.name", "mine", "--study.output", str(folder.parent), "--training.epochs", "9")
    assert resume(folder, *context, "--lora.rank", "4").lora.rank == 4
    with pytest.raises(UserError, match=r"lora\.rank 4, not 8; .*training\.epochs may become more"):
        resume(folder, *context, "--lora.rank", "8")
    with pytest.raises(UserError, match=r"model\.precision fp32, not bf16"):  # of a profile by name
        resume(folder, *context, "--profile", "sd15")


def resume(folder: Path, *arguments: str) -> Config:
    config, typed = train(*arguments)
    return resume_config(config, folder, typed)


def test_a_run_begun_from_another_has_its_own_settings_and_the_same_command_goes_on(
    tmp_path: Path, micro_config: Config
) -> None:
    """The first command was killed in the middle of copying the checkpoint; then it is run again."""
    other, output = tmp_path / "other/epoch_0002", tmp_path / "mine/run"
    other.mkdir(parents=True)
    history = [{"epoch": 1.0}, {"epoch": 2.0}]
    write_json({"epoch": 2, "updates": 2, "history": history}, other / "run.json")
    (other / "state.safetensors").touch()
    (output / ".epoch_0002.part").mkdir(parents=True)
    for _ in range(2):
        _start_from_checkpoint(other, output, micro_config)
    assert newest_checkpoint(output) == output / "epoch_0002"
    assert Config.from_nested(read_yaml(output / "config.yaml"), source="").lora == micro_config.lora
    with pytest.raises(UserError, match="has begun already"):
        _start_from_checkpoint(tmp_path / "third/epoch_0001", output, micro_config)
