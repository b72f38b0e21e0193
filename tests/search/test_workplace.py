"""Folders of studies and runs: new ones that start in one second, and names that are taken."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest

from woundray.config import Config
from woundray.errors import UserError
from woundray.search import folders
from woundray.search.folders import new_folder
from woundray.tracking import study_id


class OneSecond(datetime):
    """A clock that stands."""

    @classmethod
    def now(cls, tz: object = None) -> "OneSecond":
        return cls(2026, 1, 31, 12)


def config(tmp_path: Path, name: str = "") -> Config:
    return Config().with_values({"study.output": str(tmp_path / "runs"), "study.name": name})


def test_runs_that_start_in_one_second_get_different_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "datetime", OneSecond)
    with ThreadPoolExecutor(6) as pool:
        made = [*pool.map(lambda _: new_folder(config(tmp_path), "run"), range(6))]
    expected = ["run-I-20260131-120000", *(f"run-I-20260131-120000-{number}" for number in range(2, 7))]
    assert sorted(folder.name for folder in made) == expected
    assert len({study_id(folder) for folder in made}) == 6


def test_a_named_folder_is_found_again(tmp_path: Path) -> None:
    first = new_folder(config(tmp_path, "mine"), "study")
    assert new_folder(config(tmp_path, "mine"), "study") == first == tmp_path / "runs/mine"


@pytest.mark.parametrize("name", ["x" * 256, "ü" * 128, "a/b", "best"])
def test_a_name_that_no_folder_can_have_is_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"^study\.name: .*$"):
        new_folder(config(tmp_path, name), "study")
