"""Atomic writes: a file is written beside its place and renamed into it. A reader sees the old or the new one."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Hidden path in the same folder to write to; renamed to `path` when the block ends without an error."""
    beside = path.with_name(f".{path.name}.part")
    yield beside
    beside.replace(path)


def write_text(text: str, path: Path) -> None:
    """Writes UTF-8 text."""
    with atomic_path(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(values: Any, path: Path) -> None:
    """Writes JSON with a line a value."""
    write_text(json.dumps(values, indent=1) + "\n", path)
