"""What a run leaves on disk: `epoch_0005/`, links `best` and `latest`, `history.json`, `config.yaml`.

A checkpoint is written beside and renamed into place, so that one that can be seen is whole. It holds
`pytorch_lora_weights.safetensors`, the adapter that was scored; `state.safetensors`, the raw adapter, its average and
the optimizer's moments; `run.json`, epoch, updates, scores and configuration; `grid.png`.
"""

import json
import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from woundray.config import Config
from woundray.errors import UserError
from woundray.training.ema import Ema

History = list[dict[str, float]]


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    epoch: int
    updates: int
    history: History


def pack(parameters: Mapping[str, Tensor], ema: Ema, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """All tensors that training changes, by name."""
    tensors = {f"raw/{name}": tensor.detach() for name, tensor in parameters.items()}
    tensors |= {f"ema/{name}": tensor for name, tensor in ema.average.items()}
    for name, parameter in parameters.items():
        tensors |= {f"optimizer/{key}/{name}": tensor for key, tensor in optimizer.state[parameter].items()}
    return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}


def unpack(
    folder: Path, parameters: Mapping[str, Tensor], ema: Ema, optimizer: torch.optim.Optimizer, updates: int
) -> None:
    """Puts the tensors of a checkpoint back, in place.

    Raises:
        UserError: the file is damaged or of a run of another shape.
    """
    path = folder / "state.safetensors"
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{path}: damaged ({type(error).__name__}); delete {folder} to go on from an earlier epoch"
        ) from None
    expected = {f"raw/{name}" for name in parameters}
    if {name for name in tensors if name.startswith("raw/")} != expected:
        raise UserError(f"{path}: of a run with another base model or other lora.target_modules")
    with torch.no_grad():
        for name, parameter in parameters.items():
            if tensors[f"raw/{name}"].shape != parameter.shape:
                raise UserError(f"{path}: of a run with another lora.rank: {name}")
            parameter.copy_(tensors[f"raw/{name}"])
            ema.average[name].copy_(tensors[f"ema/{name}"])
            optimizer.state[parameter] = {
                key: tensors[f"optimizer/{key}/{name}"].to("cpu" if key == "step" else parameter.device)
                for key in ("step", "exp_avg", "exp_avg_sq")
            }
    ema.step = updates


def write_json(values: Any, path: Path) -> None:
    """Writes JSON beside and renames it into place."""
    beside = path.with_name(f".{path.name}.part")
    beside.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    beside.replace(path)


def write_config(config: Config, folder: Path) -> None:
    """The configuration as a file that `--config` reads."""
    beside = folder / ".config.yaml.part"
    beside.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
    beside.replace(folder / "config.yaml")


def publish(
    part: Path, run: Path, progress: Progress, *, best_epoch: int, contenders: Collection[int] = (), keep_last: int
) -> Path:
    """Renames a finished checkpoint into place, moves the links, and removes what is neither new nor best.

    Args:
        part: folder inside `run` with everything but `run.json`.
        contenders: other epochs that may yet be best.
    """
    write_json({"epoch": progress.epoch, "updates": progress.updates, "history": progress.history}, part / "run.json")
    folder = run / f"epoch_{progress.epoch:04d}"
    if folder.exists():  # left by a run that died between renaming and linking
        shutil.rmtree(folder)
    part.rename(folder)
    link(run / "latest", folder.name)
    link(run / "best", f"epoch_{best_epoch:04d}")
    write_json(progress.history, run / "history.json")
    kept = {best_epoch, *contenders, *range(progress.epoch - keep_last + 1, progress.epoch + 1)}
    for old in run.glob("epoch_*"):
        if int(old.name.removeprefix("epoch_")) not in kept:
            shutil.rmtree(old)
    return folder


def read_progress(folder: Path) -> Progress:
    """Epoch, updates and history of a checkpoint. Raises UserError for a folder that is none."""
    try:
        values = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        return Progress(int(values["epoch"]), int(values["updates"]), list(values["history"]))
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"{folder}: not a checkpoint: run.json: {type(error).__name__} {error}") from None


def link(place: Path, target: str) -> None:
    """Makes `place` a symbolic link to `target`, in one step; an older link is replaced."""
    beside = place.with_name(f".{place.name}.part")
    beside.unlink(missing_ok=True)
    os.symlink(target, beside)
    beside.replace(place)
