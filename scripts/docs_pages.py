"""Write the generated parts of the documentation: `python scripts/docs_pages.py`.

The meaning of settings and flags, profiles and search spaces are written in the code or YAML files. Pages of docs/ have
a copy between `<!-- made of the code: NAME -->` and `<!-- end -->`. A hook of mkdocs puts the README on the start page.
"""

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from woundray.__main__ import COMMANDS
from woundray.cli.command import Command
from woundray.config import Config
from woundray.search import search_space

REPOSITORY = Path(__file__).parents[1]
_START_PAGE = "<!-- the README -->"
_PART = re.compile(r"(<!-- made of the code: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_ERRORS = ("UserError", "LeakError", "PhotoError", "RowError", "CellError")
_SHORTEST_MESSAGE = 8  # letters: shorter messages only pass on the text of another error
_SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "multiple_of": "a multiple of"}


def on_page_markdown(markdown: str, **_: object) -> str:
    """Insert the README; a hook that mkdocs calls with the source of each page."""
    return markdown.replace(_START_PAGE, readme())


def written(markdown: str) -> str:
    """Return a page with its generated parts updated."""
    return _PART.sub(lambda found: f"{found[1]}\n{PARTS[found[2]]().strip()}\n\n{found[3]}", markdown)


def main() -> None:
    """Update all pages."""
    for page in sorted((REPOSITORY / "docs").glob("*.md")):
        page.write_text(written(page.read_text(encoding="utf-8")), encoding="utf-8")


def readme() -> str:
    """Return the README with links relative to docs/."""
    return (REPOSITORY / "README.md").read_text(encoding="utf-8").replace("](docs/", "](")


def settings() -> str:
    """Return a table for each section of the configuration."""
    return "\n".join(_section(Config, ""))


def commands() -> str:
    """Return a table of flags for each command."""
    lines = []
    for name in COMMANDS:
        lines += [f"## {name}", ""]
        described = command_type(name)
        lines += [f"{' '.join(line.split())}\n" for line in (described.__doc__ or "").split("\n\n")]
        lines += ["| flag | default | what it does |", "|---|---|---|", *_flags(described)]
        if issubclass(described, Command):
            lines += ["", "And every [setting](settings.md) by its name, as `--lora.rank 8`."]
        lines += [""]
    return "\n".join(lines)


def profiles() -> str:
    """Return the packaged YAML files of profiles."""
    return "\n".join(_yaml(path) for path in sorted((REPOSITORY / "configs/profiles").glob("*.yaml")))


def spaces() -> str:
    """Return the syntax of search spaces, and the packaged ones."""
    _, example, rest = (search_space.__doc__ or "").split("\n\n", 2)
    example = "\n".join(line.removeprefix("    ") for line in example.splitlines())
    files = "\n".join(_yaml(path) for path in sorted((REPOSITORY / "search_spaces").glob("*.yaml")))
    return f"```yaml\n{example}\n```\n\n{rest}\n\n## The packaged spaces\n\n{files}"


def messages() -> str:
    """Return every message about a user's mistake, by module and in order, with `...` for inserted values."""
    lines = []
    for path in sorted((REPOSITORY / "woundray").rglob("*.py")):
        found = list(dict.fromkeys(_messages(ast.parse(path.read_text(encoding="utf-8")))))
        if found:
            lines += [f"## {path.relative_to(REPOSITORY)}", "", *(f"- {text}" for text in found), ""]
    return "\n".join(lines)


PARTS = {"settings": settings, "commands": commands, "profiles": profiles, "spaces": spaces, "messages": messages}


def command_type(name: str) -> type[BaseModel]:
    """Return the class of a command's flags, such as Tune of woundray.tune."""
    described: type[BaseModel] = getattr(importlib.import_module(f"woundray.{name}"), name.capitalize())
    return described


def _messages(module: ast.Module) -> Iterator[str]:
    """Yield messages of the user errors that a module raises, except those that pass on another error's text."""
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in _ERRORS and node.args:
            text = _template(node.args[0])
            if len(re.sub(r"\W", "", text)) > _SHORTEST_MESSAGE:
                yield text


def _template(node: ast.expr) -> str:
    """Return the text of an expression, with `...` for every inserted value."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_template, node.values))
    if isinstance(node, ast.BinOp):
        return _template(node.left) + _template(node.right)
    return "..."


def _section(model: type[BaseModel], prefix: str) -> Iterator[str]:
    """Yield heading, docstring and table of one section, then of its subsections."""
    own = {name: field for name, field in model.model_fields.items() if not _is_section(field)}
    title = prefix.rstrip(".") or "Every run"
    yield from (f"{'###' if title.count('.') else '##'} {title}", "", *_paragraphs(model.__doc__), "")
    if own:
        yield from ("| setting | values | default | what it does |", "|---|---|---|---|")
        for name, field in own.items():
            values = _cell(_values(field.annotation, field.metadata))
            yield f"| `{prefix}{name}` | {values} | {_default(field)} | {_cell(field.description)} |"
        yield ""
    for name, field in model.model_fields.items():
        if _is_section(field):
            assert isinstance(field.annotation, type)
            yield from _section(field.annotation, f"{prefix}{name}.")


def _flags(command: type[BaseModel]) -> Iterator[str]:
    for name, field in command.model_fields.items():
        if name == "settings":
            continue
        spelt = next((mark.name for mark in field.metadata if getattr(mark, "name", None)), name)
        positional = "Positional" in str(field.metadata) + str(field.annotation)
        flag = spelt.upper() if positional else f"--{spelt}"
        yield f"| `{flag}` | {_default(field)} | {_cell(field.description)} |"
    if issubclass(command, Command):
        yield f"| `--phase` | `I` | {_cell(Config.model_fields['phase'].description)} |"


def _values(kind: Any, marks: list[Any]) -> str:
    """Return the allowed values in words."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _values(arguments[0], [*marks, *arguments[1:]])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin is tuple:
        return f"a list of: {_values(arguments[0], [])}"
    if arguments:  # a union; None means: not given
        return " or ".join(_values(part, marks) for part in arguments if part is not type(None))
    word = {int: "whole number", float: "number", bool: "`true`, `false`", str: "text", Path: "path"}[kind]
    return " ".join([word, *dict.fromkeys(_bounds(marks))])


def _bounds(marks: list[Any]) -> Iterator[str]:
    for mark in marks:
        if hasattr(mark, "metadata"):  # a Field inside Annotated
            yield from _bounds(mark.metadata)
        for name, sign in _SIGNS.items():
            if getattr(mark, name, None) is not None:
                yield f"{sign} {getattr(mark, name)}"


def _is_section(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "*needed*"
    if field.default in (None, "", ()):
        return ""
    if isinstance(field.default, tuple):
        return " ".join(f"`{value}`" for value in field.default)
    return f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"


def _paragraphs(text: str | None) -> list[str]:
    return [" ".join((text or "").split())]


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


def _yaml(path: Path) -> str:
    return f"### {path.stem}\n\n```yaml\n{path.read_text(encoding='utf-8')}```\n"


if __name__ == "__main__":
    main()
