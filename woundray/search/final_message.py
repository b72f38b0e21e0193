"""Message at the end of a study: verdict, best trial compared with base model and photographs, next commands."""

import os
import shlex
import sys
from pathlib import Path

from woundray.evaluation.verdict import Verdict, verdict_of
from woundray.reporting.score_descriptions import missed_thresholds
from woundray.results.reference_scores import reference_scores
from woundray.results.study import StudyResults
from woundray.system.redaction import redact
from woundray.tracking.mlflow_sync import Tracker


def final_message(study: StudyResults, tracker: Tracker) -> str:
    """Return the last lines that `tune` prints, the verdict first."""
    best, objective = study.winner, study.objective
    verdict = verdict_of(study.evaluation, study.best_config)
    score = best.score(objective)
    lines = [
        f"verdict      {verdict.line}",
        f"next         {verdict.next}",
        "",
        f"best trial   {best.number} ({best.id}), epoch {best.best_epoch}: {objective} {score:.4g}"
        + (" on new pictures" if best.final else ""),
    ]
    references = reference_scores(best, study)
    if references is not None:
        if references.base is not None:
            worse = "" if score is None or score < references.base else ": the search found nothing better"
            lines += [f"             base model {references.base:.4g}, by the same seeds{worse}"]
        lines += [f"             real photographs against real ones {references.real_baseline}"]
    values = (
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in best.values.items()
    )
    lines += [
        *_finalists(study),
        f"settings     {'  '.join(values)}",
        f"adapter      {study.checkpoint}",
        f"pictures     {study.checkpoint / 'grid.png'}",
        *([f"refit        {study.refit}: trained on all photographs, and scored on none"] if study.refit else []),
        *_few_photographs(study),
        f"thresholds   {_thresholds(study)}",
        f"report       {study.folder / 'report.html'}",
        *([f"registered   {tracker.registered}"] if tracker.registered else []),
        "",
        *_activate_environment(),
        *_generate_command(verdict, tracker.registered or str(study.checkpoint)),
        *_mlflow_page(tracker),
    ]
    return "\n".join(lines)


def _thresholds(study: StudyResults) -> str:
    """Return which thresholds the best trial misses."""
    return missed_thresholds(study.missed or ())


def _finalists(study: StudyResults) -> list[str]:
    """Return lines with the new scores of the finalists, the best first, and trials that can not win, or failed."""
    finals = {trial.number: trial.final[study.objective] for trial in study.trials if trial.final}
    scores = ", ".join(f"trial {number} {finals[number]:.4g}" for number in sorted(finals, key=lambda n: finals[n]))
    folds = _folds(study)
    kind = "with new seeds, twice as many" + (f", mean of {folds} folds of patients" if folds > 1 else "")
    return [
        *([f"new pictures {scores}: {study.objective} {kind}"] if finals else []),
        *(f"can not win  trial {trial.number}: {trial.copies}" for trial in study.trials if trial.copies),
        *(f"failed       trial {trial.number}: {trial.reason}" for trial in study.trials if trial.status == "failed"),
    ]


def _folds(study: StudyResults) -> int:
    """Return the number of folds of patients on which the finalists were scored."""
    return int((study.winner.final or {}).get("folds", 1))


def _few_photographs(study: StudyResults) -> list[str]:
    """Return a note where an epoch is scored on fewer photographs than it has pictures."""
    held_out = len(study.reference.held_out.groups)
    if held_out >= study.config.validation.pictures:
        return []
    line = f"few          an epoch is scored on {held_out} held-out photographs only"
    folds = _folds(study)
    if folds == 1:
        return [f"{line}: --validation.folds 3 scores the finalists on every photograph"]
    return [f"{line}; the finalists were trained {folds} times, so that each is scored on every photograph once"]


def _generate_command(verdict: Verdict, reference: str) -> list[str]:
    """Return the command that generates pictures: with the filter where enough of them pass."""
    command = f"python -m woundray.generate --from {shlex.quote(reference)} -n 100"
    if verdict.filtered:
        return [f"draw more    {command} --filter"]
    return [f"draw more    {command}", "             to look at: hardly any picture passes the filter"]


def _mlflow_page(tracker: Tracker) -> list[str]:
    """Return the address of MLflow's table of trials, and for a database the command that serves it."""
    page = redact(tracker.page)
    if tracker.uri.startswith("http"):
        return [f"compare      {page}"]
    ui = "MLFLOW_DISABLE_TELEMETRY=true mlflow ui"  # without it, MLflow reports clicks to its makers
    return [f"compare      {ui} --backend-store-uri {redact(tracker.uri)}", f"             {page}"]


def _activate_environment() -> list[str]:
    """Return the command that activates the virtual environment, where the shell has not activated it."""
    activate = Path(sys.executable).with_name("activate")
    if not activate.exists() or str(activate.parent) in os.environ.get("PATH", "").split(os.pathsep):
        return []
    return [f"first        source {activate}"]
