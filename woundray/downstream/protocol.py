"""The measurement: folds of patients -> generators -> pictures -> arms -> predictions of patients that none of it saw.

Everything that was finished is on disk in the measurement's folder: `pools/fold_1/I/`, `predictions/*.json`. A second
call goes on where the first one was killed.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from woundray.config import EffectConfig
from woundray.downstream.arms import RECIPES, Arm, Recipe, compose, synthetic_arms
from woundray.downstream.classifiers import Classifier, HeldOut
from woundray.downstream.cohort import Cohort, Fold, gather, patient_folds
from woundray.downstream.generators import Generator
from woundray.downstream.leakage import refuse_common_patients, refuse_leaks
from woundray.downstream.statistics import Labels, kappa, patient_confusions
from woundray.downstream.synthetic_pools import Opener, PoolRequest, make_pool, opened, pool_key, read_pool
from woundray.downstream.task_runner import Result, Runner, Task, in_turn
from woundray.system.atomic_files import write_json

ProgressCallback = Callable[[str, int, int], None]
Predictions = dict[Arm, Labels]


@dataclass(frozen=True)
class Measurement:
    """All predictions, and what they were made with.

    Attributes:
        predicted: of each arm (D S, N): of S seeds of each of D deals, each photograph when it was on the test side.
        recipes: the best control of each fold, chosen by the other folds.
        passed: (fold, phase) -> share of drawn pictures that the filter passed.
        refused: (fold, phase) -> share of the used pictures that it refused: where too few passed, they fill up.
    """

    cohort: Cohort
    folds: tuple[Fold, ...]
    predicted: Predictions
    recipes: tuple[Recipe, ...]
    passed: dict[tuple[int, str], float]
    refused: dict[tuple[int, str], float]

    @property
    def repeats(self) -> int:
        """How often the patients were dealt to folds."""
        return 1 + max(fold.deal for fold in self.folds)

    @property
    def seeds(self) -> int:
        """Seeds of a deal."""
        return len(self.predicted[Arm("real")]) // self.repeats

    def best_control(self) -> Labels:
        """(D S, N): of each fold the predictions of its best control."""
        together = np.empty_like(self.predicted[Arm("real")])
        for fold, recipe in zip(self.folds, self.recipes, strict=True):
            own = fold.seeds(self.seeds)
            together[own, fold.test] = self.predicted[Arm(recipe)][own, fold.test]
        return together


@dataclass(frozen=True)
class MeasurementSetup:
    """What every piece of work needs; it goes to the processes that do it."""

    config: EffectConfig
    opener: Opener
    generator: Generator
    classifier: Classifier
    folder: Path
    seed: int

    def pool(self, fold: Fold, phase: str) -> Path:
        """Folder of the synthetic pictures of a fold and phase."""
        return self.folder / "pools" / f"fold_{fold.number}" / phase


@dataclass(frozen=True)
class ClassifierJob:
    """One classifier: an arm, a fold and a seed (from 0)."""

    fold: Fold
    arm: Arm
    recipe: Recipe
    seed: int

    @property
    def file(self) -> str:
        """Name of its predictions."""
        arm = self.arm.name.replace("best control", self.recipe).replace(" ", "_")
        return f"fold_{self.fold.number}_seed_{self.seed}_{arm}.json"


def measure(
    setup: MeasurementSetup, *, pools_by: Runner = in_turn, jobs_by: Runner = in_turn, progress: ProgressCallback
) -> Measurement:
    """Measures all arms.

    Args:
        pools_by, jobs_by: do the work of generators and of classifiers.

    Raises:
        LeakError: a test patient reached a generator, filter, reference, search or classifier.
        UserError: too few patients, or a generator or classifier that can not be used.
    """
    config, cohort = setup.config, _cohort(setup)
    folds = patient_folds(cohort, folds=config.folds, seed=setup.seed, repeats=config.repeats)
    for fold in folds:
        refuse_common_patients(cohort, fold.train, fold.test)

    # synthetic pictures of each fold and phase, of the fold's training patients alone
    orders = [_order(setup, cohort, fold, phase) for fold in folds for phase in cohort.phases]
    make = partial(make_pool, opener=setup.opener, generator=setup.generator)
    _all(pools_by, make, orders, "generators", progress)
    passed, refused = {}, {}
    for fold in folds:
        for phase in cohort.phases:
            pool = read_pool(setup.pool(fold, phase))
            refuse_leaks(cohort, fold.test, pool.used)
            passed[fold.number, phase], refused[fold.number, phase] = pool.passed, pool.refused

    # controls; then synthetic pictures on top of the control that is best on the other folds
    work = partial(predict, setup=setup)
    controls = [
        ClassifierJob(fold, Arm(recipe), recipe, seed)
        for fold in folds
        for recipe in RECIPES
        for seed in _seeds(setup, Arm(recipe))
    ]
    predicted = _collect(cohort, controls, _all(jobs_by, work, controls, "controls", progress), config)
    recipes = tuple(best_recipe(cohort, fold, predicted, config) for fold in folds)
    tests = [
        ClassifierJob(fold, arm, recipe, seed)
        for fold, recipe in zip(folds, recipes, strict=True)
        for arm in synthetic_arms(config.ratios)
        for seed in _seeds(setup, arm)
    ]
    predicted |= _collect(cohort, tests, _all(jobs_by, work, tests, "synthetic arms", progress), config)
    return Measurement(cohort, folds, predicted, recipes, passed, refused)


def best_recipe(cohort: Cohort, fold: Fold, predicted: Predictions, config: EffectConfig) -> Recipe:
    """The control of the highest kappa on the patients of the other folds: the fold's own have no say.

    The best of three on the test side itself would be too good by chance, and the gain too small.
    """
    groups = np.array(cohort.groups)[fold.train]

    def score(recipe: Recipe) -> float:
        guessed = predicted[Arm(recipe)][fold.seeds(config.seeds), fold.train]
        counts = patient_confusions(cohort.labels[fold.train], guessed, groups, len(cohort.phases))
        return float(kappa(counts.sum(axis=0), config.kappa).mean())

    return max(RECIPES, key=score)


def predict(job: ClassifierJob, *, setup: MeasurementSetup) -> list[int]:
    """Predictions of a fold's test photographs; read from their file where the same was predicted before."""
    cohort, fold = _cohort(setup), job.fold
    file = setup.folder / "predictions" / job.file
    needed = cohort.phases if job.arm.ratio else ()
    parts = (
        setup.classifier.key,
        (job.arm, job.recipe, job.seed, setup.config.views),
        [(cohort.photos[row].sha256, int(cohort.labels[row])) for row in (*fold.train, *fold.test)],
        [pool_key(setup.pool(fold, phase)) for phase in needed],
    )
    key = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
    if file.is_file():
        facts = json.loads(file.read_text(encoding="utf-8"))
        if facts["key"] == key:
            return list(facts["predicted"])

    pools = {phase: read_pool(setup.pool(fold, phase)) for phase in needed}
    train = compose(job.arm, cohort, fold.train, pools, recipe=job.recipe, seed=job.seed)
    test = HeldOut(cohort.plain[fold.test], tuple(cohort.photos[row] for row in fold.test))
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="woundray-arm-") as scratch:
        predicted = setup.classifier(train, test, cohort.phases, seed=job.seed, folder=Path(scratch))
    write_json({"key": key, "predicted": predicted.tolist()}, file)
    return [int(label) for label in predicted]


