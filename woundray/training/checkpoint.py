"""Checkpoints of a run: `epoch_0005/`, links `best` and `latest`, `history.json`, `config.yaml`, `grids/`.

A checkpoint is written to a temporary folder and renamed, so that one that is visible is whole. It holds
`pytorch_lora_weights.safetensors`, the adapter that was scored (or `unet/`, where all weights are trained);
`state.safetensors`, raw weights, their EMA and the optimizer's state; `run.json`, epoch, updates and scores;
`config.yaml`; `grid.png`. Of epochs that were removed `grids/epoch_0001.png` stays.
"""

import json
import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from woundray.config import Config
from woundray.errors import UserError
from woundray.system.atomic_files import write_json, write_text
from woundray.training.ema import EMA
from woundray.training.optimizer import optimizer_state, restore_optimizer

History = list[dict[str, float]]

STATE_NAME = "state.safetensors"
GRID_NAME = "grid.png"
GRIDS = "grids"
"""Folder of a run that keeps the grid of every epoch, `epoch_0001.png` ..., when checkpoints are removed."""


@dataclass(frozen=True)
class TrainingProgress:
    """Epochs and updates that a run has done, and its metrics so far."""

    epoch: int
    updates: int
    history: History


@dataclass(frozen=True)
class RestorableState:
    """Everything that training changes, and what a checkpoint must agree with.

    Attributes:
        optimizer_name: training.optimizer.
        precomputed_key: of the precomputed data.
    """

    parameters: Mapping[str, torch.nn.Parameter]
    ema: EMA
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    optimizer_name: str
    precomputed_key: str


def write_state(path: Path, state: RestorableState) -> None:
    """Write all that training changes.

    No state of random generators is needed, on any rank: random inputs are functions of seed, epoch, step and rank.
    """
    optimizer_tensors, optimizer_rest = optimizer_state(state.optimizer, state.parameters)
    tensors = {f"raw/{name}": tensor.detach() for name, tensor in state.parameters.items()}
    tensors |= {f"ema/{name}": tensor for name, tensor in state.ema.average.items()}
    tensors |= {f"optimizer/{name}": tensor for name, tensor in optimizer_tensors.items()}
    metadata = {
        "optimizer_name": state.optimizer_name,
        "optimizer": optimizer_rest,
        "precomputed": state.precomputed_key,
        "ema_step": str(state.ema.step),
        "loss_scale": json.dumps(state.scaler.state_dict()),
    }
    save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, path, metadata=metadata)


