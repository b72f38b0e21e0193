"""Checkpoint selection: the epoch of a run that is kept.

An entry of a history has `epoch`, the objective, and where they exist its z over the baseline (`<objective>_z`) and
`copies_flag`.
"""

from collections.abc import Mapping, Sequence

Entry = Mapping[str, float]


def best_epoch(history: Sequence[Entry], objective: str) -> int:
    """Return the earliest epoch within one standard deviation (of the baseline) of the lowest score.

    The lowest of many equal epochs is low by chance (the lowest of 20 by 1.9 deviations), and later epochs that are
    no better only copy more. Without a z the lowest score decides, and the earliest of equals. An epoch whose images
    copy training photographs is chosen only if all do.
    """
    entries = _eligible(history)
    lowest = _lowest(entries, objective)
    return int(next(entry["epoch"] for entry in entries if _within_one_sd(entry, lowest, objective)))


def contenders(history: Sequence[Entry], objective: str) -> set[int]:
    """Return epochs that are best now, or may be after a later, lower epoch: their checkpoints must be kept."""
    entries = _eligible(history)
    lowest = _lowest(entries, objective)
    found, record = set(), float("inf")
    for entry in entries:
        if entry[objective] < record and _within_one_sd(entry, lowest, objective):
            found.add(int(entry["epoch"]))
        record = min(record, entry[objective])
    return found


def leading_epoch(history: Sequence[Entry], objective: str, min_delta: float = 0.0) -> int:
    """Return the epoch of the lowest score; a later epoch leads only if it is lower by more than min_delta."""
    best = history[0]
    for entry in history[1:]:
        if entry[objective] < best[objective] - min_delta:
            best = entry
    return int(best["epoch"])


def copies(entry: Entry) -> bool:
    """Return whether the images of an epoch copy training photographs more often than held-out ones seem to."""
    return entry.get("copies_flag", 0.0) > 0


def _eligible(history: Sequence[Entry]) -> Sequence[Entry]:
    return [entry for entry in history if not copies(entry)] or history


def _lowest(entries: Sequence[Entry], objective: str) -> Entry:
    return min(entries, key=lambda entry: entry[objective])


def _within_one_sd(entry: Entry, lowest: Entry, objective: str) -> bool:
    z = f"{objective}_z"
    if z in entry and z in lowest:
        return entry[z] <= lowest[z] + 1.0
    return entry[objective] <= lowest[objective]
