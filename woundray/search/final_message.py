"""What a study tells its user at the end: what came out, beside base model and floor, and what to do next."""

import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from woundray.checkpoints.find import EVALUATION
from woundray.evaluation.verdict import Verdict, verdict_of
from woundray.results.reference_scores import reference_scores
from woundray.search.finalists import StudyResult
from woundray.system.redaction import redact
from woundray.tracking.tracker import Tracker
from woundray.training.precompute import Precomputed
from woundray.weights.diffusers_layout import read_json


@dataclass(frozen=True)
class Closing:
    """A study that has ended, and where to look at it.

    Attributes:
        folds: of patients that the finalists were judged on.
        refit: the winner's settings trained on all photographs.
        handed_over: lines of who got the result while MLflow still listened.
    """

    study: StudyResult
    precomputed: Precomputed
    folds: int
    refit: Path | None
    tracker: Tracker
    handed_over: tuple[str, ...]

    def __str__(self) -> str:
        """The verdict first, then what came out, beside base model and real photographs, and what to do next."""
        study, best, registered = self.study, self.study.best, self.tracker.registered
        objective, verdict = study.config.metrics.objective, self.verdict
        score = best.score(objective)
        lines = [
            f"verdict      {verdict.line}",
            f"next         {verdict.next}",
            "",
            f"best trial   {best.number} ({best.id}), epoch {best.best_epoch}: {objective} {score:.4g}"
            + (" on new pictures" if best.final else ""),
        ]
        at = reference_scores(
            best, study.config, self.precomputed.folder, self.precomputed.baseline, self.precomputed.reference
        )
        if at is not None:
            if at.base is not None:
                worse = "" if score is None or score < at.base else ": the search found nothing better"
                lines += [f"             base model {at.base:.4g}, by the same seeds{worse}"]
            lines += [f"             real photographs against real ones {at.real_baseline}"]
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
            *_draw_more(verdict, registered or str(study.checkpoint)),
            *self._compare(),
        ]
        return "\n".join(lines)

    @property
    def verdict(self) -> Verdict:
        """Whether the pictures can be used."""
        file = self.study.checkpoint / EVALUATION
        return verdict_of(read_json(file) if file.is_file() else None, self.study.config)

    def _compare(self) -> list[str]:
        """Where MLflow shows the trials side by side."""
        page = redact(self.tracker.page)
        if self.tracker.uri.startswith("http"):
            return [f"compare      {page}"]
        ui = "MLFLOW_DISABLE_TELEMETRY=true mlflow ui"  # else it tells MLflow's makers what is clicked
        return [f"compare      {ui} --backend-store-uri {redact(self.tracker.uri)}", f"             {page}"]

    def _few(self) -> list[str]:
        """How few photographs judged, where they are fewer than the pictures of an epoch."""
        held_out, pictures = len(self.precomputed.reference.held_out.groups), self.study.config.validation.pictures
        if held_out >= pictures:
            return []
        line = f"few          an epoch is judged by {held_out} held-out photographs only"
        if self.folds == 1:
            return [f"{line}: --validation.folds 3 lets every photograph judge the finalists"]
        return [f"{line}; the finalists were trained {self.folds} times, so that every photograph judges them once"]


def _draw_more(verdict: Verdict, reference: str) -> list[str]:
    """The command that draws pictures: through the filter where enough of them pass."""
    command = f"python -m woundray.generate --from {shlex.quote(reference)} -n 100"
    if verdict.filtered:
        return [f"draw more    {command} --filter"]
    return [f"draw more    {command}", "             to look at: hardly any picture passes the filter"]


def _activation() -> list[str]:
    """How a shell finds the programs that are named next, where it does not: `make tune` needs no activation."""
    activate = Path(sys.executable).with_name("activate")
    if not activate.exists() or str(activate.parent) in os.environ.get("PATH", "").split(os.pathsep):
        return []
    return [f"first        source {activate}"]


def _finals(study: StudyResult, folds: int) -> list[str]:
    """Lines of the finalists' new scores, best first, and of trials that can not win, or failed."""
    objective = study.config.metrics.objective
    finals = {trial.number: trial.final[objective] for trial in study.trials if trial.final}
    finalists = sorted(finals, key=lambda number: finals[number])
    scores = ", ".join(f"trial {number} {finals[number]:.4g}" for number in finalists)
    kind = "with new seeds, twice as many" + (f", mean of {folds} folds of patients" if folds > 1 else "")
    lines = [f"new pictures {scores}: {objective} {kind}"] if finalists else []
    lines += [f"can not win  trial {trial.number}: {trial.copies}" for trial in study.trials if trial.copies]
    return lines + [
        f"failed       trial {trial.number}: {trial.reason}" for trial in study.trials if trial.status == "failed"
    ]
