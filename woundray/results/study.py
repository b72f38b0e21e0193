"""What a study's folder holds, read for its report."""

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from woundray.checkpoints.find import EVALUATION
from woundray.config import Config
from woundray.config.saved import read_saved_config
from woundray.errors import UserError
from woundray.evaluation.real_reference import RealReference, read_reference
from woundray.results.trials import TrialSummary, best_trial, ranked, summarise
from woundray.tracking.journal import JOURNAL_NAME, Journal, StudyEnded

OPTUNA_FILE = "optuna.journal"
"""In a study's folder: what Optuna knows. `optuna-dashboard FILE` opens it."""

FEWEST_TRIALS = 4  # of which an importance is computed at all


@dataclass(frozen=True)
class StudyFacts:
    """A study, finished or not.

    Attributes:
        config: with which it began.
        baseline: scores of the base model without an adapter.
        evaluation: `evaluation/report.json` of the best checkpoint; None: there is none.
        importance: share of the objective's variance that each searched setting explains; empty: too few trials.
    """

    folder: Path
    config: Config
    trials: tuple[TrialSummary, ...]
    best: TrialSummary | None
    reference: RealReference
    baseline: dict[str, float]
    data_key: str
    evaluation: dict[str, Any] | None
    importance: dict[str, float]
    ended: bool

    @property
    def objective(self) -> str:
        """The score that was minimised."""
        return self.config.metrics.objective

    @property
    def of_patients(self) -> bool:
        """Whether its photographs show patients; else they are drawn."""
        return self.config.data.root is not None

    def error(self, trial: TrialSummary) -> str:
        """The traceback of a trial that failed."""
        log = self.folder / "trials" / trial.id / "error.txt"
        return log.read_text(encoding="utf-8") if log.is_file() else ""


def read_study(folder: Path) -> StudyFacts:
    """Reads the folder of a study.

    Raises:
        UserError: it is none, or one that stopped before its first trial.
    """
    precomputed = folder / "precomputed"
    if not (folder / JOURNAL_NAME).is_file() or not (precomputed / "base_model_scores.json").is_file():
        raise UserError(
            f"{folder}: no study with trials: it holds no {JOURNAL_NAME}, or no precomputed/; give the folder of one"
        )
    config = read_saved_config(folder / "config.yaml")
    events = Journal(folder / JOURNAL_NAME).events()
    trials = summarise(events, config.metrics.objective)
    best = best_trial(trials, config.metrics.objective)
    facts = json.loads((precomputed / "base_model_scores.json").read_text(encoding="utf-8"))
    return StudyFacts(
        folder.absolute(),
        config,
        trials,
        best,
        read_reference(precomputed),
        facts["scores"],
        facts["key"],
        _evaluation(best),
        _importance(folder),
        ended=any(isinstance(event, StudyEnded) and event.status == "FINISHED" for event in events),
    )


def best_checkpoints(folder: Path, count: int) -> list[Path]:
    """Checkpoints of a study's best trials, the best first."""
    study = read_study(folder)
    return [trial.checkpoint for trial in ranked(study.trials)[:count] if trial.checkpoint is not None]


def _evaluation(best: TrialSummary | None) -> dict[str, Any] | None:
    file = best.checkpoint / EVALUATION if best and best.checkpoint else None
    if file is None or not file.is_file():
        return None
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def _importance(folder: Path) -> dict[str, float]:
    """By fANOVA (Hutter et al. 2014), as Optuna computes it, the most important first."""
    file = folder / OPTUNA_FILE
    if not file.is_file():
        return {}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.load_study(study_name=None, storage=JournalStorage(JournalFileBackend(str(file))))
    done = [trial for trial in study.trials if trial.value is not None]
    if len(done) < FEWEST_TRIALS or len({trial.value for trial in done}) < 2:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of settings that no two trials share
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))
