"""A resumed study proposes and stops the same trials as one that was never stopped, from the journal alone."""

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from ray.tune.schedulers import TrialScheduler

from woundray.config import Config
from woundray.errors import UserError
from woundray.results.trials import TrialResult, read_trials
from woundray.search.asha import ResumableASHA
from woundray.search.optuna_search import NUMBER, TRIAL, VALUES, ResumableOptunaSearch
from woundray.search.resume import check_checkpoints, mark_unfinished_as_killed
from woundray.search.search_space import SearchSpace, load_search_space
from woundray.search.study_folders import journal_path
from woundray.tracking.journal import EpochReported, Journal, TrialEnded

TRIALS = 12
COPIES = {"copies_flag": 1.0, "copy_rate": 0.5, "copy_rate_held_out": 0.05}


@pytest.fixture
def config() -> Config:
    return Config().with_values(
        {"metrics.objective": "fd_lite0", "training.epochs": 8, "study.trials": TRIALS, "study.startup_trials": 3}
    )


@pytest.fixture
def space(tmp_path: Path, config: Config) -> SearchSpace:
    file = tmp_path / "space.yaml"
    file.write_text("lora.rank: {choice: [4, 8, 16]}\ntraining.learning_rate: {log: [1.0e-5, 1.0e-1]}\n")
    return load_search_space(str(file), config)


def trials_of(folder: Path) -> tuple[TrialResult, ...]:
    return read_trials(Journal(journal_path(folder)).events(), "fd_lite0")


def score(values: dict[str, Any]) -> float:
    return 100 * abs(values["training.learning_rate"] - 1e-3) + values["lora.rank"]


class Study:
    """Study of one epoch per trial, run one trial after the other, as Ray Tune calls the searcher."""

    def __init__(self, folder: Path, config: Config, space: SearchSpace) -> None:
        self.folder, self.config, self.space = folder, config, space
        folder.mkdir(exist_ok=True)
        self.journal = Journal(journal_path(folder))

    def session(self, until: int) -> list[dict[str, Any]]:
        """Run a new searcher until so many trials have ended, and return its proposals."""
        point = [self.space.nearest_to(self.config)]
        search = ResumableOptunaSearch(self.config, self.space, point, self.folder, trials_of(self.folder))
        proposed = []
        while len([trial for trial in trials_of(self.folder) if not trial.unfinished]) < until:
            proposed.append(search.suggest(f"tune-{len(proposed)}"))
            self.run(search, f"tune-{len(proposed) - 1}", proposed[-1])
        return proposed

    def run(self, search: ResumableOptunaSearch, tune_name: str, given: dict[str, Any]) -> None:
        name, values = given[TRIAL], given[VALUES]
        failed = values["training.learning_rate"] > 0.05
        if not failed:
            metrics = {"fd_lite0": score(values)}
            search.on_trial_result(tune_name, {**metrics, "epoch": 1.0})
            checkpoint = self.folder / "trials" / name / "epoch_0001"
            self.journal.append(EpochReported(trial=name, epoch=1, metrics=metrics, checkpoint=checkpoint))
        search.on_trial_complete(tune_name, None, failed)
        status, output = "FAILED" if failed else "FINISHED", self.folder / "trials" / name
        ended = {"trial": name, "status": status, "stopped_early": False, "output": output, "permanent": failed}
        self.journal.append(TrialEnded.model_validate(ended))


def optuna_study(folder: Path) -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(str(folder / "optuna.journal")))
    return optuna.load_study(study_name=None, storage=storage)


