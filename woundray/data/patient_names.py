"""Patients as tables name them: one is often written in several ways, and would stand on both sides of a split."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping

from woundray.config.data import SimilarPatients
from woundray.errors import UserError

_MOST_SHOWN = 4


def patient_key(name: str) -> str:
    """Equal for names that differ only by zeros before a number, `.0`, blanks, dashes, case, or a `P` before a number.

    `1`, `001`, `1.0`, `P001` and `Patient 1` have one key.
    """
    key = re.sub(r"[\s_#-]+", "", unicodedata.normalize("NFKC", name).casefold())
    key = re.sub(r"[.,]0*$", "", key)
    key = re.sub(r"^(?:patient|pat|pt|p)(?=\d+$)", "", key)
    return re.sub(r"0*(\d+)", r"\1", key)


def similar_names(names: Iterable[str]) -> list[list[str]]:
    """Sets of two or more different names of one key, each in the order of `names`."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for name in names:
        found[patient_key(name)].setdefault(name)
    return [list(alike) for alike in found.values() if len(alike) > 1]


def canonical_names(places: Mapping[str, str], similar: SimilarPatients, column: str) -> dict[str, str]:
    """The name that each similar one is to be read as: with `join` the first of its kind, with `apart` none.

    places: name -> where it stands first, in the order of the data set.

    Raises:
        UserError: `refuse`, and there are similar names.
    """
    alike = similar_names(places)
    if not alike or similar == "apart":
        return {}
    if similar == "join":
        return {name: names[0] for names in alike for name in names[1:]}
    names = alike[0]
    shown = ", ".join(f"{name!r} ({places[name]})" for name in names[:_MOST_SHOWN])
    more = f" and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else ""
    others = f"; {len(alike) - 1} more {column}s are written in several ways" if len(alike) > 1 else ""
    raise UserError(
        f"{column} {shown}{more} may be one; write each {column} in one way, or set data.similar_patients to join "
        f"(they are one) or apart (they are not){others}"
    )
