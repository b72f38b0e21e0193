"""Parse cells of a table: numbers, phases, missing values; ambiguous cells are refused."""

import re
import unicodedata

from woundray.data.dataset import PHASES

_LABELS = {
    "i": "I",
    "inflammatory": "I",
    "inflammation": "I",
    "p": "P",
    "proliferative": "P",
    "proliferation": "P",
    "r": "R",
    "remodeling": "R",
    "remodelling": "R",
}
# also the errors of Excel in German, French, Spanish, Italian, Portuguese
_MISSING = {"", "n/a", "na", "nan", "null", "none", "-", "?", "#n/a", "#nv", "#n/d", "#nd", "#n/v"}
_BROKEN_FORMULA = re.compile(r"#[\w/]+[!?]")  # #REF!, #NAME?, #DIV/0!
_WHOLE = re.compile(r"([+-]?\d+)(?:[.,]0*)?")
_NUMBER = re.compile(r"[+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][+-]?\d+)?")
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+")


class CellError(ValueError):
    """Cell that can not be parsed, or is ambiguous; the message quotes it."""


def plain(text: str) -> str:
    """Strip blanks, and normalise Unicode to NFC, as macOS writes `é` as two characters."""
    return unicodedata.normalize("NFC", text.replace("\xa0", " ")).strip()


def is_missing(text: str) -> bool:
    """Return whether a cell is a missing value: empty, NaN, #N/A, #REF! ..."""
    text = plain(text).casefold()
    return text in _MISSING or _BROKEN_FORMULA.fullmatch(text) is not None


def phase_of(text: str) -> str | None:
    """Return I, P or R for `i`, `Inflammatory`, `phase I` ...; None for any other label."""
    words = re.sub(r"[\s_-]+", " ", plain(text).casefold()).strip()
    return _LABELS.get(words.removeprefix("phase ").removesuffix(" phase"))


def whole_number(text: str) -> int:
    """Parse `7`, `7.0` or `7,0` as 7. Raises CellError for other text, also for `1.4`, which is not rounded."""
    text = plain(text)
    _refuse_thousands(text)
    found = _WHOLE.fullmatch(text)
    if found is None:
        if _NUMBER.fullmatch(text):
            raise CellError(f"{text!r} is no whole number, and is not rounded")
        raise CellError(f"{text!r} is no number")
    return int(found[1])


def pixels(text: str) -> int:
    """Parse a coordinate, rounded to whole pixels; `30,4` is 30.4. Raises CellError."""
    text = plain(text)
    _refuse_thousands(text)
    if _NUMBER.fullmatch(text) is None:
        raise CellError(f"{text!r} is no number")
    value = float(text.replace(",", "."))
    if abs(value) > 1e9:
        raise CellError(f"{text!r} is no coordinate in a picture")
    return round(value)


def _refuse_thousands(text: str) -> None:
    """Raise CellError for a comma that can be a decimal or a thousands separator."""
    if _THOUSANDS.fullmatch(text):
        raise CellError(f"{text!r} can be {text.replace(',', '')} or {text.replace(',', '.')}: write one of them")


assert set(_LABELS.values()) == set(PHASES)
