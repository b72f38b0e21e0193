"""Reference scores for a trial's score: the base model and real photographs, at the same number of images."""

import json
from dataclasses import dataclass
from statistics import mean

from woundray.checkpoints.generate import NEW_SEEDS_FILE
from woundray.metrics.real_baseline import RealBaseline
from woundray.results.study import PRECOMPUTED, StudyResults
from woundray.results.trials import TrialResult


@dataclass(frozen=True)
class ReferenceScores:
    """Reference scores at one number of images, on which a Fréchet distance depends.

    Attributes:
        base: score of the base model without an adapter, with the same seeds; the mean over folds of patients if
            finalists were scored on folds. None: unknown, in a study of an earlier version.
        real_baseline: real photographs against those of other patients.
    """

    base: float | None
    real_baseline: RealBaseline


def reference_scores(trial: TrialResult, study: StudyResults) -> ReferenceScores | None:
    """Return the reference scores of a trial; None: the objective has none, such as a validation loss."""
    objective = study.objective
    if objective not in study.base_model_scores:
        return None
    if not trial.final:
        return ReferenceScores(study.base_model_scores[objective], study.reference.real_baseline)
    folds = range(1, int(trial.final.get("folds", 1)))
    folders = [study.precomputed, *(study.folder / "folds" / str(fold) / PRECOMPUTED for fold in folds)]
    files = [folder / NEW_SEEDS_FILE for folder in folders]
    base = None
    if all(file.is_file() for file in files):
        base = mean(json.loads(file.read_text(encoding="utf-8"))["scores"][objective] for file in files)
    return ReferenceScores(base, study.reference.at(2 * study.config.validation.pictures).real_baseline)
