"""Results read from a journal, and their display."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from woundray.config import Config
from woundray.results.trials import TrialResult, best_trial, finalists, read_trials
from woundray.search.progress import JournalFollower, share_done, table, time_left
from woundray.tracking.journal import (
    EpochReported,
    Event,
    FinalistScored,
    Journal,
    StudyEnded,
    TrialEnded,
    TrialStarted,
)

CONFIG = Config().with_values({"training.epochs": 3, "metrics.objective": "fd_lite0"})
ROOT = Path("study")


def started(trial: str, number: int) -> Event:
    return TrialStarted(trial=trial, number=number, values={"lora.rank": 4 * number}, settings={})


def epoch(trial: str, number: int, score: float) -> Event:
    return EpochReported(trial=trial, epoch=number, metrics={"fd_lite0": score}, checkpoint=ROOT / trial / f"{number}")


def ended(trial: str, status: str = "FINISHED", *, early: bool = False) -> Event:
    return TrialEnded.model_validate({"trial": trial, "status": status, "stopped_early": early, "output": ROOT / trial})


EVENTS = [
    started("a", 1), started("b", 2), started("c", 3),
    epoch("a", 1, 60), epoch("b", 1, 90), epoch("c", 1, 10),
    ended("b", early=True), ended("c", "FAILED"),
    epoch("a", 2, 50), epoch("a", 3, 50), ended("a"),
    StudyEnded(status="FINISHED", best_trial="a", metrics={}),
]  # fmt: skip


def test_a_trial_is_judged_by_its_first_lowest_epoch() -> None:
    a, b, c = read_trials(EVENTS, "fd_lite0")
    assert (a.status, a.epochs, a.best_epoch, a.best_score) == ("finished", 3, 2, 50)
    assert a.checkpoint == ROOT / "a" / "2"
    assert (b.status, b.stopped_early, b.epochs) == ("finished", True, 1)
    assert (c.status, c.best_score) == ("failed", 10)


def test_a_trial_that_failed_or_has_no_score_does_not_win() -> None:
    trials = read_trials(EVENTS, "fd_lite0")
    best = best_trial(trials, "fd_lite0")
    assert best is not None
    assert best.id == "a"
    assert best_trial(read_trials([started("a", 1), ended("a")], "fd_lite0"), "fd_lite0") is None


def resolve_config(trial: str, number: int, score: float, *, copies: bool = False, z: float = 0.0) -> Event:
    metrics = {"fd_lite0": score, "fd_lite0_z": z, "copy_rate": 0.9, "copy_rate_held_out": 0.05}
    metrics["copies_flag"] = float(copies)
    return EpochReported(trial=trial, epoch=number, metrics=metrics, checkpoint=ROOT / trial / f"{number}")


def again(trial: str, score: float, *, copies: bool = False) -> Event:
    metrics = {"fd_lite0": score, "copy_rate": 0.4, "copy_rate_held_out": 0.05, "copies_flag": float(copies)}
    return FinalistScored(trial=trial, pictures=128, metrics=metrics)


def leader(events: list[Event]) -> str | None:
    best = best_trial(read_trials(events, "fd_lite0"), "fd_lite0")
    return best and best.id


def test_a_trial_that_copies_its_training_pictures_is_marked_and_not_elected() -> None:
    events = [
        started("a", 1),
        started("rigged", 2),
        resolve_config("a", 1, 60),
        resolve_config("rigged", 1, 20, copies=True),
    ]
    _, rigged = read_trials(events, "fd_lite0")
    assert rigged.copies == "90% of its pictures look like copies of training photographs, 5% of unseen photographs do"
    assert leader(events) == "a"
    assert leader([*events[:2], events[3]]) is None


def test_epochs_that_copy_do_not_count_for_a_trial_that_has_others() -> None:
    events = [
        started("a", 1),
        resolve_config("a", 1, 60),
        resolve_config("a", 2, 20, copies=True),
        resolve_config("a", 3, 50, z=-2),
    ]
    [trial] = read_trials(events, "fd_lite0")
    assert (trial.best_epoch, trial.copies) == (3, "")


def test_the_earliest_epoch_within_one_sd_is_the_trials_best() -> None:
    events = [
        started("a", 1),
        resolve_config("a", 1, 60, z=9),
        resolve_config("a", 2, 50, z=1.9),
        resolve_config("a", 3, 49, z=1.0),
    ]
    assert read_trials(events, "fd_lite0")[0].best_epoch == 2


def test_finalists_are_ordered_by_their_new_pictures() -> None:
    events = [started(name, number) for number, name in enumerate("abc", start=1)]
    events += [resolve_config("a", 1, 40), resolve_config("b", 1, 41), resolve_config("c", 1, 39)]
    assert leader(events) == "c"
    finals = [again("c", 48), again("a", 45)]
    assert leader([*events, *finals]) == "a"
    assert leader([*events, again("c", 48), again("a", 45, copies=True)]) == "c"
    assert leader([*events, again("c", 48, copies=True)]) == "a"  # no other was scored again


def test_a_resumed_trial_goes_on_from_what_it_had() -> None:
    events = [started("a", 1), epoch("a", 1, 60), ended("a", "KILLED"), started("a", 1), epoch("a", 2, 70)]
    [trial] = read_trials(events, "fd_lite0")
    assert (trial.status, trial.epochs, trial.best_epoch) == ("running", 2, 1)


def follow(journal: Journal, later: list[Event], *, terminal: bool) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=120)
    with JournalFollower(journal, CONFIG, console=console):
        for event in later:
            journal.append(event)
    return out.getvalue()


def test_without_a_terminal_an_epoch_is_a_line(tmp_path: Path) -> None:
    lines = follow(Journal(tmp_path / "events.jsonl"), EVENTS, terminal=False).splitlines()
    assert lines == [
        "trial 1  epoch 1/3  fd_lite0 60  best 60 (trial 1)",
        "trial 2  epoch 1/3  fd_lite0 90  best 60 (trial 1)",
        "trial 3  epoch 1/3  fd_lite0 10  best 10 (trial 3)",
        "trial 2  epoch 1/3  stopped early  best 10 (trial 3)",
        "trial 3  epoch 1/3  failed  best 60 (trial 1)",
        "trial 1  epoch 2/3  fd_lite0 50  best 50 (trial 1)",
        "trial 1  epoch 3/3  fd_lite0 50  best 50 (trial 1)",
        "trial 1  epoch 3/3  finished  best 50 (trial 1)",
    ]


def test_copies_and_new_pictures_are_told(tmp_path: Path) -> None:
    events = [
        started("a", 1),
        resolve_config("a", 1, 60),
        resolve_config("a", 2, 50, copies=True),
        ended("a"),
        again("a", 62),
    ]
    assert follow(Journal(tmp_path / "events.jsonl"), events, terminal=False).splitlines() == [
        "trial 1  epoch 1/3  fd_lite0 60  best 60 (trial 1)",
        "trial 1  epoch 2/3  fd_lite0 50  copies  best 60 (trial 1)",
        "trial 1  epoch 2/3  finished  best 60 (trial 1)",
        "trial 1  128 new pictures  fd_lite0 62  best 62 (trial 1)",
    ]


def test_a_resumed_study_tells_only_what_is_new(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "events.jsonl")
    for event in EVENTS[:9]:
        journal.append(event)
    lines = follow(journal, EVENTS[9:], terminal=False).splitlines()
    assert lines[0] == "trial 1  epoch 3/3  fd_lite0 50  best 50 (trial 1)"


def test_on_a_terminal_there_is_a_row_a_trial(tmp_path: Path) -> None:
    shown = follow(Journal(tmp_path / "events.jsonl"), EVENTS, terminal=True)
    assert "stopped early" in shown
    assert table(read_trials(EVENTS, "fd_lite0"), CONFIG).row_count == 3


def test_a_listener_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    journal, calls = Journal(tmp_path / "events.jsonl"), []

    def listener(trials: object) -> None:
        calls.append(trials)
        raise ValueError("planted")

    with JournalFollower(journal, CONFIG, [listener], console=Console(file=io.StringIO())):
        for event in EVENTS:
            journal.append(event)
    assert len(calls) == len(EVENTS)


def test_how_far_a_study_is_and_how_long_it_takes() -> None:
    config = CONFIG.with_values({"study.trials": 4})
    trials = read_trials(EVENTS[:8], "fd_lite0")  # one epoch of three, stopped early, failed; one has not begun
    assert share_done(trials, config) == pytest.approx((1 / 3 + 1 + 1) / 4)
    run = TrialStarted(trial="run", number=1, values={}, settings={})
    assert share_done(read_trials([run, epoch("run", 2, 9)], "fd_lite0"), config) == pytest.approx(2 / 3)
    assert time_left(0.5, 0.0, 600) == ", about 10 min left"
    assert time_left(0.5, 0.25, 7200) == ", about 4.0 h left"  # half of it was done before it was resumed
    assert time_left(0.25, 0.25, 60) == time_left(1, 0, 60) == ""


def test_trials_that_overtake_the_finalists_of_a_shorter_study_are_finalists_too() -> None:
    def trial(number: int, score: float, *, final: float | None = None, copies: bool = False) -> TrialResult:
        finals = None if final is None else {"fd_lite0": final}
        metrics = {"copies_flag": float(copies), "copy_rate": 0.5, "copy_rate_held_out": 0.0}
        return TrialResult(
            f"t{number}", number, "finished", {}, best_epoch=1, best_score=score, metrics=metrics, final=finals
        )

    trials = [trial(1, 70, final=72), trial(2, 71, final=69), trial(3, 90), trial(4, 60), trial(5, 50, copies=True)]
    assert [found.number for found in finalists(trials, 2)] == [4, 1]
    assert best_trial(trials, "fd_lite0") == trials[1]  # until the new one is scored
