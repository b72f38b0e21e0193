"""After the last trial: the best one is judged in full, saved as a model, and reported."""

import logging
from pathlib import Path

from woundray.checkpoints.evaluate import evaluate_checkpoint
from woundray.checkpoints.find import EVALUATION, EVALUATIONS
from woundray.checkpoints.generate import SamplingOptions
from woundray.errors import NonFiniteError, UserError
from woundray.reporting import write_report
from woundray.reporting.score_descriptions import missed_thresholds
from woundray.search.finalists import StudyResult
from woundray.tracking.journal import JOURNAL_NAME, Journal, ModelSaved, ReportWritten
from woundray.tracking.model_registry import MODEL_FOLDER, model_name, save_model
from woundray.training.checkpoint import STATE_NAME
from woundray.training.precompute import ProgressCallback

_CODE = Path(__file__).parents[1] / "generation/mlflow_model.py"
_FIRST_SEED = 100_000  # none that a run was steered by

log = logging.getLogger(__name__)


def _wish(study: StudyResult) -> SamplingOptions:
    """The pictures that gave a finalist its score, so that this is the evaluation's, too; else those of other seeds."""
    count, final = study.config.validation.pictures, study.best.final
    return SamplingOptions(2 * count, count if final and "folds" not in final else _FIRST_SEED)


def hand_over(study: StudyResult, data: str, progress: ProgressCallback) -> list[str]:
    """Writes evaluation, model and report of a study that has ended, and tells them to its journal.

    Args:
        data: hash of the photographs and of how they were split.

    Returns:
        Lines to show.
    """
    config, best = study.config, study.best
    score = best.score(config.metrics.objective)
    assert score is not None
    try:
        options = _wish(study)
        file = study.checkpoint / EVALUATION
        missed = evaluate_checkpoint(
            study.checkpoint, options, data=config.data.root, file=file, progress=progress
        ).failed
    except (UserError, NonFiniteError) as error:  # too few pictures or patients for it: the study stands without
        log.warning("the best trial was not judged in full: %s", error)
        missed = ["not judged"]

    progress("model and report", 0, 1)
    folder = study.folder / MODEL_FOLDER
    leave_out = (STATE_NAME, EVALUATION.parts[0], EVALUATIONS, "generated")
    save_model(study.checkpoint, folder, code=_CODE, prompt=config.prompts.positive, leave_out=leave_out)
    journal = Journal(study.folder / JOURNAL_NAME)
    journal.append(
        ModelSaved(
            study=study.folder.name,
            trial=best.id,
            name=model_name(config.phase),
            folder=folder,
            data=data,
            objective=config.metrics.objective,
            score=score,
            missed=missed,
        )
    )
    report, without_photographs = write_report(study.folder)
    journal.append(ReportWritten(file=without_photographs))
    progress("model and report", 1, 1)
    return [f"thresholds   {missed_thresholds(missed)}", f"report       {report}"]
