"""Inputs of precomputed data: their fingerprint, and the message of what has changed since."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from woundray.config import Config
from woundray.data.image_source import ImageSource
from woundray.system.checksums import file_sha256


def fingerprint_inputs(config: Config, base: Path, source: ImageSource) -> dict[str, object]:
    """Collect everything that precomputed data depend on, by name: hashes of files, settings."""
    return {
        "photos": source.content_hash,
        "base": {str(path.relative_to(base)): file_sha256(path) for path in sorted(base.glob("*/*.safetensors"))},
        "resolution": config.model.resolution,
        # settings that group photographs by patient are covered by the groups
        "data": config.data.model_dump(exclude={"root", "similar_patients", "duplicate_correlation"}),
        "prompts": config.prompts.model_dump(),
        "validation": config.validation.model_dump(),
        "floor_repeats": config.metrics.baseline_repeats,  # its name in 0.1, and part of the hash
        "objective": config.metrics.objective,
        "copies": config.quality.copies.model_dump(),
        "seed": config.reproducibility.seed,
        "zero_terminal_snr": config.model.zero_terminal_snr,
        "prior": config.training.prior_pictures if config.training.prior_weight > 0 else 0,
    }


_SETTINGS = {
    "base": "the base model's weights",
    "resolution": "model.resolution",
    "floor_repeats": "metrics.baseline_repeats",
    "objective": "metrics.objective",
    "copies": "quality.copies",
    "seed": "reproducibility.seed",
    "zero_terminal_snr": "model.zero_terminal_snr",
    "prior": "training.prior_pictures",
}


def hash_photographs(source: ImageSource) -> dict[str, str]:
    """Return the path of each photograph -> hash of its pixels, box, phase and group."""
    return {
        photo.path.as_posix(): hashlib.sha256(
            f"{photo.sha256} {photo.phase} {photo.box} {photo.group}".encode()
        ).hexdigest()[:16]
        for photo in source.photos
    }


def change_message(
    folder: Path, facts: Mapping[str, Any], origin: Mapping[str, object], photographs: Mapping[str, str]
) -> str:
    """Return the message of what changed since the data were computed, with the remedy."""
    before: dict[str, str] = facts.get("photographs", {})
    changed = [
        _SETTINGS.get(name, f"the settings of {name}")
        for name, text in facts.get("origin", {}).items()
        if name != "photos" and repr(origin.get(name)) != text
    ]
    for change, names in (
        ("new", photographs.keys() - before.keys()),
        ("gone", before.keys() - photographs.keys()),
        ("changed (pixels, box, phase or patient)", {n for n, h in before.items() if photographs.get(n, h) != h}),
    ):
        if names and before:
            changed.append(f"photographs that are {change}: {len(names)}, such as {min(names)}")
    return (
        f"{folder.parent}: not as it was when it began: {'; '.join(changed) or 'photographs or base model'}; "
        "put that back, or begin another under a new --study.name"
    )