def read_state(path: Path, state: RestorableState) -> None:
    """Restore what `write_state` wrote, in place.

    Raises:
        UserError: the file is damaged, or of a run with another model, optimizer or other images.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        facts = {name: metadata[name] for name in ("optimizer_name", "optimizer", "precomputed", "ema_step")}
    except (FileNotFoundError, SafetensorError, KeyError, TypeError) as error:  # other errors of the disk may pass
        raise UserError(
            f"{path}: damaged ({type(error).__name__}); delete {path.parent} to go on from an earlier epoch"
        ) from None
    _check_same_run(path, facts, tensors, state)
    with torch.no_grad():
        for name, parameter in state.parameters.items():
            parameter.copy_(tensors[f"raw/{name}"])
            state.ema.average[name].copy_(tensors[f"ema/{name}"])
    state.ema.step = int(facts["ema_step"])
    prefix = "optimizer/"
    optimizer = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    restore_optimizer(state.optimizer, state.parameters, optimizer, facts["optimizer"])
    if loss_scale := json.loads(metadata.get("loss_scale", "{}")):  # of fp16
        state.scaler.load_state_dict(loss_scale)


def _check_same_run(
    path: Path, facts: Mapping[str, str], tensors: Mapping[str, Tensor], state: RestorableState
) -> None:
    """Raise UserError if a checkpoint is of a run with another model, optimizer or other images."""
    if {name for name in tensors if name.startswith("raw/")} != {f"raw/{name}" for name in state.parameters}:
        raise UserError(f"{path}: of a run with another base model, training.method or lora.target_modules")
    for name, parameter in state.parameters.items():
        if tensors[f"raw/{name}"].shape != parameter.shape:
            raise UserError(f"{path}: of a run with another base model or lora.rank: {name}")
    if facts["optimizer_name"] != state.optimizer_name:
        raise UserError(
            f"{path}: of a run with training.optimizer {facts['optimizer_name']}, not {state.optimizer_name}"
        )
    if facts["precomputed"] != state.precomputed_key:
        raise UserError(f"{path}: of a run on other photographs, prompts or validation settings; take another name")


def write_config(config: Config, folder: Path) -> None:
    """Write the configuration as a file that `--config` reads."""
    write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), folder / "config.yaml")


@dataclass(frozen=True)
class Retention:
    """Which checkpoints of a run stay on disk.

    Attributes:
        best_epoch: the best so far.
        contenders: other epochs that may yet be best.
        keep_last: number of latest ones.
    """

    best_epoch: int
    contenders: Collection[int]
    keep_last: int


def publish(temporary: Path, run: Path, progress: TrainingProgress, retention: Retention) -> Path:
    """Rename a finished checkpoint to `epoch_0001`, and update the run's links (see `update_links`).

    Args:
        temporary: folder inside `run` with everything but `run.json`.
    """
    write_json(
        {"epoch": progress.epoch, "updates": progress.updates, "history": progress.history}, temporary / "run.json"
    )
    for path in temporary.rglob("*"):
        if path.is_file():
            _fsync(path)
    folder = run / f"epoch_{progress.epoch:04d}"
    temporary.rename(folder)
    update_links(run, progress, retention)
    return folder


def update_links(run: Path, progress: TrainingProgress, retention: Retention) -> None:
    """Point a run's links and history to its latest checkpoint, and remove checkpoints that are not retained.

    It is idempotent: a run that was killed in the middle of it does it again.
    """
    folder = run / f"epoch_{progress.epoch:04d}"
    if (folder / GRID_NAME).is_file():  # it outlives the checkpoint: for the report, and MLflow may not have it yet
        (run / GRIDS).mkdir(exist_ok=True)
        shutil.copyfile(folder / GRID_NAME, run / GRIDS / f"{folder.name}.png")
    link(run / "latest", folder.name)
    best = run / f"epoch_{retention.best_epoch:04d}"
    link(run / "best", best.name if best.is_dir() else folder.name)  # it may lie in the run that this one goes on from
    write_json(progress.history, run / "history.json")
    latest = range(progress.epoch - retention.keep_last + 1, progress.epoch + 1)
    retained = {retention.best_epoch, *retention.contenders, *latest}
    for old in run.glob("epoch_*"):
        if old.name.removeprefix("epoch_").isdecimal() and _epoch_of(old) not in retained:
            shutil.rmtree(old)


def newest_checkpoint(run: Path) -> Path | None:
    """Return a run's checkpoint of its last epoch, whether or not `latest` points there yet; None: there is none."""
    folders = [folder for folder in run.glob("epoch_*") if folder.name.removeprefix("epoch_").isdecimal()]
    return max((folder for folder in folders if (folder / "run.json").is_file()), key=_epoch_of, default=None)


def _epoch_of(folder: Path) -> int:
    return int(folder.name.removeprefix("epoch_"))


def _fsync(path: Path) -> None:
    """Write a file's bytes to the disk before it gets its name: a machine may lose power."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def read_progress(folder: Path) -> TrainingProgress:
    """Read epoch, updates and history of a checkpoint. Raises UserError for a folder that is none."""
    try:
        values = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        return TrainingProgress(int(values["epoch"]), int(values["updates"]), list(values["history"]))
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"{folder}: not a checkpoint: run.json: {type(error).__name__} {error}") from None


def start_from(checkpoint: Path, run: Path) -> None:
    """Copy a checkpoint of another run as the first of a new one, which resumes from it with that run's history.

    Raises:
        UserError: it holds no state to resume from, or the run has begun already.
    """
    if (run / "latest").exists():
        raise UserError(f"{run}: has begun already; without --resume it goes on, or give another --study.name")
    if not (checkpoint / STATE_NAME).is_file():
        raise UserError(
            f"--resume: {checkpoint} holds no {STATE_NAME}: pictures can be drawn from it, but "
            "training can't go on; give another checkpoint"
        )
    progress = read_progress(checkpoint)
    name = f"epoch_{progress.epoch:04d}"
    _copy(checkpoint, run / name)  # first: a run that is killed here resumes from its newest one
    for epoch in {int(entry["epoch"]) for entry in progress.history if entry["epoch"] <= progress.epoch}:
        folder = checkpoint.parent / f"epoch_{epoch:04d}"  # the best epoch so far may be one of these
        if epoch != progress.epoch and folder.is_dir():
            _copy(folder, run / folder.name)
    write_json(progress.history, run / "history.json")
    link(run / "best", name)
    link(run / "latest", name)


def _copy(checkpoint: Path, target: Path) -> None:
    """Copy a checkpoint to a temporary folder and rename it to `target`, unless that exists."""
    temporary = target.with_name(f".{target.name}.part")
    if not target.exists():
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.copytree(checkpoint, temporary)
        temporary.rename(target)


def link(path: Path, target: str) -> None:
    """Make `path` a symbolic link to `target`, atomically; an older link is replaced."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")  # other studies end at the same time
    temporary.unlink(missing_ok=True)
    os.symlink(target, temporary)
    temporary.replace(path)
