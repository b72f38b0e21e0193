"""Folder layout of diffusers: which files of a base model are needed, and which of them are missing."""

import json
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, cast

from woundray.errors import UserError

PredictionType = Literal["epsilon", "v_prediction"]

WEIGHTS_STEMS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "text_encoder_2": "model",
}
"""Part of a pipeline -> name of its weights file without suffix; only SDXL has a second text encoder."""

WEIGHTS_NAME = "pytorch_lora_weights.safetensors"
"""File of a LoRA adapter, with the name that diffusers' `load_lora_weights(folder)` expects."""
UNET_FOLDER = "unet"

_CONFIG_PATTERNS = ("model_index.json", "scheduler/*.json", "tokenizer*/*.json", "tokenizer*/*.txt", "*/config.json")


def needed_files(names: Iterable[str], *, half: bool) -> list[str]:
    """Select the files of a repository that a run needs: one copy of the weights, no pickles, no other parts.

    Args:
        names: relative paths in the repository.
        half: prefer fp16 weights, else fp32. A part that exists in one precision only is taken in that one.
    """
    names = sorted(names)
    parts = {*WEIGHTS_STEMS, "scheduler", "tokenizer", "tokenizer_2", "model_index.json"}
    needed = [name for name in names if name.split("/")[0] in parts and _matches(name, _CONFIG_PATTERNS)]
    for part, stem in WEIGHTS_STEMS.items():
        fp32 = [name for name in names if _matches(name, _fp32_patterns(part, stem))]
        fp16 = [name for name in names if name == f"{part}/{stem}.fp16.safetensors"]
        needed += (fp16 or fp32) if half else (fp32 or fp16)
    return needed


def missing_files(folder: Path) -> list[str]:
    """Return the files of a base model that a folder lacks; empty if it is complete."""
    if not (folder / "model_index.json").is_file():
        return ["model_index.json"]
    index = read_json(folder / "model_index.json")
    parts = [part for part in WEIGHTS_STEMS if part != "text_encoder_2" or _has(index, part)]
    tokenizers = ["tokenizer", *(["tokenizer_2"] if _has(index, "tokenizer_2") else [])]
    missing = [f"{part}/config.json" for part in parts if not (folder / part / "config.json").is_file()]
    missing += [f"{part}/{WEIGHTS_STEMS[part]}.safetensors" for part in parts if not weights_precision(folder, part)]
    missing += [f"{name}/" for name in tokenizers if not any((folder / name).glob("*.json"))]
    if not (folder / "scheduler/scheduler_config.json").is_file():
        missing.append("scheduler/scheduler_config.json")
    return missing


def has_weights(folder: Path) -> bool:
    """Return whether the folder of a checkpoint holds an adapter or a UNet."""
    return (folder / WEIGHTS_NAME).is_file() or (folder / UNET_FOLDER / "config.json").is_file()


def weights_precision(folder: Path, part: str) -> Literal["fp32", "fp16"] | None:
    """Return the precision of the weights of a part: fp32 (files without `fp16` in the name), else fp16, else None."""
    names = [f"{part}/{path.name}" for path in (folder / part).glob("*")]
    if any(_matches(name, _fp32_patterns(part, WEIGHTS_STEMS[part])) for name in names):
        return "fp32"
    return "fp16" if f"{part}/{WEIGHTS_STEMS[part]}.fp16.safetensors" in names else None


def prediction_type(folder: Path) -> PredictionType:
    """Return the prediction type of the UNet from the scheduler's config; epsilon, diffusers' default, if not given.

    Raises:
        UserError: it is neither epsilon nor v_prediction.
    """
    kind = read_json(folder / "scheduler/scheduler_config.json").get("prediction_type", "epsilon")
    if kind not in ("epsilon", "v_prediction"):
        raise UserError(
            f"{folder}/scheduler: prediction_type {kind} is not epsilon or v_prediction; use another base model"
        )
    return cast(PredictionType, kind)


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that holds a JSON object. Raises UserError that names the file."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: should hold an object, not a {type(values).__name__}")
    return values


def _has(index: dict[str, Any], part: str) -> bool:
    """Return whether `model_index.json` lists a part."""
    return bool(index.get(part)) and index[part][0] is not None


def _fp32_patterns(part: str, stem: str) -> tuple[str, ...]:
    """Return the patterns of fp32 weights: one file, or shards with their index."""
    return tuple(f"{part}/{stem}{end}" for end in (".safetensors", "-*-of-*.safetensors", ".safetensors.index.json"))


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
