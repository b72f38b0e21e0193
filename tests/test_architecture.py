"""docs/architecture.md names files that exist, and its picture is the one that the code draws."""

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PAGE = REPOSITORY / "docs/architecture.md"


def test_the_picture_shows_the_folders_of_today(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY / "scripts"))
    import draw_architecture

    assert draw_architecture.PICTURE.read_text(encoding="utf-8") == draw_architecture.draw(), (
        "run python scripts/draw_architecture.py"
    )
    drawn = {box.name for layer in draw_architecture.read_layers() for box in layer}
    folders = {path.parent.name for path in (REPOSITORY / "woundray").glob("*/__init__.py")}
    assert folders <= drawn, "a folder that no import contract has"
    for _, where in draw_architecture.WAY_OF_A_PHOTOGRAPH:
        assert any((REPOSITORY / "woundray" / f"{where}{end}").exists() for end in ("", ".py")), where


def test_every_file_of_the_page_exists() -> None:
    named = re.findall(r"`((?:[a-z_]+/)+[a-zA-Z_.]*)`", PAGE.read_text(encoding="utf-8"))
    assert len(named) > 30
    roots = (REPOSITORY / "woundray", REPOSITORY)
    missing = [name for name in named if not any((root / name).exists() for root in roots)]
    generated = {"precomputed/", "trials/NAME/", "epoch_0001/"}  # in a study's folder
    assert set(missing) <= generated


def test_modules_at_the_top_are_commands() -> None:
    from woundray.__main__ import COMMANDS

    top = {path.stem for path in (REPOSITORY / "woundray").glob("*.py")}
    assert top == {"__init__", "__main__", "errors", *COMMANDS}
    for path in (REPOSITORY / "woundray").rglob("__init__.py"):
        text = path.read_text(encoding="utf-8")
        assert text.startswith('"""'), f"{path}: say in three lines what is in the folder"
