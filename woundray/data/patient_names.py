"""Spellings of patient names. One patient written in several ways would be on both sides of a split."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping

from woundray.config.data import SimilarPatients
from woundray.errors import UserError

_MAX_SHOWN = 4


def patient_key(name: str) -> str:
    """Return a key that is equal for different spellings of one patient.

    Spellings differ by zeros before a number, `.0`, blanks, dashes, case, or a `P` before a number: `1`, `001`, `1.0`,
    `P001` and `Patient 1` have the same key.
    """
    key = re.sub(r"[\s_#-]+", "", unicodedata.normalize("NFKC", name).casefold())
    key = re.sub(r"[.,]0*$", "", key)
    key = re.sub(r"^(?:patient|pat|pt|p)(?=\d+$)", "", key)
    return re.sub(r"0*(\d+)", r"\1", key)


def similar_names(names: Iterable[str]) -> list[list[str]]:
    """Return groups of two or more different names with the same key, in the order of `names`."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for name in names:
        found[patient_key(name)].setdefault(name)
    return [list(group) for group in found.values() if len(group) > 1]


def canonical_names(locations: Mapping[str, str], similar: SimilarPatients, column: str) -> dict[str, str]:
    """Return similar name -> the name that replaces it: the first similar one with `join`; empty with `apart`.

    Args:
        locations: name -> where it occurs first, in the order of the data set.
        column: patient or group, for the message.

    Raises:
        UserError: there are similar names, and `similar` is `refuse`.
    """
    groups = similar_names(locations)
    if not groups or similar == "apart":
        return {}
    if similar == "join":
        return {name: names[0] for names in groups for name in names[1:]}
    names = groups[0]
    shown = ", ".join(f"{name!r} ({locations[name]})" for name in names[:_MAX_SHOWN])
    more = f" and {len(names) - _MAX_SHOWN} more" if len(names) > _MAX_SHOWN else ""
    others = f"; {len(groups) - 1} more {column}s are written in several ways" if len(groups) > 1 else ""
    raise UserError(
        f"{column} {shown}{more} may be one; write each {column} in one way, or set data.similar_patients to join "
        f"(they are one) or apart (they are not){others}"
    )
