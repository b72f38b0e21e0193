"""Whole protocol on fast fakes with a known effect."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from downstream.fakes import NoisyStudy, Pixels, Planted
from woundray.config import EffectConfig
from woundray.downstream.arms import RECIPES, Arm
from woundray.downstream.cohort import load_cohort, patient_folds
from woundray.downstream.leakage import LeakError
from woundray.downstream.outcome import Outcome, compute_outcome
from woundray.downstream.protocol import Measurement, MeasurementSetup, best_recipe, measure
from woundray.errors import UserError

CONFIG = EffectConfig(ratios=(1.0, 8.0), primary_ratio=8.0, folds=3, seeds=2, views=1, resamples=500)


def setup(
    folder: Path, generator: Planted, *, patients: int = 24, classifier: Pixels | None = None
) -> MeasurementSetup:
    return MeasurementSetup(CONFIG, NoisyStudy(patients), generator, classifier or Pixels(), folder, 0)


def measured(setting: MeasurementSetup) -> Measurement:
    return measure(setting, progress=lambda *_: None)


def outcome(folder: Path, kind: str) -> Outcome:
    return compute_outcome(measured(setup(folder, Planted(kind))), CONFIG, seed=0)


def test_a_useful_generator_is_found(tmp_path: Path) -> None:
    """In studies of three sets of patients: one of them may be so easy that little is left to gain."""
    studies = [replace(setup(tmp_path / str(seed), Planted()), open_source=NoisyStudy(24, seed)) for seed in range(3)]

    found = [compute_outcome(measured(study), CONFIG, seed=0) for study in studies]

    calls = [each.verdict.call for each in found]
    assert calls.count("helps") >= 2 and "hurts" not in calls
    assert np.mean([each.gain.value for each in found]) > 0.1
    assert all(each.slope.value > 0 for each in found)


def test_training_pictures_again_make_no_difference(tmp_path: Path) -> None:
    found = outcome(tmp_path, "useless")

    assert found.verdict.call == "makes no difference"
    assert abs(found.gain.value) < 0.02


def test_pictures_of_the_wrong_phase_hurt(tmp_path: Path) -> None:
    found = outcome(tmp_path, "harmful")

    assert found.verdict.call == "hurts"
    assert found.slope.high < 0


def test_too_few_patients_to_tell(tmp_path: Path) -> None:
    """The same useful pictures at a ratio that does little, for a third of the patients."""
    config = CONFIG.model_copy(update={"ratios": (0.25,), "primary_ratio": 0.25})
    small = replace(setup(tmp_path, Planted(), patients=8), config=config)

    found = compute_outcome(measured(small), config, seed=0)

    assert found.verdict.call == "can't be told at this size"
    assert found.verdict.detectable > 0.1
    assert f"{found.verdict.patients_needed} patients" in found.verdict.words


def test_every_photograph_is_tested_once_by_models_that_never_saw_its_patient(tmp_path: Path) -> None:
    found = measured(setup(tmp_path, Planted()))
    tested = np.concatenate([fold.test for fold in found.folds])
    groups = np.array(found.cohort.groups)

    assert sorted(tested) == list(range(len(found.cohort.photos)))
    assert all(not set(groups[fold.train]) & set(groups[fold.test]) for fold in found.folds)
    assert {table.shape for table in found.predicted.values()} == {(CONFIG.seeds, len(found.cohort.photos))}


def test_patients_can_be_dealt_to_folds_anew(tmp_path: Path) -> None:
    once = measured(setup(tmp_path / "once", Planted()))
    config = CONFIG.model_copy(update={"repeats": 2})
    twice = measured(replace(setup(tmp_path / "twice", Planted()), config=config))
    count = len(once.folds)

    assert (once.repeats, twice.repeats) == (1, 2)
    assert len({fold.number for fold in twice.folds}) == len(twice.folds) == 2 * count
    for repeat in range(2):
        folds = twice.folds[repeat * count : (repeat + 1) * count]
        assert sorted(np.concatenate([fold.test for fold in folds])) == list(range(len(twice.cohort.photos)))
    assert {tuple(fold.test) for fold in twice.folds[:count]} != {tuple(fold.test) for fold in twice.folds[count:]}
    # the first deal is what it was alone: no fold of the other has a say in its controls or predictions
    assert twice.recipes[:count] == once.recipes
    for arm, table in once.predicted.items():
        assert (twice.predicted[arm][: CONFIG.seeds] == table).all()
        assert twice.predicted[arm].shape == (2 * CONFIG.seeds, len(twice.cohort.photos))
    assert (twice.best_control()[: CONFIG.seeds] == once.best_control()).all()
    predictions = {Arm(recipe): np.zeros_like(twice.predicted[Arm(recipe)]) for recipe in RECIPES}
    predictions[Arm("oversampling")][: CONFIG.seeds] = predictions[Arm("augmentation")][CONFIG.seeds :] = (
        twice.cohort.labels
    )
    chosen = [best_recipe(twice.cohort, fold, predictions, config) for fold in twice.folds]
    assert chosen == ["oversampling"] * count + ["augmentation"] * count
    assert compute_outcome(twice, config, seed=0).gain.sd < compute_outcome(once, CONFIG, seed=0).gain.sd


def test_the_best_control_of_a_fold_is_chosen_without_its_test_side(tmp_path: Path) -> None:
    found = measured(setup(tmp_path, Planted()))
    fold, others = found.folds[0], dict(found.predicted)
    for number, arm in enumerate((Arm("real"), Arm("oversampling"), Arm("augmentation"))):
        spoilt = others[arm].copy()
        spoilt[:, fold.test] = number  # whatever it was, and no longer the same for all
        others[arm] = spoilt

    assert best_recipe(found.cohort, fold, others, CONFIG) == found.recipes[0]
    others[Arm("oversampling")] = np.tile(found.cohort.labels, (CONFIG.seeds, 1))  # right on the other folds
    assert best_recipe(found.cohort, fold, others, CONFIG) == "oversampling"


def test_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    whole = measured(setup(tmp_path / "whole", Planted()))
    with pytest.raises(UserError, match="out of power"):
        measured(setup(tmp_path / "part", Planted(dies_after=5)))

    rest, classifier = Planted(), Pixels()
    found = measured(setup(tmp_path / "part", rest, classifier=classifier))

    assert len(rest.calls) == 9 - 5
    assert all((found.predicted[arm] == whole.predicted[arm]).all() for arm in whole.predicted)
    classified = classifier.calls
    measured(setup(tmp_path / "part", rest, classifier=classifier))
    assert (len(rest.calls), classifier.calls) == (4, classified)


def test_another_generator_makes_its_pictures_and_predictions_anew(tmp_path: Path) -> None:
    measured(setup(tmp_path, Planted("useful")))
    other = Planted("harmful")

    assert compute_outcome(measured(setup(tmp_path, other)), CONFIG, seed=0).verdict.call == "hurts"
    assert len(other.calls) == 9


@pytest.mark.parametrize("stage", ["filter", "reference", "search"])
def test_a_planted_leak_is_refused(tmp_path: Path, stage: str) -> None:
    setting = setup(tmp_path, Planted())
    cohort = load_cohort(setting.open_source(), CONFIG.phases, views=1)
    fold = patient_folds(cohort, folds=3, seed=0)[0]
    leaky = replace(setting, generator=Planted(claims={stage: [cohort.photos[fold.test[0]].path]}))

    with pytest.raises(LeakError, match=f"{stage} used .* who is a test patient"):
        measured(leaky)


def test_a_near_duplicate_of_another_patient_stays_on_one_side(tmp_path: Path) -> None:
    """Folds keep them together, whatever the patients are called."""
    cohort = load_cohort(Twins(24)(), CONFIG.phases, views=1)
    groups = dict(zip((photo.path.name for photo in cohort.photos), cohort.groups, strict=True))

    assert groups["I00-1.png"] == groups["P05-2.png"]
    for fold in patient_folds(cohort, folds=3, seed=0):
        names = {cohort.photos[row].path.name for row in fold.test}
        assert len(names & {"I00-1.png", "P05-2.png"}) in (0, 2)


def test_what_counts_as_a_near_duplicate_is_the_settings(tmp_path: Path) -> None:
    cohort = load_cohort(replace(Twins(24)(), duplicate_correlation=1.0), CONFIG.phases, views=1)
    groups = dict(zip((photo.path.name for photo in cohort.photos), cohort.groups, strict=True))
    assert groups["I00-1.png"] != groups["P05-2.png"]
    assert cohort.duplicate_correlation == 1.0


class Twins(NoisyStudy):
    """One scene, a little darker and mirrored, under two patients' names."""

    def __call__(self):  # type: ignore[no-untyped-def]
        source = super().__call__()
        scene = source.pixels[Path("I00-1.png")]
        source.pixels[Path("P05-2.png")] = (scene[:, ::-1] * 0.9).astype(np.uint8)
        return source


def test_too_few_patients_for_the_folds(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"effect\.folds: phase I has 4 groups"):
        measured(setup(tmp_path, Planted(), patients=4))
