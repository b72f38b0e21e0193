"""Names of checkpoints for tables and grids of images, such as `trial 4`."""

import re
from collections.abc import Sequence
from pathlib import Path

from woundray.tracking.journal import JOURNAL_NAME, Journal, TrialStarted

_EPOCH = re.compile(r"epoch_0*(\d+)")


def checkpoint_names(checkpoints: Sequence[Path]) -> list[str]:
    """Return a name of each: `trial 4`, with its epoch and its study's name where the names would be equal otherwise.

    The name is the path for a checkpoint of no trial, and for all if the names can not be made different.
    """
    candidates = [_candidates(checkpoint) for checkpoint in checkpoints]
    for length in range(max(map(len, candidates))):
        names = [own[min(length, len(own) - 1)] for own in candidates]
        if len(set(names)) == len(names):
            return names
    return [str(checkpoint) for checkpoint in checkpoints]


def _candidates(checkpoint: Path) -> list[str]:
    """Return possible names of one checkpoint, the shortest first."""
    found = _EPOCH.fullmatch(checkpoint.name)
    epoch = f"epoch {found[1]}" if found else checkpoint.name
    run, parent = checkpoint.parent, checkpoint.parent.parent
    study = parent.parent.name if parent.name == "trials" else parent.name
    number = _number(parent.parent / JOURNAL_NAME, run.name) if parent.name == "trials" else None
    if number is not None:
        return [f"trial {number}", f"trial {number} {epoch}", f"{study} trial {number} {epoch}"]
    if run.name == "run":
        return [study, f"{study} {epoch}"]
    parts = checkpoint.parts
    return ["/".join(parts[-length:]) for length in range(1, len(parts) + 1)]


def _number(journal: Path, trial: str) -> int | None:
    """Return a trial's number in its study; None if it is not in the journal."""
    events = Journal(journal).events() if journal.is_file() else []
    return next((event.number for event in events if isinstance(event, TrialStarted) and event.trial == trial), None)
