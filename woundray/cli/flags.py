"""Flags -> values, parsed by the type of their field or setting, without guessing; anything else is refused."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import tyro
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from woundray.config.error_messages import as_written, complaint, nearest
from woundray.config.section import Section
from woundray.errors import UserError

SectionType = TypeVar("SectionType", bound=Section)

_CONFIG = ConfigDict(allow_inf_nan=False, str_max_length=Section.model_config["str_max_length"])

Values = dict[str, Any]
"""Name of a field, or dotted name of a setting -> its value."""


@dataclass(frozen=True)
class Flag:
    """Flag of a command or setting.

    Attributes:
        field: name of the field that it sets.
        spellings: with dashes, the usual one first; empty for a positional argument.
        info: of the pydantic field.
        takes: no value, one, or as many as follow.
        nullable: an empty word, `null` or `none` mean no number.
    """

    field: str
    spellings: tuple[str, ...]
    info: FieldInfo
    takes: Literal["none", "one", "many"]
    nullable: bool = False

    @classmethod
    def of(cls, name: str, info: FieldInfo, *, is_setting: bool = False) -> "Flag":
        """Return the flag of a field. A setting takes a value even if it is true or false."""
        many = get_origin(info.annotation) is tuple
        bare = info.annotation is bool and not is_setting
        spelt = [mark.name for mark in info.metadata if getattr(mark, "name", None)]
        others = [alias for mark in info.metadata for alias in getattr(mark, "aliases", None) or ()]
        spellings = () if _is_positional(info) else (f"--{(spelt or [name])[0]}", *others)
        nullable = is_setting and _is_optional_number(info)
        return cls(name, spellings, info, "many" if many else "none" if bare else "one", nullable)

    @property
    def shown(self) -> str:
        """Name in messages."""
        return self.spellings[0] if self.spellings else self.field.upper()

    def read(self, words: Sequence[str]) -> Any:
        """Parse the value from words. Raises UserError for a value of another type."""
        value: Any = list(words) if self.takes == "many" else words[0]
        if value == "" and _is_path(self.info):
            raise UserError(f"command line: {self.shown} is empty; give a path, or leave it out")
        return self.checked(None if self.nullable and value in ("", "null", "none") else value)

    def checked(self, value: Any) -> Any:
        """Validate a value by the field's type and bounds. Raises UserError."""
        kind = Annotated[self.info.annotation, self.info]  # type: ignore[name-defined]
        try:
            return TypeAdapter(kind, config=_CONFIG).validate_python(value)
        except ValidationError as error:
            raise UserError(f"command line: {self.shown} {complaint(error)}") from None


def flags_of(model: type[BaseModel]) -> list[Flag]:
    """Return the flags of a command, without its settings."""
    return [Flag.of(name, info) for name, info in model.model_fields.items() if not _is_section(info)]


def read_words(arguments: Sequence[str], flags: Sequence[Flag]) -> Values:
    """Parse the words of a command line: field -> value, for the flags that were given.

    A value follows its flag or `=`; a value that begins with `--` must follow `=`. `--` alone ends all flags.

    Raises:
        UserError: an unknown flag, with the nearest known one; a flag without its value, or twice with two values; a
            word too many; a value of another type.
    """
    known = {_normal(spelling): flag for flag in flags for spelling in flag.spellings}
    found: dict[str, list[str]] = {}
    positional: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        spelling, attached = _split(word, known)
        if word == "--":
            positional += rest
            break
        if spelling is None:
            positional.append(word)
            continue
        if spelling not in known:
            names = [name.lstrip("-") for name in known]
            name = spelling.lstrip("-")
            what = "a setting" if "." in name else "a flag"
            raise UserError(f"command line: {word} is not {what}{nearest(name, names, written='--')}")
        flag = known[spelling]
        words = [attached] if attached is not None else _take_values(flag, rest, known)
        if found.setdefault(flag.field, words) != words:
            raise UserError(
                f"command line: {flag.shown} is given twice: {_quoted(found[flag.field])} and {_quoted(words)}"
            )
    values = {flag.field: flag.read(found[flag.field]) for flag in flags if flag.field in found}
    return values | _positional(positional, [flag for flag in flags if not flag.spellings])


def _take_values(flag: Flag, rest: list[str], known: Mapping[str, Flag]) -> list[str]:
    """Remove the values of a flag from `rest` and return them."""
    if flag.takes == "none":
        return ["true"]
    values = list(itertools.takewhile(lambda word: _split(word, known)[0] is None and word != "--", rest))
    values = values if flag.takes == "many" else values[:1]
    if not values:
        raise UserError(
            f"command line: {flag.shown} has no value; one that begins with -- is written {flag.shown}=--VALUE"
        )
    del rest[: len(values)]
    return values


def _positional(positional: list[str], flags: Sequence[Flag]) -> Values:
    """Assign positional words to positional flags, in order. Raises UserError for words that are left over."""
    values: Values = {}
    for flag in flags:
        count = len(positional) if flag.takes == "many" else 1
        words, positional = positional[:count], positional[count:]
        if words:
            values[flag.field] = flag.read(words)
    if positional:
        raise UserError(
            f"command line: {_quoted(positional)} belongs to no flag; a value of several words stands in quotes, and "
            "one flag has one value"
        )
    return values


def _split(word: str, known: Mapping[str, Flag]) -> tuple[str | None, str | None]:
    """Split `--lora.rank=8` or `-n8` into flag and value; value None: not attached. No flag: (None, None)."""
    if word.startswith("--") and len(word) > 2 and " " not in word.partition("=")[0]:
        name, equals, value = word.partition("=")
        return _normal(name), value if equals else None
    if word[:2] in known:
        return word[:2], word[2:].removeprefix("=") if len(word) > 2 else None
    return None, None


def _normal(spelling: str) -> str:
    """Replace dashes within a flag's name by underscores."""
    return f"--{spelling[2:].replace('-', '_')}" if spelling.startswith("--") else spelling


def _quoted(words: Sequence[str]) -> str:
    return " ".join(map(as_written, words))


def _kinds(info: FieldInfo) -> Iterator[Any]:
    """Yield the types that a field may have, without their bounds."""
    for kind in get_args(info.annotation) or (info.annotation,):
        yield get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _is_section(info: FieldInfo) -> bool:
    return isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel)


def _is_positional(info: FieldInfo) -> bool:
    return tyro.conf.Positional in info.metadata


def _is_path(info: FieldInfo) -> bool:
    return Path in _kinds(info)


def _is_optional_number(info: FieldInfo) -> bool:
    kinds = set(_kinds(info))
    return NoneType in kinds and not kinds & {str, Path}
