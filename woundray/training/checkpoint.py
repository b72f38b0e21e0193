"""What a run leaves on disk: `epoch_0005/`, links `best` and `latest`, `history.json`, `config.yaml`, `grids/`.

A checkpoint is written beside and renamed into place, so that one that can be seen is whole. It holds
`pytorch_lora_weights.safetensors`, the adapter that was scored (or `unet/`, where all weights are trained);
`state.safetensors`, the raw weights, their average and what the optimizer keeps; `run.json`, epoch, updates and scores;
`config.yaml`; `grid.png`. Of epochs that were cleared away `grids/epoch_0001.png` stays.
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
from woundray.training.ema import Ema
from woundray.training.optimizer import optimizer_state, restore_optimizer

History = list[dict[str, float]]

STATE_NAME = "state.safetensors"
GRID_NAME = "grid.png"
GRIDS = "grids"
"""Folder of a run that keeps the grid of every epoch, `epoch_0001.png` ..., when checkpoints are removed."""


@dataclass(frozen=True)
class TrainingProgress:
    """How far a run is."""

    epoch: int
    updates: int
    history: History


def write_state(
    path: Path,
    parameters: Mapping[str, torch.nn.Parameter],
    ema: Ema,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    *,
    optimizer_name: str,
    precomputed_key: str,
) -> None:
    """Writes all that training changes.

    There is no state of random generators to keep, on any rank: whatever is drawn is a function of seed, epoch, step
    and rank.
    """
    kept, rest = optimizer_state(optimizer, parameters)
    tensors = {f"raw/{name}": tensor.detach() for name, tensor in parameters.items()}
    tensors |= {f"ema/{name}": tensor for name, tensor in ema.average.items()}
    tensors |= {f"optimizer/{name}": tensor for name, tensor in kept.items()}
    metadata = {
        "optimizer_name": optimizer_name,
        "optimizer": rest,
        "precomputed": precomputed_key,
        "ema_step": str(ema.step),
        "loss_scale": json.dumps(scaler.state_dict()),
    }
    save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, path, metadata=metadata)


def read_state(
    path: Path,
    parameters: Mapping[str, torch.nn.Parameter],
    ema: Ema,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    *,
    optimizer_name: str,
    precomputed_key: str,
) -> None:
    """Puts back what `write_state` wrote, in place.

    Raises:
        UserError: the file is damaged, or of a run of another shape, optimizer or other pictures.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        facts = {name: metadata[name] for name in ("optimizer_name", "optimizer", "precomputed", "ema_step")}
    except (FileNotFoundError, SafetensorError, KeyError, TypeError) as error:  # else of the disk, and may pass
        raise UserError(
            f"{path}: damaged ({type(error).__name__}); delete {path.parent} to go on from an earlier epoch"
        ) from None
    _refuse_foreign(path, facts, tensors, parameters, optimizer_name=optimizer_name, precomputed_key=precomputed_key)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"raw/{name}"])
            ema.average[name].copy_(tensors[f"ema/{name}"])
    ema.step = int(facts["ema_step"])
    prefix = "optimizer/"
    kept = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    restore_optimizer(optimizer, parameters, kept, facts["optimizer"])
    if loss_scale := json.loads(metadata.get("loss_scale", "{}")):  # that of fp16
        scaler.load_state_dict(loss_scale)


def _refuse_foreign(
    path: Path,
    facts: Mapping[str, str],
    tensors: Mapping[str, Tensor],
    parameters: Mapping[str, Tensor],
    *,
    optimizer_name: str,
    precomputed_key: str,
) -> None:
    if {name for name in tensors if name.startswith("raw/")} != {f"raw/{name}" for name in parameters}:
        raise UserError(f"{path}: of a run with another base model, training.method or lora.target_modules")
    for name, parameter in parameters.items():
        if tensors[f"raw/{name}"].shape != parameter.shape:
            raise UserError(f"{path}: of a run with another base model or lora.rank: {name}")
    if facts["optimizer_name"] != optimizer_name:
        raise UserError(f"{path}: of a run with training.optimizer {facts['optimizer_name']}, not {optimizer_name}")
    if facts["precomputed"] != precomputed_key:
        raise UserError(f"{path}: of a run on other photographs, prompts or validation settings; take another name")


def write_config(config: Config, folder: Path) -> None:
    """The configuration as a file that `--config` reads."""
    write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), folder / "config.yaml")


