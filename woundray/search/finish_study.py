"""End of a study: full evaluation of the best trial, model for serving, report."""

import logging
from pathlib import Path

from woundray.checkpoints.evaluate import evaluate_checkpoint
from woundray.checkpoints.find import EVALUATION, EVALUATIONS
from woundray.checkpoints.generate import SamplingOptions
from woundray.errors import NonFiniteError, UserError
from woundray.reporting import write_report
from woundray.results.study import StudyResults
from woundray.search.study_folders import journal_path
from woundray.system.progress import ProgressCallback
from woundray.tracking.journal import Journal, ModelSaved, ReportWritten
from woundray.tracking.model_registry import MODEL_FOLDER, model_name, save_model
from woundray.training.checkpoint import STATE_NAME

_SERVED_CODE = Path(__file__).parents[1] / "generation/mlflow_model.py"
_FIRST_SEED = 100_000  # seeds that no choice between epochs or trials has used

log = logging.getLogger(__name__)


def finish_study(study: StudyResults, progress: ProgressCallback) -> StudyResults:
    """Evaluate the best trial, save it as a model, write the report; the journal gets an event for model and report.

    Returns:
        The results with the thresholds that the best trial misses.
    """
    missed = _evaluate(study, progress)
    progress("model and report", 0, 1)
    journal = Journal(journal_path(study.folder))
    journal.append(_save_model(study, missed))
    _, without_photographs = write_report(study.folder)
    journal.append(ReportWritten(file=without_photographs))
    progress("model and report", 1, 1)
    return StudyResults.of(study.folder, study.config)


def _evaluate(study: StudyResults, progress: ProgressCallback) -> list[str]:
    """Write the full evaluation of the best trial, and return the names of the thresholds that it misses."""
    file = study.checkpoint / EVALUATION
    try:
        data, options = study.config.data.root, _sampling_options(study)
        return evaluate_checkpoint(study.checkpoint, options, data=data, file=file, progress=progress).failed
    except (UserError, NonFiniteError) as error:  # too few images or patients: the study is valid without it
        log.warning("the best trial was not evaluated in full: %s", error)
        return ["not evaluated"]


def _sampling_options(study: StudyResults) -> SamplingOptions:
    """Return count and first seed of the images: those of a finalist's score, so that both agree, else new seeds."""
    count, final = study.config.validation.pictures, study.winner.final
    return SamplingOptions(2 * count, count if final and "folds" not in final else _FIRST_SEED)


def _save_model(study: StudyResults, missed: list[str]) -> ModelSaved:
    """Save the best trial as a model that MLflow can serve, and return the event for the journal."""
    config, folder = study.best_config, study.folder / MODEL_FOLDER
    leave_out = (STATE_NAME, EVALUATION.parts[0], EVALUATIONS, "generated")
    save_model(study.checkpoint, folder, code=_SERVED_CODE, prompt=config.prompts.positive, leave_out=leave_out)
    score = study.winner.score(study.objective)
    assert score is not None
    return ModelSaved(
        study=study.folder.name,
        trial=study.winner.id,
        name=model_name(config.phase),
        folder=folder,
        data=study.data_key,
        objective=study.objective,
        score=score,
        missed=missed,
    )
