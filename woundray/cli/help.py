"""`--help`: flags of a command, one line for each section of settings, and all settings of a section on request."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from woundray.cli.flags import Flag, flags_of
from woundray.config import Config
from woundray.config.error_messages import nearest
from woundray.errors import UserError

HELP = ("-h", "--help")
ALL = "--help-all"

_WIDEST_BESIDE = 26

_WORDS = {bool: "true|false", int: "INT", float: "NUMBER", str: "TEXT", Path: "PATH", NoneType: "none"}


def requested_help(arguments: Sequence[str]) -> list[str] | None:
    """Return the requested sections of the help: [] (short help), names, or `["all"]`; None: no help was requested."""
    for index, argument in enumerate(arguments):
        if argument == "--":
            return None
        if argument == ALL:
            return ["all"]
        if argument in HELP:
            return list(takewhile(lambda word: not word.startswith("-"), arguments[index + 1 :]))
    return None


def show_help(command: type[BaseModel], requested: Sequence[str], prog: str) -> None:
    """Write the help of a command to stdout.

    Args:
        requested: sections of settings, or settings (for their section); empty: the short help; `all`: everything.

    Raises:
        UserError: the command has no such section.
    """
    from rich.console import Console
    from rich.markup import escape

    sections = dict(_sections(command))
    names = list(sections) if list(requested) == ["all"] else [word.partition(".")[0] for word in requested]
    for name in names:
        if name not in sections:
            has = f"one of {', '.join(sections)}" if sections else "nothing more"
            raise UserError(f"--help {name}: there is {has}{nearest(name, sections)}")

    console = Console(color_system=None if os.environ.get("NO_COLOR") else "auto", highlight=False)
    own = not requested or list(requested) == ["all"]
    if own:
        console.print(f"[bold]usage:[/bold] {escape(_usage(command, prog, with_settings=bool(sections)))}\n")
        console.print(f"{escape(_plain(command.__doc__ or ''))}\n")
        flags = [(_flag_head(flag), _text(flag.info)) for flag in flags_of(command)]
        flags += [(_setting_head(name, info), _text(info)) for name, info in _settings(command).items()]
        console.print(_table(flags, "flags"))
    for name in names:
        section = sections[name]
        console.print(f"\n[bold]{name}[/bold]: {escape(_plain(section.__doc__ or ''))}")
        console.print(_table(list(_rows(section, name))))
    if own and sections and not names:
        rows = [(name, _plain(section.__doc__ or "").partition("\n")[0]) for name, section in sections.items()]
        console.print(_table(rows, "\nsettings"))
        console.print(f"\nA setting is a flag, too: --lora.rank 8. Those of one section: {prog} --help lora")
        console.print(f"Every setting: {prog} {ALL}, and docs/settings.md")
    sys.stdout.flush()


def _table(rows: Sequence[tuple[str, str]], title: str = "") -> Any:
    """Return a table of names and texts; long names stand above their texts."""
    from rich.console import Group
    from rich.markup import escape
    from rich.padding import Padding
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, style="bold")
    table.add_column()
    two_columns = max((len(name) for name, _ in rows), default=0) <= _WIDEST_BESIDE
    parts: list[Any] = []
    for name, text in rows:
        if two_columns:
            table.add_row(escape(name), escape(text))
        else:
            parts += [f"[bold]{escape(name)}[/bold]", Padding(escape(text), (0, 0, 0, 4))]
    body = Padding(table if two_columns else Group(*parts), (0, 0, 0, 2))
    return Group(f"[bold]{title}[/bold]", body) if title else body


def _usage(command: type[BaseModel], prog: str, *, with_settings: bool) -> str:
    flags = flags_of(command)
    words = [_flag_head(flag) for flag in flags if not flag.spellings or flag.info.is_required()]
    return " ".join([prog, *words, "[FLAGS]", *(["[--SECTION.SETTING VALUE ...]"] if with_settings else [])])


def _flag_head(flag: Flag) -> str:
    """Return a flag with the form of its value: `-n INT`, `--from REF ...`, `--grid`, `STUDY`."""
    metavar = next((mark.metavar for mark in flag.info.metadata if getattr(mark, "metavar", None)), None)
    metavar = metavar or _kind(flag.info.annotation)
    if not flag.spellings:
        return flag.shown if metavar in ("PATH", "TEXT", "TEXT ...") else metavar
    spelling = min(flag.spellings, key=len)
    return spelling if flag.takes == "none" else f"{spelling} {metavar}"


def _setting_head(name: str, info: FieldInfo) -> str:
    return f"--{name} {_kind(info.annotation)}"


def _text(info: FieldInfo) -> str:
    """Return a field's docstring as one paragraph, with its default if it has one."""
    default = info.get_default(call_default_factory=True)
    if default is PydanticUndefined:
        shown = "required"
    elif (default in (None, "", (), False) and info.annotation in (bool, str)) or default is None or default == ():
        shown = ""
    else:
        words = default if isinstance(default, tuple) else [default]
        shown = "default: " + " ".join(str(word).lower() if isinstance(word, bool) else str(word) for word in words)
    return " ".join([_plain(info.description or ""), *([f"({shown})"] if shown else [])])


def _kind(annotation: Any) -> str:
    """Return the form of a value: `PATH`, `INT`, `I|P|R|all`, `TEXT ...`, `NUMBER|auto`."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _kind(get_args(annotation)[0])
    if origin is Literal:
        return "|".join(map(str, get_args(annotation)))
    if origin is tuple:
        return f"{_kind(get_args(annotation)[0])} ..."
    if origin in (Union, UnionType):
        return "|".join(_kind(kind) for kind in get_args(annotation) if kind is not NoneType)
    return _WORDS.get(annotation, "VALUE")


def _settings(command: type[BaseModel]) -> Mapping[str, FieldInfo]:
    """Return settings that belong to no section, such as `phase`."""
    if "settings" not in command.model_fields:
        return {}
    return {name: info for name, info in Config.model_fields.items() if _section(info) is None}


def _sections(command: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    if "settings" not in command.model_fields:
        return
    for name, info in Config.model_fields.items():
        section = _section(info)
        if section is not None:
            yield name, section


def _rows(section: type[BaseModel], prefix: str) -> Iterator[tuple[str, str]]:
    for name, info in section.model_fields.items():
        below = _section(info)
        if below is not None:
            yield from _rows(below, f"{prefix}.{name}")
        else:
            yield _setting_head(f"{prefix}.{name}", info), _text(info)


def _section(info: FieldInfo) -> type[BaseModel] | None:
    """Return the section of settings of a field; None: the field is a setting."""
    kind = info.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _plain(docstring: str) -> str:
    """Return a docstring without line breaks within paragraphs."""
    return "\n\n".join(" ".join(part.split()) for part in docstring.strip().split("\n\n"))