def test_a_study_that_is_stopped_again_and_again_is_proposed_what_an_undisturbed_one_is(
    tmp_path: Path, config: Config, space: SearchSpace
) -> None:
    undisturbed = Study(tmp_path / "peace", config, space).session(TRIALS)
    stopped = Study(tmp_path / "stopped", config, space)
    proposed = [given for until in range(1, TRIALS + 1) for given in stopped.session(until)]
    assert proposed == undisturbed
    assert [given[NUMBER] for given in proposed] == list(range(1, TRIALS + 1))
    assert len({str(given[VALUES]) for given in proposed}) == TRIALS

    known = [optuna_study(tmp_path / name).trials for name in ("peace", "stopped")]
    assert [trial.params for trial in known[1]] == [given[VALUES] for given in proposed]
    assert [(t.params, t.value, t.state) for t in known[0]] == [(t.params, t.value, t.state) for t in known[1]]


def test_it_does_not_matter_what_has_become_of_optunas_own_file(
    tmp_path: Path, config: Config, space: SearchSpace
) -> None:
    study = Study(tmp_path / "study", config, space)
    first = study.session(5)
    (tmp_path / "study/optuna.journal").write_bytes(b'{"op_code": 0, "worker')  # what a full disk leaves
    rest = study.session(TRIALS)
    assert first + rest == Study(tmp_path / "peace", config, space).session(TRIALS)


def test_trials_that_had_not_ended_come_first_and_keep_their_names(
    tmp_path: Path, config: Config, space: SearchSpace
) -> None:
    study = Study(tmp_path / "study", config, space)
    study.session(2)
    search = ResumableOptunaSearch(config, space, [], study.folder, trials_of(study.folder))
    begun = [search.suggest("x"), search.suggest("y")]  # and then the process is killed
    mark_unfinished_as_killed(study.folder, config)  # or is interrupted
    again = ResumableOptunaSearch(config, space, [], study.folder, trials_of(study.folder))
    assert [again.suggest("p"), again.suggest("q")] == begun
    assert again.suggest("r")[NUMBER] == 5


def test_a_trial_that_ended_without_a_report_is_told_as_failed(
    tmp_path: Path, config: Config, space: SearchSpace
) -> None:
    search = ResumableOptunaSearch(config, space, [], tmp_path, ())
    search.suggest("a")
    search.on_trial_complete("a", {"trial_id": "a"})
    assert [trial.state.name for trial in optuna_study(tmp_path).trials] == ["FAIL"]


def test_optuna_is_told_the_best_epoch_that_does_not_copy_and_of_copies_alone_that_they_can_not_win(
    tmp_path: Path, config: Config, space: SearchSpace
) -> None:
    search = ResumableOptunaSearch(config, space, [], tmp_path, ())
    for name, epochs in {"honest": [(60.0, {}), (5.0, COPIES)], "rigged": [(4.0, COPIES)]}.items():
        search.suggest(name)
        for epoch, (value, flags) in enumerate(epochs, start=1):
            last = {"fd_lite0": value, "epoch": float(epoch), **flags}
            if epoch < len(epochs):  # Tune tells the last one of a trial that ASHA stops at its end alone
                search.on_trial_result(name, last)
        search.on_trial_complete(name, last)
    study = optuna_study(tmp_path)
    assert [trial.value for trial in study.trials] == [60.0, 4.0]
    assert [max(trial.constraints.values()) for trial in study.trials] == [0.0, 1.0]
    assert study.best_trial.value == 60.0


def decide(asha: ResumableASHA, scores: dict[int, list[float]], *, first_epoch: int = 1, **flags: float) -> list[str]:
    """Return the scheduler's decision after each epoch of trials that report in turn."""
    tune_trials = {number: SimpleNamespace(trial_id=f"tune-{number}", config={NUMBER: number}) for number in scores}
    controller: Any = None
    for trial in tune_trials.values():
        asha.on_trial_add(controller, trial)  # type: ignore[arg-type]
    decisions = []
    for epoch in range(first_epoch, first_epoch + max(map(len, scores.values()))):
        for number, trial in tune_trials.items():
            metrics = {"epoch": float(epoch), "fd_lite0": scores[number][epoch - first_epoch], **flags}
            decisions.append(asha.on_trial_result(controller, trial, metrics))  # type: ignore[arg-type]
    return decisions


