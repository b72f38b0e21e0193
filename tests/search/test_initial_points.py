"""First points of a study: its own configuration, and the best trials of an earlier study."""

from pathlib import Path

import pytest

from woundray.config import Config
from woundray.errors import UserError
from woundray.search.initial_points import initial_points
from woundray.search.optuna_search import VALUES, ResumableOptunaSearch
from woundray.search.search_space import SearchSpace, load_search_space
from woundray.search.study import run_study
from woundray.search.study_folders import journal_path
from woundray.tracking.journal import EpochReported, Journal, TrialStarted
from woundray.training.checkpoint import write_config


@pytest.fixture
def space(tmp_path: Path) -> SearchSpace:
    file = tmp_path / "space.yaml"
    file.write_text("lora.rank: {choice: [4, 8, 16]}\ntraining.learning_rate: {log: [1.0e-4, 1.0e-2]}\n")
    return load_search_space(str(file), Config())


def write_study(folder: Path, scores: dict[float, float]) -> None:
    """Write an earlier study that minimised the validation loss: learning rate of a trial -> its score."""
    folder.mkdir()
    write_config(Config().with_values({"metrics.objective": "validation_loss"}), folder)
    journal = Journal(journal_path(folder))
    for number, (rate, score) in enumerate(scores.items(), start=1):
        values = {"lora.rank": 64, "training.learning_rate": rate}  # a rank that the new space does not have
        journal.append(TrialStarted(trial=str(number), number=number, values=values, settings={}))
        metrics = {"validation_loss": score, "fd_lite0": -score}
        journal.append(EpochReported(trial=str(number), epoch=1, metrics=metrics, checkpoint=folder))


def config_of(folder: Path, begin_with: str) -> Config:
    values = {"study.output": folder, "study.begin_with": begin_with, "metrics.objective": "fd_lite0"}
    return Config().with_values({"lora.rank": 8, "training.learning_rate": 5e-4} | values)


def test_the_best_of_an_earlier_study_come_after_the_configuration(tmp_path: Path, space: SearchSpace) -> None:
    write_study(tmp_path / "earlier", {1e-3: 0.4, 2e-3: 0.1, 3e-3: 0.3, 4e-3: 0.2, 1.0: 0.5})
    for name in ("earlier", str(tmp_path / "earlier")):
        config = config_of(tmp_path, name)
        expected = [
            {"lora.rank": 8, "training.learning_rate": 5e-4},
            *({"lora.rank": 16, "training.learning_rate": rate} for rate in (2e-3, 4e-3, 3e-3)),
        ]
        assert initial_points(space, config) == expected
    # and they are what Optuna proposes first
    search = ResumableOptunaSearch(config, space, initial_points(space, config), tmp_path, ())
    assert [search.suggest(str(number))[VALUES] for number in range(4)] == expected


def test_no_point_is_tried_twice(tmp_path: Path, space: SearchSpace) -> None:
    write_study(tmp_path / "earlier", {1.0: 0.1, 0.5: 0.2, 1e-3: 0.3})
    rates = [point["training.learning_rate"] for point in initial_points(space, config_of(tmp_path, "earlier"))]
    assert rates == [5e-4, 1e-2, 1e-3]


def test_what_is_no_study_or_has_no_score_is_refused(tmp_path: Path, space: SearchSpace) -> None:
    with pytest.raises(UserError, match=r"study\.begin_with: neither nowhere nor"):
        initial_points(space, config_of(tmp_path, "nowhere"))
    write_study(tmp_path / "empty", {})
    Journal(journal_path(tmp_path / "empty")).append(TrialStarted(trial="1", number=1, values={}, settings={}))
    with pytest.raises(UserError, match="empty has a score"):
        initial_points(space, config_of(tmp_path, "empty"))


def test_a_mistake_there_is_told_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"study\.begin_with"):
        run_study(config_of(tmp_path / "runs", "nowhere"), pytest.fail)
    assert not list(tmp_path.iterdir())
