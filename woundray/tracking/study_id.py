"""Identifier of a study, which it keeps in its folder: by it, and not by a name, MLflow's runs are found."""

from pathlib import Path
from uuid import uuid4

from woundray.system.private_folder import write_once
from woundray.tracking.journal import JOURNAL_NAME

ID_NAME = "study_id"
"""File in the folder of a study, run or measurement."""

_LEGACY_PREFIX = "earlier-"


def study_id(folder: Path) -> str:
    """The identifier of what is in a folder, made when it is first asked for.

    Two studies of one name have two, and so has one whose folder was removed and made again.
    """
    file = folder / ID_NAME
    if not file.exists():
        has_begun = any((folder / name).exists() for name in (JOURNAL_NAME, "config.yaml"))
        write_once(file, (_LEGACY_PREFIX if has_begun else "") + uuid4().hex)
    return file.read_text(encoding="ascii")


def is_legacy_id(identifier: str) -> bool:
    """Whether the study began before studies had identifiers (woundray 0.1): its runs are known by its name."""
    return identifier.startswith(_LEGACY_PREFIX)
