"""Atomic writes: write a temporary file in the same folder and rename it. Readers see the old or the new content."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a hidden temporary path in the same folder; rename it to `path` if the block ends without an error."""
    temporary = path.with_name(f".{path.name}.part")
    yield temporary
    temporary.replace(path)


def write_text(text: str, path: Path) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(values: Any, path: Path) -> None:
    """Write indented JSON atomically."""
    write_text(json.dumps(values, indent=1) + "\n", path)
