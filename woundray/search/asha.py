"""Early stopping of trials: Ray Tune's ASHA, given the reports of trials from before the study was resumed."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from ray.tune.schedulers import ASHAScheduler

from woundray.config import Config
from woundray.evaluation.checkpoint_selection import Entry, copies
from woundray.results.trials import TrialResult
from woundray.search.optuna_search import NUMBER

if TYPE_CHECKING:
    from ray.tune.experiment import Trial

_WORST_SCORE = 1e9  # finite: ASHA interpolates between scores


class ResumableASHA(ASHAScheduler):
    """Asynchronous successive halving (Li et al. 2020, arXiv 1810.05934) that counts a resumed trial's earlier epochs.

    An epoch whose images copy training photographs gets the worst score.

    Args:
        config: configuration of the study.
        trials: trials that the study has already.
    """

    def __init__(self, config: Config, trials: Sequence[TrialResult]) -> None:
        self._objective = config.metrics.objective
        epochs = config.training.epochs
        self._unused = cast(Any, None)  # Tune's controller, an argument that ASHA does not use
        super().__init__(
            time_attr="epoch",
            metric=self._objective,
            mode="min",
            max_t=epochs,
            grace_period=min(config.study.grace_epochs, epochs),
            reduction_factor=config.study.reduction_factor,
        )
        self._histories = {trial.number: trial.history for trial in trials if trial.unfinished}
        for trial in trials:
            if not trial.unfinished:
                ended_trial: Any = SimpleNamespace(trial_id=trial.id, config={NUMBER: trial.number})
                super().on_trial_add(self._unused, ended_trial)
                self._replay(ended_trial, trial.history)

    def on_trial_add(self, tune_controller: Any, trial: "Trial") -> None:
        """Add a trial; one that is resumed, with its earlier reports."""
        super().on_trial_add(tune_controller, trial)
        self._replay(trial, self._histories.pop(trial.config[NUMBER], []))

    def on_trial_result(self, tune_controller: Any, trial: "Trial", result: dict[str, Any]) -> str:
        """Return whether a trial continues after an epoch."""
        decision: str = super().on_trial_result(tune_controller, trial, self._penalize_copies(result))
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: "Trial", result: dict[str, Any]) -> None:
        """Record the last result of a trial."""
        super().on_trial_complete(tune_controller, trial, self._penalize_copies(result))

    def _replay(self, trial: "Trial", history: Sequence[Entry]) -> None:
        """Report the epochs of an earlier session."""
        for entry in history:
            super().on_trial_result(self._unused, trial, self._penalize_copies(dict(entry)))

    def _penalize_copies(self, result: dict[str, Any]) -> dict[str, Any]:
        """Return the result, with the worst score if its images copy training photographs."""
        return result | {self._objective: _WORST_SCORE} if copies(result) else result
