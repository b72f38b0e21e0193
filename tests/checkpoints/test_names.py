"""Names of checkpoints in tables and pictures: a trial's number, and what tells two of them apart."""

from pathlib import Path

from woundray.checkpoints.names import checkpoint_names
from woundray.tracking.journal import JOURNAL_NAME, Journal, TrialStarted


def study(folder: Path, *numbers: int) -> list[Path]:
    """Last checkpoints of trials that an older study names by hash."""
    journal = Journal(folder / JOURNAL_NAME)
    for number in numbers:
        journal.append(TrialStarted(trial=f"a4c0ce9f_{number}", number=number, values={}, settings={}))
    return [folder / "trials" / f"a4c0ce9f_{number}" / "epoch_0003" for number in numbers]


def test_a_trial_is_named_by_its_number(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    first, fourth = study(tmp_path / "one", 1, 4)
    assert checkpoint_names([fourth, first]) == ["trial 4", "trial 1"]
    assert checkpoint_names([fourth, fourth.with_name("epoch_0010"), first]) == [
        "trial 4 epoch 3",
        "trial 4 epoch 10",
        "trial 1 epoch 3",
    ]


def test_trials_of_two_studies_have_their_names(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    pair = study(tmp_path / "one", 1) + study(tmp_path / "two", 1)
    assert checkpoint_names(pair) == ["one trial 1 epoch 3", "two trial 1 epoch 3"]


def test_runs_and_other_folders_keep_the_end_of_their_path(tmp_path: Path) -> None:
    run, other = tmp_path / "my-run/run/epoch_0002", tmp_path / "fetched/abc"
    assert checkpoint_names([run, other]) == ["my-run", "abc"]
    assert checkpoint_names([other, tmp_path / "kept/abc"]) == ["fetched/abc", "kept/abc"]
    assert checkpoint_names([run, run]) == [str(run), str(run)]
