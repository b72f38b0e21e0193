"""Names of checkpoints for tables and pictures: `trial 4`, not where it lies."""

import re
from collections.abc import Sequence
from pathlib import Path

from woundray.tracking.journal import JOURNAL_NAME, Journal, TrialStarted

_EPOCH = re.compile(r"epoch_0*(\d+)")


def checkpoint_names(checkpoints: Sequence[Path]) -> list[str]:
    """A name of each: `trial 4`, with its epoch and its study's name where that is needed to tell them apart.

    A checkpoint that is of no study's trial, or whose name would be another's, too, has its path as its name.
    """
    spellings = [_spellings(checkpoint) for checkpoint in checkpoints]
    for length in range(max(map(len, spellings))):
        names = [own[min(length, len(own) - 1)] for own in spellings]
        if len(set(names)) == len(names):
            return names
    return [str(checkpoint) for checkpoint in checkpoints]


def _spellings(checkpoint: Path) -> list[str]:
    """Names of one checkpoint, the shortest first."""
    found = _EPOCH.fullmatch(checkpoint.name)
    epoch = f"epoch {found[1]}" if found else checkpoint.name
    owner, kind = checkpoint.parent, checkpoint.parent.parent
    study = kind.parent.name if kind.name == "trials" else kind.name
    number = _number(kind.parent / JOURNAL_NAME, owner.name) if kind.name == "trials" else None
    if number is not None:
        return [f"trial {number}", f"trial {number} {epoch}", f"{study} trial {number} {epoch}"]
    if owner.name == "run":
        return [study, f"{study} {epoch}"]
    parts = checkpoint.parts
    return ["/".join(parts[-length:]) for length in range(1, len(parts) + 1)]


def _number(journal: Path, trial: str) -> int | None:
    """A trial's number in its study; None: the study does not know it."""
    events = Journal(journal).events() if journal.is_file() else []
    return next((event.number for event in events if isinstance(event, TrialStarted) and event.trial == trial), None)