def _seeds(setup: MeasurementSetup, arm: Arm) -> range:
    """The seeds of an arm; one alone where no seed changes its pictures, being all of a pool, or its classifier."""
    all_of_pool = arm.ratio in (0.0, max(setup.config.ratios))
    return range(1 if all_of_pool and not setup.classifier.random else setup.config.seeds)


def _order(setup: MeasurementSetup, cohort: Cohort, fold: Fold, phase: str) -> PoolRequest:
    """As many pictures as the highest ratio takes, of the fold's training photographs of the phase."""
    photos = tuple(cohort.photos[row] for row in fold.train if cohort.photos[row].phase == phase)
    count = max(round(ratio * len(photos)) for ratio in setup.config.ratios)
    return PoolRequest(phase, photos, count, setup.config.views, setup.seed, setup.pool(fold, phase))


def _all(
    runner: Runner, work: Callable[[Task], Result], tasks: Sequence[Task], name: str, progress: ProgressCallback
) -> list[Result]:
    """Results in the order of tasks."""
    found: dict[int, Result] = {}
    progress(name, 0, len(tasks))
    for place, result in runner(work, tasks):
        found[place] = result
        progress(name, len(found), len(tasks))
    return [found[place] for place in range(len(tasks))]


def _collect(
    cohort: Cohort, jobs: Sequence[ClassifierJob], results: Sequence[list[int]], config: EffectConfig
) -> Predictions:
    """Predictions of all folds together: arm -> (D S, N). What seed 0 alone predicted stands for all of its deal."""
    found: dict[Arm, NDArray[np.int64]] = {}
    for job, result in zip(jobs, results, strict=True):
        table = found.setdefault(job.arm, np.full((config.repeats * config.seeds, len(cohort.photos)), -1))
        deal = job.fold.seeds(config.seeds)
        table[deal.start + job.seed : deal.stop, job.fold.test] = result
    assert all((table >= 0).all() for table in found.values()), "each photograph is tested once a deal"
    return found


@cache
def _opened(opener: Opener, phases: tuple[str, ...], views: int) -> Cohort:
    return gather(opened(opener), phases, views=views)


def _cohort(setup: MeasurementSetup) -> Cohort:
    """One a process: reading photographs takes longer than a classifier."""
    return _opened(setup.opener, setup.config.phases, setup.config.views)
