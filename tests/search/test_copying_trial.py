"""A study with a trial that copies its training photographs: it has the best score, and is not elected."""

from pathlib import Path

from evaluation.fakes import REAL, TRAIN, Colours, pictures
from torch import Tensor

from woundray.config import Config, CopiesThreshold
from woundray.evaluation.epoch_metrics import score
from woundray.evaluation.real_reference import ReferenceOptions, make_reference
from woundray.search.finalists import elect_best_trial
from woundray.search.study_folders import journal_path
from woundray.tracking.journal import EpochReported, Journal, TrialEnded, TrialStarted


class NamedColours(Colours):
    """Features with the name of a score that a study can minimise."""

    name = "lite0"


REFERENCE = make_reference(REAL, NamedColours(), ReferenceOptions(30, CopiesThreshold(), repeats=10, seed=0))
IMAGES: dict[str, Tensor] = {
    "poor": pictures(30, seed=2, level=170),
    "rigged": TRAIN[:30].flip(3),
    "honest": pictures(30, seed=3, level=140),
}


def test_a_trial_rigged_to_copy_its_training_pictures_is_not_elected(tmp_path: Path) -> None:
    journal, scores = Journal(journal_path(tmp_path)), {}
    for number, (name, images) in enumerate(IMAGES.items(), start=1):
        output = tmp_path / "trials" / name
        scores[name] = score(images, REFERENCE, NamedColours())
        journal.append(TrialStarted(trial=name, number=number, values={}, settings={}))
        checkpoint = output / "epoch_0001"
        journal.append(EpochReported(trial=name, epoch=1, metrics=scores[name], checkpoint=checkpoint))
        journal.append(TrialEnded(trial=name, status="FINISHED", stopped_early=False, output=output))
    assert min(scores, key=lambda name: scores[name]["fd_lite0"]) == "rigged"

    config = Config().with_values({"metrics.objective": "fd_lite0"})
    result = elect_best_trial(config, tmp_path)
    assert result.best.id == "honest"
    [rigged] = [trial for trial in result.trials if trial.id == "rigged"]
    assert "of its pictures look like copies of training photographs" in rigged.copies
