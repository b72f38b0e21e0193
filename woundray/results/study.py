"""Results of a study, read from its folder: one type for the terminal, the report, and commands that go on with it."""

import json
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from woundray.checkpoints.earlier_layout import upgrade_layout
from woundray.checkpoints.find import EVALUATION
from woundray.config import Config
from woundray.config.saved import read_config
from woundray.errors import UserError
from woundray.evaluation.real_reference import RealReference, read_reference
from woundray.results.trials import TrialResult, best_trial, ranked, read_trials
from woundray.tracking.journal import JOURNAL_NAME, Journal, ModelSaved, Refitted, StudyEnded

OPTUNA_FILE = "optuna.journal"
PRECOMPUTED = "precomputed"
FEWEST_TRIALS = 4
"""Trials with different scores from which the importance of settings is computed."""


@dataclass(frozen=True)
class StudyResults:
    """Results of a study, finished or not. Files beside the journal are read when they are first needed.

    Attributes:
        folder: folder of the study.
        config: configuration of the study.
        trials: all trials by number.
        best: best trial (see `woundray.results.trials.best_trial`); None: no trial has a score.
        ended: all trials have ended, and the study was not interrupted.
        missed: names of the thresholds that the best trial misses; None: it was not evaluated.
        refit: checkpoint of the best settings trained on all photographs; None: there is none.
    """

    folder: Path
    config: Config
    trials: tuple[TrialResult, ...]
    best: TrialResult | None
    ended: bool
    missed: tuple[str, ...] | None = None
    refit: Path | None = None

    @classmethod
    def of(cls, folder: Path, config: Config) -> "StudyResults":
        """Read the results of a study from the journal in its folder."""
        events = Journal(folder / JOURNAL_NAME).events()
        trials = read_trials(events, config.metrics.objective)
        saved = [event for event in events if isinstance(event, ModelSaved)]
        refits = [event for event in events if isinstance(event, Refitted)]
        return cls(
            folder,
            config,
            trials,
            best_trial(trials, config.metrics.objective),
            ended=any(isinstance(event, StudyEnded) and event.status == "FINISHED" for event in events),
            missed=tuple(saved[-1].missed) if saved else None,
            refit=refits[-1].checkpoint if refits else None,
        )

    @property
    def objective(self) -> str:
        """Name of the score that was minimised."""
        return self.config.metrics.objective

    @property
    def winner(self) -> TrialResult:
        """Best trial of a study that has one."""
        assert self.best is not None
        return self.best

    @property
    def best_config(self) -> Config:
        """Configuration of the best trial."""
        return self.config.with_values(dict(self.winner.values))

    @property
    def checkpoint(self) -> Path:
        """Folder of the best trial's best epoch."""
        assert self.winner.checkpoint is not None
        return self.winner.checkpoint

    @property
    def precomputed(self) -> Path:
        """Folder of the data that all trials share."""
        return self.folder / PRECOMPUTED

    @property
    def of_patients(self) -> bool:
        """Whether the photographs show patients; otherwise they are drawn."""
        return self.config.data.root is not None

    @cached_property
    def reference(self) -> RealReference:
        """Features of the photographs, and the real-vs-real baseline."""
        return read_reference(self.precomputed)

    @cached_property
    def base_model_scores(self) -> dict[str, float]:
        """Scores of the base model without an adapter, by the seeds of an epoch."""
        scores: dict[str, float] = self._base_model["scores"]
        return scores

    @cached_property
    def data_key(self) -> str:
        """Hash of the precomputed data."""
        return str(self._base_model["key"])

    @cached_property
    def evaluation(self) -> dict[str, Any] | None:
        """Full evaluation of the best checkpoint, as JSON has it; None: there is none."""
        file = self.best.checkpoint / EVALUATION if self.best and self.best.checkpoint else None
        return None if file is None or not file.is_file() else read_evaluation(file)

    @cached_property
    def importance(self) -> dict[str, float]:
        """Share of the objective's variance that each searched setting explains; empty: too few trials.

        fANOVA (Hutter et al. 2014) of Optuna, the most important first.
        """
        file = self.folder / OPTUNA_FILE
        if not file.is_file():
            return {}
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.load_study(study_name=None, storage=JournalStorage(JournalFileBackend(str(file))))
        done = [trial for trial in study.trials if trial.value is not None]
        if len(done) < FEWEST_TRIALS or len({trial.value for trial in done}) < 2:
            return {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about settings that no two trials share
            evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
            return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))

    def error(self, trial: TrialResult) -> str:
        """Traceback of a trial that failed."""
        log = self.folder / "trials" / trial.id / "error.txt"
        return log.read_text(encoding="utf-8") if log.is_file() else ""

    @cached_property
    def _base_model(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.precomputed / "base_model_scores.json").read_text(encoding="utf-8"))
        return found


def read_study(folder: Path) -> StudyResults:
    """Read the folder of a study.

    Raises:
        UserError: no study, or one that stopped before its first trial.
    """
    upgrade_layout(folder)
    if not (folder / JOURNAL_NAME).is_file() or not (folder / PRECOMPUTED / "base_model_scores.json").is_file():
        raise UserError(
            f"{folder}: no study with trials: it holds no {JOURNAL_NAME}, or no {PRECOMPUTED}/; give the folder of one"
        )
    return StudyResults.of(folder.absolute(), read_config(folder))


def read_evaluation(file: Path) -> dict[str, Any]:
    """Read `report.json` of an evaluation; the key names of woundray 0.1 are replaced by today's."""
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    renamed = {"floor": "real_baseline", "bar": "threshold"}
    found["scores"] = [{renamed.get(key, key): value for key, value in score.items()} for score in found["scores"]]
    return found


def best_checkpoints(folder: Path, count: int) -> list[Path]:
    """Return the checkpoints of a study's best trials, the best first."""
    study = read_study(folder)
    return [trial.checkpoint for trial in ranked(study.trials)[:count] if trial.checkpoint is not None]
