"""Optuna as a searcher of Ray Tune, rebuilt from the study's journal when a study is resumed."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from ray.tune.search import Searcher

from woundray.config import Config
from woundray.evaluation.checkpoint_selection import Entry, best_epoch, copies
from woundray.results.study import OPTUNA_FILE
from woundray.results.trials import TrialResult
from woundray.search.search_space import SearchSpace, Value
from woundray.search.study_folders import journal_path
from woundray.tracking.journal import Journal, TrialStarted

TRIAL, NUMBER, VALUES, CONFIG = "trial", "number", "values", "config"
"""Keys of a proposal: name of the trial, its number in the study from 1, and its searched settings by dotted name."""

_COPIES_CONSTRAINT = "copies training photographs"  # name of the constraint in Optuna


class ResumableOptunaSearch(Searcher):
    """Searcher that proposes the unfinished trials of a resumed study first, then new ones by Optuna.

    Multivariate TPE (Bergstra et al. 2011; Falkner et al. 2018). Each proposal is a function of the seed, its number
    and the trials before it: a study that was killed and resumed gets the same proposals.

    Optuna's own file in the study's folder is written again from the journal each time the study starts: it is for
    `optuna-dashboard`, and nothing is read from it. The value of a trial is the score of its best epoch. A trial whose
    images all copy training photographs violates a constraint; one that failed has the state FAIL.

    Args:
        config: configuration of the study.
        space: search space.
        initial_points: values of the first trials.
        folder: folder of the study.
        trials: trials that the study has already, by number.
    """

    def __init__(
        self,
        config: Config,
        space: SearchSpace,
        initial_points: Sequence[Mapping[str, Value]],
        folder: Path,
        trials: Sequence[TrialResult],
    ) -> None:
        super().__init__(metric=config.metrics.objective, mode="min")
        self._journal = Journal(journal_path(folder))
        self._config, self._space, self._initial_points, self._folder = config, space, initial_points, folder
        self._unfinished = [trial.number for trial in trials if trial.unfinished]
        self._names = {trial.number: trial.id for trial in trials}
        self._values: dict[int, dict[str, Any]] = {trial.number: dict(trial.values) for trial in trials}
        self._histories: dict[int, list[Entry]] = {trial.number: list(trial.history) for trial in trials}
        self._running: dict[str, int] = {}  # Tune's trial_id -> number of the trial
        self._optuna_trials: dict[int, optuna.Trial] = {}
        self._study = self._replay(trials)

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """Return name, number, values and configuration of the next trial, and write them to the journal."""
        number = self._unfinished.pop(0) if self._unfinished else self._propose()
        self._running[trial_id] = number
        name, values = self._names[number], self._values[number]
        config = self._config.with_values(values)
        self._journal.append(TrialStarted(trial=name, number=number, values=values, settings=config.flat()))
        return {TRIAL: name, NUMBER: number, VALUES: values, CONFIG: config}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Keep an epoch's scores. Optuna does not get them, as its pruners are not used."""
        history = self._histories[self._running[trial_id]]
        if self.metric in result and (not history or result["epoch"] > history[-1]["epoch"]):
            history.append({name: float(value) for name, value in result.items() if isinstance(value, int | float)})

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Report the trial to Optuna. The last epoch of a trial that ASHA stops comes with this call only."""
        if result and not error:
            self.on_trial_result(trial_id, result)
        self._tell(self._running[trial_id], failed=error)

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: a study is resumed from its journal."""

    def __getstate__(self) -> dict[str, Any]:
        """Leave out attributes with open files: Tune pickles the searcher into a file that nothing reads."""
        return {name: value for name, value in vars(self).items() if name not in ("_study", "_optuna_trials")}

    def _propose(self) -> int:
        """Draw the values of a new trial, and return its number."""
        number = len(self._values) + 1
        self._names[number] = f"trial_{number:04d}"
        if number <= len(self._initial_points):
            self._ask(number, self._initial_points[number - 1])
        else:
            self._study.sampler = self._sampler(number)
            self._ask(number)
        return number

    def _ask(self, number: int, values: Mapping[str, Any] | None = None) -> None:
        """Start a trial of Optuna, with the given values if there are any."""
        if values is not None:
            self._study.enqueue_trial(dict(values))
        self._optuna_trials[number] = self._study.ask()
        self._values[number] = self._space(self._optuna_trials[number])
        self._histories.setdefault(number, [])

    def _tell(self, number: int, *, failed: bool) -> None:
        """Report the score of a trial's best epoch to Optuna, or that it failed."""
        objective, trial, history = self._config.metrics.objective, self._optuna_trials[number], self._histories[number]
        if failed or not history:
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
            return
        best = best_epoch(history, objective)
        entry = next(entry for entry in history if entry["epoch"] == best)
        trial.set_constraint(_COPIES_CONSTRAINT, float(copies(entry)))
        self._study.tell(trial, entry[objective])

    def _replay(self, trials: Sequence[TrialResult]) -> optuna.Study:
        """Write Optuna's file again from the trials of the study, and return Optuna's study."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        for old in (self._folder / OPTUNA_FILE, self._folder / f"{OPTUNA_FILE}.lock"):
            old.unlink(missing_ok=True)
        self._study = optuna.create_study(
            study_name=self._folder.name,
            storage=JournalStorage(JournalFileBackend(str(self._folder / OPTUNA_FILE))),
            sampler=self._sampler(0),
        )
        for trial in trials:
            self._ask(trial.number, trial.values)
            self._values[trial.number] = dict(trial.values)
            if not trial.unfinished:
                self._tell(trial.number, failed=trial.status == "failed")
        return self._study

    def _sampler(self, number: int) -> optuna.samplers.TPESampler:
        """Return the sampler of one proposal, with its own seed."""
        seeds = np.random.SeedSequence([self._config.reproducibility.seed, number])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.samplers.TPESampler(
                seed=int(seeds.generate_state(1)[0]),
                n_startup_trials=self._config.study.startup_trials,
                multivariate=True,
                group=True,  # settings with a condition are not in every trial
                constant_liar=True,  # no proposals close to trials that are still running
            )