def summary(number: int, scores: list[float], status: str = "finished") -> TrialResult:
    reports = tuple(
        EpochReported(trial=f"{number}", epoch=epoch, metrics={"fd_lite0": value}, checkpoint=Path("x"))
        for epoch, value in enumerate(scores, start=1)
    )
    return TrialResult(f"{number}", number, status, {}, epochs=len(scores), reports=reports)  # type: ignore[arg-type]


def test_asha_stops_by_what_was_reported_before_the_study_was_resumed(config: Config) -> None:
    """Rungs are at epochs 3 and 6; a trial above the median of earlier trials at a rung is stopped."""
    good, poor = [50.0, 50.0, 50.0], [90.0, 90.0, 90.0]
    assert decide(ResumableASHA(config, ()), {3: poor})[-1] == TrialScheduler.CONTINUE  # nobody to be worse than
    earlier = (summary(1, good), summary(2, good))
    assert decide(ResumableASHA(config, earlier), {3: poor})[-1] == TrialScheduler.STOP
    assert decide(ResumableASHA(config, earlier), {3: good})[-1] == TrialScheduler.CONTINUE
    # its own epochs before the kill are known, too: it is not compared at epoch 3 again by the score of epoch 5
    resumed = (*earlier, summary(3, [40.0, 40.0, 40.0, 40.0], "killed"))
    assert decide(ResumableASHA(config, resumed), {3: [70.0]}, first_epoch=5) == [TrialScheduler.CONTINUE]


def test_asha_takes_copies_for_the_worst(config: Config) -> None:
    earlier = (summary(1, [50.0] * 3), summary(2, [50.0] * 3))
    assert decide(ResumableASHA(config, earlier), {3: [10.0] * 3})[-1] == TrialScheduler.CONTINUE
    assert decide(ResumableASHA(config, earlier), {3: [10.0] * 3}, **COPIES)[-1] == TrialScheduler.STOP


def test_a_clock_that_was_set_back_changes_nothing(
    tmp_path: Path, config: Config, space: SearchSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events keep their order when the clock jumps back."""
    clock = itertools.count(2_000_000_000_000, -3_600_000)
    monkeypatch.setattr("woundray.tracking.journal.time.time_ns", lambda: next(clock) * 1_000_000)
    study = Study(tmp_path / "study", config, space)
    proposed = [given for until in (4, 8, TRIALS) for given in study.session(until)]
    monkeypatch.undo()
    assert proposed == Study(tmp_path / "peace", config, space).session(TRIALS)
    times = [event.time_ms for event in study.journal.events()]
    assert times == sorted(times, reverse=True)


def test_checkpoints_that_are_older_or_newer_than_the_journal_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trial = summary(1, [50.0, 40.0], "killed")
    check_checkpoints(tmp_path, (summary(1, [50.0, 40.0]),))  # it has ended: nothing goes on from it
    with pytest.raises(UserError, match=r"trials/1: epoch 2 was reported, and there is no checkpoint"):
        check_checkpoints(tmp_path, (trial,))
    checkpoint = tmp_path / "trials/1/epoch_0001"
    checkpoint.mkdir(parents=True)
    (checkpoint / "run.json").write_text('{"epoch": 1, "updates": 2, "history": []}')
    check_checkpoints(tmp_path, (trial,))
    assert "trials/1: goes on from epoch 1, though 2 were reported" in caplog.text
    (tmp_path / "trials/1/config.yaml").touch()
    with pytest.raises(UserError, match=r"trials/1: events\.jsonl does not know this trial"):
        check_checkpoints(tmp_path, ())


def test_a_trial_that_the_journal_lost_before_its_first_epoch_is_begun_again(tmp_path: Path) -> None:
    """A power failure can lose the end of the journal."""
    (tmp_path / "trials/trial_0002").mkdir(parents=True)
    (tmp_path / "trials/trial_0002/config.yaml").touch()
    check_checkpoints(tmp_path, ())
    assert not list((tmp_path / "trials").iterdir())
