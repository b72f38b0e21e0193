"""Folders that `tune --resume` accepts, and the copy of the search space in a study's folder."""

from pathlib import Path

import pytest

from woundray.config import Config
from woundray.errors import UserError
from woundray.search.study import _refuse_other_space
from woundray.search.study_folders import find_study_folder, journal_path
from woundray.search.tuner import copy_search_space
from woundray.tracking.journal import Journal, MeasurementStarted, StudyStarted
from woundray.training.checkpoint import write_config


def test_a_study_is_found_by_its_folder_or_its_name_and_a_measurement_is_none(tmp_path: Path) -> None:
    for name, event in {"study": StudyStarted(first_points=[]), "effect": MeasurementStarted()}.items():
        (tmp_path / name).mkdir()
        write_config(Config(), tmp_path / name)
        Journal(journal_path(tmp_path / name)).append(event)
    assert (
        find_study_folder(tmp_path / "study", Path("nowhere"))
        == find_study_folder(Path("study"), tmp_path)
        == tmp_path / "study"
    )
    with pytest.raises(UserError, match=r"effect is a measurement; `woundray augment --study\.name effect` goes on"):
        find_study_folder(Path("effect"), tmp_path)
    with pytest.raises(UserError, match="neither other nor"):
        find_study_folder(Path("other"), tmp_path)


def test_a_study_keeps_its_space_and_says_when_the_file_that_is_asked_for_is_another(tmp_path: Path) -> None:
    file, folder = tmp_path / "mine.yaml", tmp_path / "study"
    folder.mkdir()
    file.write_text("lora.rank: {choice: [4, 8]}\n")
    config = Config().with_values({"study.space": str(file)})
    before = copy_search_space(config, folder).parameters
    _refuse_other_space(config, folder)
    file.write_text("lora.rank: {choice: [64, 128]}\n")
    assert copy_search_space(config, folder).parameters == before
    with pytest.raises(UserError, match=r"study\.space: .*mine\.yaml has changed since .*study began with it"):
        _refuse_other_space(config, folder)
    file.unlink()
    assert copy_search_space(config, folder).parameters == before
