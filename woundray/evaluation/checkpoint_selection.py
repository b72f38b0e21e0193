"""Which epoch of a run is kept. An entry of a history holds `epoch`, the objective, and where there are such its z over
the floor (`<objective>_z`) and `copies_flag`."""

from collections.abc import Mapping, Sequence

Entry = Mapping[str, float]


def best_epoch(history: Sequence[Entry], objective: str) -> int:
    """The earliest epoch within one standard deviation of the lowest score, the deviation being the floor's.

    The lowest of many equal epochs is low by chance (the lowest of 20 by 1.9 deviations): later epochs that are no
    better only copy more. Without a z it is the lowest score, the earliest of equals. An epoch whose pictures copy
    training photographs is taken only where all do.
    """
    entries = _eligible(history)
    lowest = _lowest(entries, objective)
    return int(next(entry["epoch"] for entry in entries if _within_one_sd(entry, lowest, objective)))


def contenders(history: Sequence[Entry], objective: str) -> set[int]:
    """Epochs that are best, or become it once a later epoch is lower: their checkpoints must stay."""
    entries = _eligible(history)
    lowest = _lowest(entries, objective)
    found, record = set(), float("inf")
    for entry in entries:
        if entry[objective] < record and _within_one_sd(entry, lowest, objective):
            found.add(int(entry["epoch"]))
        record = min(record, entry[objective])
    return found


def leading_epoch(history: Sequence[Entry], objective: str, min_delta: float = 0.0) -> int:
    """Epoch of the lowest score; an epoch takes the lead only if it is lower by more than min_delta."""
    best = history[0]
    for entry in history[1:]:
        if entry[objective] < best[objective] - min_delta:
            best = entry
    return int(best["epoch"])


def copies(entry: Entry) -> bool:
    """Whether an epoch's pictures copy training photographs beyond what unseen photographs would seem to."""
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
