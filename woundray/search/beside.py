"""What the score of a trial is read beside: the base model and real photographs, at the same number of pictures."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from woundray.config import Config
from woundray.evaluation import Reference
from woundray.metrics.bars import Floor
from woundray.search.summary import TrialSummary
from woundray.training.generation import NEW_BASELINE


@dataclass(frozen=True)
class Beside:
    """Scores at `pictures` generated ones: a Frechet distance falls with their number, so only these can be compared.

    Attributes:
        base: of the base model without an adapter, by the same seeds; None: not known, in an earlier version's study.
        floor: of real photographs against those of other patients.
    """

    pictures: int
    base: float | None
    floor: Floor


def beside(
    trial: TrialSummary, config: Config, materials: Path, baseline: Mapping[str, float], reference: Reference
) -> Beside | None:
    """What a trial's one score is read beside; None where the objective has neither, as a validation loss.

    Args:
        config: of the study.
        materials: folder of the study's materials.
        baseline: scores of the base model by the seeds of an epoch.
        reference: what epochs' pictures are scored against.
    """
    objective = config.metrics.objective
    if objective not in baseline:
        return None
    if not trial.final:
        return Beside(reference.floor.n_wanted, baseline[objective], reference.floor)
    pictures, base, file = 2 * config.validation.pictures, None, materials / NEW_BASELINE
    if file.is_file():
        base = json.loads(file.read_text(encoding="utf-8"))["scores"][objective]
    return Beside(pictures, base, reference.at(pictures).floor)