def publish(
    part: Path,
    run: Path,
    progress: TrainingProgress,
    *,
    best_epoch: int,
    contenders: Collection[int] = (),
    keep_last: int,
) -> Path:
    """Renames a finished checkpoint into place, and lets the run's links follow (see `follow`).

    Args:
        part: folder inside `run` with everything but `run.json`.
        contenders: other epochs that may yet be best.
    """
    write_json({"epoch": progress.epoch, "updates": progress.updates, "history": progress.history}, part / "run.json")
    for path in part.rglob("*"):
        if path.is_file():
            _flush(path)
    folder = run / f"epoch_{progress.epoch:04d}"
    part.rename(folder)
    follow(run, progress, best_epoch=best_epoch, contenders=contenders, keep_last=keep_last)
    return folder


def follow(
    run: Path, progress: TrainingProgress, *, best_epoch: int, contenders: Collection[int] = (), keep_last: int
) -> None:
    """Moves a run's links and history to its newest checkpoint, and removes those that are neither new nor best.

    A second time changes nothing: a run that was killed in the middle of it does it again.
    """
    folder = run / f"epoch_{progress.epoch:04d}"
    if (folder / GRID_NAME).is_file():  # it outlives the checkpoint: for the report, and MLflow may not have it yet
        (run / GRIDS).mkdir(exist_ok=True)
        shutil.copyfile(folder / GRID_NAME, run / GRIDS / f"{folder.name}.png")
    link(run / "latest", folder.name)
    best = run / f"epoch_{best_epoch:04d}"
    link(run / "best", best.name if best.is_dir() else folder.name)  # it may lie in the run that this one goes on from
    write_json(progress.history, run / "history.json")
    kept = {best_epoch, *contenders, *range(progress.epoch - keep_last + 1, progress.epoch + 1)}
    for old in run.glob("epoch_*"):
        if old.name.removeprefix("epoch_").isdecimal() and _epoch_of(old) not in kept:
            shutil.rmtree(old)


def newest_checkpoint(run: Path) -> Path | None:
    """A run's checkpoint of its last epoch, whether or not `latest` points there yet; None: there is none."""
    named = [folder for folder in run.glob("epoch_*") if folder.name.removeprefix("epoch_").isdecimal()]
    return max((folder for folder in named if (folder / "run.json").is_file()), key=_epoch_of, default=None)


def _epoch_of(folder: Path) -> int:
    return int(folder.name.removeprefix("epoch_"))


def _flush(path: Path) -> None:
    """Has a file's bytes on the disk before it gets its name: a machine may lose power."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def read_progress(folder: Path) -> TrainingProgress:
    """Epoch, updates and history of a checkpoint. Raises UserError for a folder that is none."""
    try:
        values = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        return TrainingProgress(int(values["epoch"]), int(values["updates"]), list(values["history"]))
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"{folder}: not a checkpoint: run.json: {type(error).__name__} {error}") from None


def start_from(checkpoint: Path, run: Path) -> None:
    """Makes a checkpoint of another run the first of a new one, which goes on from it with that run's history.

    Raises:
        UserError: it holds no state to go on from, or the run has begun already.
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
    _copy(checkpoint, run / name)  # first: a run that is killed here goes on from its newest one
    for epoch in {int(entry["epoch"]) for entry in progress.history if entry["epoch"] <= progress.epoch}:
        folder = checkpoint.parent / f"epoch_{epoch:04d}"  # the best epoch so far may be one of these
        if epoch != progress.epoch and folder.is_dir():
            _copy(folder, run / folder.name)
    write_json(progress.history, run / "history.json")
    link(run / "best", name)
    link(run / "latest", name)


def _copy(checkpoint: Path, context: Path) -> None:
    """Copies a checkpoint beside and renames it into place, if it is not there."""
    beside = context.with_name(f".{context.name}.part")
    if not context.exists():
        shutil.rmtree(beside, ignore_errors=True)
        shutil.copytree(checkpoint, beside)
        beside.rename(context)


def link(context: Path, target: str) -> None:
    """Makes `context` a symbolic link to `target`, in one step; an older link is replaced."""
    beside = context.with_name(f".{context.name}.{os.getpid()}.part")  # other studies end at the same time
    beside.unlink(missing_ok=True)
    os.symlink(target, beside)
    beside.replace(context)
