"""What a study tells its user at the end: what came out, beside base model and floor, and what to do next."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from woundray.cluster import Cluster
from woundray.redaction import redact
from woundray.search.conclusion import StudyResult
from woundray.tracking import Tracker
from woundray.training.materials import Materials


@dataclass(frozen=True)
class Closing:
    """A study that has ended, and where to look at it.

    Attributes:
        folds: of patients that the finalists were judged on.
        refit: the winner's settings trained on all photographs.
        handed_over: lines of who got the result while MLflow still listened.
    """

    study: StudyResult
    materials: Materials
    folds: int
    refit: Path | None
    cluster: Cluster
    tracker: Tracker
    handed_over: tuple[str, ...]

    def __str__(self) -> str:
        """What came out, beside base model and floor, and what to do next."""
        study, best, registered = self.study, self.study.best, self.tracker.registered
        objective = study.config.metrics.objective
        lines = [f"best trial   {best.number} ({best.id}), epoch {best.best_epoch}: {objective} {best.best_score:.4g}"]
        if objective in self.materials.baseline:  # a validation loss has neither
            lines += [f"             base model {self.materials.baseline[objective]:.4g}"]
            lines += [f"             real photographs against real ones {self.materials.reference.floor}"]
        lines += _finals(study, self.folds)
        values = (
            f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in best.values.items()
        )
        lines += [
            f"settings     {'  '.join(values)}",
            f"adapter      {study.checkpoint}",
            f"pictures     {study.grid}",
            *([f"refit        {self.refit}: trained on all photographs, and judged by none"] if self.refit else []),
            *self._few(),
            *self.handed_over,
            *([f"registered   {registered}"] if registered else []),
            "",
            *_activation(),
            f"draw more    python -m woundray.generate --from {registered or study.checkpoint} -n 100 --filter",
            *self._compare(),
        ]
        return "\n".join(lines)

    def _compare(self) -> list[str]:
        """Where MLflow shows the trials side by side."""
        page = redact(self.tracker.page)
        if self.tracker.uri.startswith("http"):
            return [f"compare      {page}"]
        ui = "MLFLOW_DISABLE_TELEMETRY=true mlflow ui"  # else it tells MLflow's makers what is clicked
        return [f"compare      {ui} --backend-store-uri {redact(self.tracker.uri)}", f"             {page}"]

    def _few(self) -> list[str]:
        """How few photographs judged, where they are fewer than the pictures of an epoch."""
        held_out, pictures = len(self.materials.reference.held_out.groups), self.study.config.validation.pictures
        if held_out >= pictures:
            return []
        line = f"few          an epoch is judged by {held_out} held-out photographs only"
        if self.folds == 1:
            return [f"{line}: --validation.folds 3 lets every photograph judge the finalists"]
        return [f"{line}; the finalists were trained {self.folds} times, so that every photograph judges them once"]


def _activation() -> list[str]:
    """How a shell finds the programs that are named next, where it does not: `make tune` needs no activation."""
    activate = Path(sys.executable).with_name("activate")
    if not activate.exists() or str(activate.parent) in os.environ.get("PATH", "").split(os.pathsep):
        return []
    return [f"first        source {activate}"]


def _finals(study: StudyResult, folds: int) -> list[str]:
    """Lines of the finalists' new scores, best first, and of trials that can not win, or failed."""
    objective = study.config.metrics.objective
    finalists = sorted((trial for trial in study.trials if trial.final), key=lambda trial: trial.standing(objective))
    scores = ", ".join(f"trial {trial.number} {trial.standing(objective):.4g}" for trial in finalists)
    kind = "with new seeds, twice as many" + (f", mean of {folds} folds of patients" if folds > 1 else "")
    lines = [f"new pictures {scores}: {objective} {kind}"] if finalists else []
    lines += [f"can not win  trial {trial.number}: {trial.copies}" for trial in study.trials if trial.copies]
    return lines + [
        f"failed       trial {trial.number}: {trial.reason}" for trial in study.trials if trial.status == "failed"
    ]
