"""Studies of woundray 0.1: their files get the names of this version, once, when the study is first opened."""

import json
from pathlib import Path

from woundray.system.atomic_files import write_json
from woundray.tracking.journal import JOURNAL_NAME

_FOLDER, _EARLIER_FOLDER = "precomputed", "materials"
_FILES = {
    "bank.safetensors": "latent_cache.safetensors",
    "baseline.json": "base_model_scores.json",
    "baseline.png": "base_model.png",
    "baseline_new.json": "base_model_new_seeds.json",
}
"""File of 0.1 -> file of this version, in the folder of precomputed data."""


def upgrade_layout(study: Path) -> None:
    """Rename the precomputed data of a study of woundray 0.1; a second call changes nothing.

    The folder is renamed last, so that an upgrade that was interrupted is completed by the next call.
    """
    for pattern in (_EARLIER_FOLDER, f"folds/*/{_EARLIER_FOLDER}", f"refit/*/{_EARLIER_FOLDER}"):
        for folder in study.glob(pattern):
            for earlier, name in _FILES.items():
                if (folder / earlier).is_file():
                    (folder / earlier).rename(folder / name)
            _upgrade_reference(folder / "reference.json")
            folder.rename(folder.with_name(_FOLDER))


def upgrade_layout_of(checkpoint: Path) -> None:
    """Upgrade the study that a checkpoint belongs to, if it has one."""
    study = next((folder for folder in checkpoint.parents if (folder / JOURNAL_NAME).is_file()), None)
    if study is not None:
        upgrade_layout(study)


def _upgrade_reference(file: Path) -> None:
    """Rename the key of the real-vs-real baseline."""
    if not file.is_file():
        return
    facts = json.loads(file.read_text(encoding="utf-8"))
    if "floor" in facts:
        write_json({"real_baseline" if key == "floor" else key: value for key, value in facts.items()}, file)
