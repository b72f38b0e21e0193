"""Identifier of a study, in a file of its folder: MLflow's runs are found by it, and not by a name."""

from pathlib import Path
from uuid import uuid4

from woundray.system.private_folder import write_once
from woundray.tracking.journal import JOURNAL_NAME

ID_NAME = "study_id"
"""File in the folder of a study, run or measurement."""

_LEGACY_PREFIX = "earlier-"


def study_id(folder: Path) -> str:
    """Return the identifier of the study, run or measurement in a folder; the first call creates it.

    Two studies of the same name have different ones, and so has a study whose folder was removed and created again.
    """
    file = folder / ID_NAME
    if not file.exists():
        has_begun = any((folder / name).exists() for name in (JOURNAL_NAME, "config.yaml"))
        write_once(file, (_LEGACY_PREFIX if has_begun else "") + uuid4().hex)
    return file.read_text(encoding="ascii")


def is_legacy_id(identifier: str) -> bool:
    """Return whether the study is one of woundray 0.1, without identifiers: its runs are found by its name."""
    return identifier.startswith(_LEGACY_PREFIX)
