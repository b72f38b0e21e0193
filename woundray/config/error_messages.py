"""Validation errors in plain words, with the nearest valid name; dotted and nested names of settings."""

import difflib
import re
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

_MOST_NAMED = 3

RENAMED = {
    "data.likeness": "data.duplicate_correlation",
    "metrics.floor_repeats": "metrics.baseline_repeats",
    "effect.deals": "effect.repeats",
}
"""Setting of version 0.1 -> its present name. Old names are read in saved files only, see `woundray.config.saved`."""


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested values: `{"lora": {"rank": 8}}` -> `{"lora.rank": 8}`."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def nest(values: dict[str, Any]) -> dict[str, Any]:
    """Nest dotted names: `{"lora.rank": 8}` -> `{"lora": {"rank": 8}}`.

    A name below another name that has a value stays dotted.
    """
    nested: dict[str, Any] = {}
    for dotted, value in values.items():
        *path, leaf = dotted.split(".")
        target = nested
        for name in path:
            below = target.setdefault(name, {})
            if not isinstance(below, dict):
                target, leaf = nested, dotted
                break
            target = below
        target[leaf] = value
    return nested


def fields(model: type[BaseModel], prefix: str = "") -> dict[str, FieldInfo]:
    """Return dotted name -> pydantic field, of every setting."""
    found: dict[str, FieldInfo] = {}
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found |= fields(kind, f"{prefix}{name}.")
        else:
            found[prefix + name] = field
    return found


def names(model: type[BaseModel]) -> list[str]:
    """Return the dotted names of all settings."""
    return list(fields(model))


def nearest(name: str, known: Iterable[str], written: str = "") -> str:
    """Return `; did you mean lora.rank?`, or an empty string if no known name is near.

    The present name of a setting that was renamed is suggested first. Then all names that end with `name`, else the
    nearest to the whole name, else the nearest to its last part.

    Args:
        written: prefix of each suggestion, such as `--`.
    """
    known, leaf = list(known), name.rsplit(".", 1)[-1]
    if RENAMED.get(name) in known:
        return f"; did you mean {written}{RENAMED[name]}?"
    last = [full.rsplit(".", 1)[-1] for full in known]
    by_whole = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    near = [leaf] if leaf in last else [] if by_whole else difflib.get_close_matches(leaf, last, n=1)
    found = [full for full, end in zip(known, last, strict=True) if end in near] or by_whole
    return f"; did you mean {' or '.join(written + full for full in found[:_MOST_NAMED])}?" if found else ""


def explain(error: ValidationError, model: type[BaseModel], source: str) -> str:
    """Return one line about the first error: source, dotted name, what is wrong, the nearest valid name."""
    first, *others = error.errors()
    dotted = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        text = f"{source}: {dotted} is not a setting{nearest(dotted, names(model))}"
    elif first["type"] == "model_type":
        below = next((name for name in names(model) if name.startswith(f"{dotted}.")), "")
        text = f"{source}: {dotted} is a group of settings, such as {below}, and has no value of its own"
    else:
        text = f"{source}: {dotted} {complaint(error)}"
    return text + (f" (and {len(others)} more)" if others else "")


def complaint(error: ValidationError) -> str:
    """Return the first error without the name of the field: `should be a valid integer, not 'x'`."""
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ").replace("Input should be", "should be")
    message = message.partition(", unable to parse")[0]
    if first["input"] is None:
        return f"{message}, not null; in quotes it is a word"
    return message + ("" if isinstance(first["input"], dict | BaseModel) else f", not {as_written(first['input'])}")


def as_written(value: Any) -> str:
    """Format a value for a message: a single word without quotes, whether it is a string or a number."""
    return value if isinstance(value, str) and re.fullmatch(r"[\w.+-]+", value) else repr(value)
