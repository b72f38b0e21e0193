"""What the score of a trial is read beside: the base model and real photographs, at the same number of pictures."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from woundray.checkpoints.generate import NEW_SEEDS_FILE
from woundray.config import Config
from woundray.evaluation.real_reference import RealReference
from woundray.metrics.real_baseline import RealBaseline
from woundray.results.trials import TrialSummary


@dataclass(frozen=True)
class ReferenceScores:
    """Scores at one number of pictures: a Frechet distance falls with it, so that no others can be compared.

    Attributes:
        base: of the base model without an adapter, by the same seeds; the mean over folds of patients, where finalists
            were scored on these. None: not known, in a study of an earlier version.
        real_baseline: of real photographs against those of other patients.
    """

    base: float | None
    real_baseline: RealBaseline


def reference_scores(
    trial: TrialSummary, config: Config, precomputed: Path, baseline: Mapping[str, float], reference: RealReference
) -> ReferenceScores | None:
    """What a trial's one score is read beside; None where the objective has neither, as a validation loss.

    Args:
        config: of the study.
        precomputed: folder of the study's materials.
        baseline: scores of the base model by the seeds of an epoch.
        reference: what epochs' pictures are scored against.
    """
    objective = config.metrics.objective
    if objective not in baseline:
        return None
    if not trial.final:
        return ReferenceScores(baseline[objective], reference.real_baseline)
    folds = [precomputed.parent / f"folds/{fold}/precomputed" for fold in range(1, int(trial.final.get("folds", 1)))]
    files = [folder / NEW_SEEDS_FILE for folder in (precomputed, *folds)]
    base = None
    if all(file.is_file() for file in files):
        base = mean(json.loads(file.read_text(encoding="utf-8"))["scores"][objective] for file in files)
    return ReferenceScores(base, reference.at(2 * config.validation.pictures).real_baseline)
