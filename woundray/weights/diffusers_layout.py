"""Diffusers' folder layout: which files of a base model are opened, and which of those are not there."""

import json
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, cast

from woundray.errors import UserError

PredictionType = Literal["epsilon", "v_prediction"]

WEIGHTS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "text_encoder_2": "model",
}
"""Part -> name of its weights file without ending; SDXL alone has a second text encoder."""

WEIGHTS_NAME = "pytorch_lora_weights.safetensors"
"""File of an adapter, by the name that `load_lora_weights(folder)` of diffusers looks for."""
UNET_FOLDER = "unet"

_SETTINGS = ("model_index.json", "scheduler/*.json", "tokenizer*/*.json", "tokenizer*/*.txt", "*/config.json")


def needed_files(names: Iterable[str], *, half: bool) -> list[str]:
    """Of all files of a repository those that a run opens: no second copy of weights, no pickles, no other parts.

    Args:
        names: paths in the repository.
        half: prefer fp16 weights; without, fp32 is preferred. A part that comes in one of them only is taken so.
    """
    names = sorted(names)
    parts = {*WEIGHTS, "scheduler", "tokenizer", "tokenizer_2", "model_index.json"}
    wanted = [name for name in names if name.split("/")[0] in parts and _matches(name, _SETTINGS)]
    for part, stem in WEIGHTS.items():
        whole = [name for name in names if _matches(name, _full(part, stem))]
        halved = [name for name in names if name == f"{part}/{stem}.fp16.safetensors"]
        wanted += (halved or whole) if half else (whole or halved)
    return wanted


def missing_files(folder: Path) -> list[str]:
    """What a folder lacks of a base model; empty where it is whole."""
    if not (folder / "model_index.json").is_file():
        return ["model_index.json"]
    index = read_json(folder / "model_index.json")
    parts = [part for part in WEIGHTS if part != "text_encoder_2" or _has(index, part)]
    tokenizers = ["tokenizer", *(["tokenizer_2"] if _has(index, "tokenizer_2") else [])]
    lacking = [f"{part}/config.json" for part in parts if not (folder / part / "config.json").is_file()]
    lacking += [f"{part}/{WEIGHTS[part]}.safetensors" for part in parts if weights_of(folder, part) is None]
    lacking += [f"{name}/" for name in tokenizers if not any((folder / name).glob("*.json"))]
    if not (folder / "scheduler/scheduler_config.json").is_file():
        lacking.append("scheduler/scheduler_config.json")
    return lacking


def has_weights(folder: Path) -> bool:
    """Whether a checkpoint's folder holds an adapter, or a whole UNet."""
    return (folder / WEIGHTS_NAME).is_file() or (folder / UNET_FOLDER / "config.json").is_file()


def weights_of(folder: Path, part: str) -> Literal["fp32", "fp16"] | None:
    """Which of its weights a part has: the plain ones (fp32 as a rule), else those of half precision, else None."""
    names = [f"{part}/{path.name}" for path in (folder / part).glob("*")]
    if any(_matches(name, _full(part, WEIGHTS[part])) for name in names):
        return "fp32"
    return "fp16" if f"{part}/{WEIGHTS[part]}.fp16.safetensors" in names else None


def prediction_type(folder: Path) -> PredictionType:
    """What the scheduler's config says that the UNet predicts; diffusers' default, epsilon, where it says nothing.

    Raises:
        UserError: another one than the two that are known.
    """
    kind = read_json(folder / "scheduler/scheduler_config.json").get("prediction_type", "epsilon")
    if kind not in ("epsilon", "v_prediction"):
        raise UserError(
            f"{folder}/scheduler: prediction_type {kind} is not epsilon or v_prediction; use another base model"
        )
    return cast(PredictionType, kind)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises UserError that names the file."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: should hold an object, not a {type(values).__name__}")
    return values


def _has(index: dict[str, Any], part: str) -> bool:
    return bool(index.get(part)) and index[part][0] is not None


def _full(part: str, stem: str) -> tuple[str, ...]:
    """One file, or shards with their index."""
    return tuple(f"{part}/{stem}{end}" for end in (".safetensors", "-*-of-*.safetensors", ".safetensors.index.json"))


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
