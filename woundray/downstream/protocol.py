"""Protocol of a measurement: folds of patients -> generators -> images -> arms -> predictions of unseen patients.

Finished results are on disk in the measurement's folder: `pools/fold_1/I/`, `predictions/*.json`. A second call
continues after an interruption.
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
from woundray.downstream.arms import RECIPES, Arm, Recipe, build_training_set, synthetic_arms
from woundray.downstream.classifiers import Classifier, HeldOut
from woundray.downstream.cohort import Cohort, Fold, load_cohort, patient_folds
from woundray.downstream.generators import Generator
from woundray.downstream.leakage import refuse_common_patients, refuse_leaks
from woundray.downstream.statistics import Labels, kappa, patient_confusions
from woundray.downstream.synthetic_pools import OpenSource, PoolRequest, make_pool, open_once, pool_key, read_pool
from woundray.downstream.task_runner import Result, Runner, Task, run_sequentially
from woundray.system.atomic_files import write_json
from woundray.system.progress import ProgressCallback

Predictions = dict[Arm, Labels]


@dataclass(frozen=True)
class Measurement:
    """All predictions, with the cohort, folds and controls that they belong to.

    Attributes:
        predicted: arm -> (R S, N): prediction of each of N photographs when it was on the test side, for S seeds of
            each of R repeats.
        recipes: best control of each fold, chosen on the other folds.
        passed: (fold, phase) -> share of generated images that passed the filter.
        refused: (fold, phase) -> share of the used images that failed it: they fill up where too few pass.
    """

    cohort: Cohort
    folds: tuple[Fold, ...]
    predicted: Predictions
    recipes: tuple[Recipe, ...]
    passed: dict[tuple[int, str], float]
    refused: dict[tuple[int, str], float]

    @property
    def repeats(self) -> int:
        """Number of random splits of the patients into folds."""
        return 1 + max(fold.repeat for fold in self.folds)

    @property
    def seeds(self) -> int:
        """Number of seeds of each repeat."""
        return len(self.predicted[Arm("real")]) // self.repeats

    def best_control(self) -> Labels:
        """Return (R S, N): for each fold the predictions of its best control."""
        predicted = np.empty_like(self.predicted[Arm("real")])
        for fold, recipe in zip(self.folds, self.recipes, strict=True):
            rows = fold.seeds(self.seeds)
            predicted[rows, fold.test] = self.predicted[Arm(recipe)][rows, fold.test]
        return predicted


@dataclass(frozen=True)
class MeasurementSetup:
    """Inputs of every pool and classifier job; it is pickled and sent to Ray's workers."""

    config: EffectConfig
    open_source: OpenSource
    generator: Generator
    classifier: Classifier
    folder: Path
    seed: int

    def pool(self, fold: Fold, phase: str) -> Path:
        """Return the folder of the synthetic images of a fold and phase."""
        return self.folder / "pools" / f"fold_{fold.number}" / phase


@dataclass(frozen=True)
class ClassifierJob:
    """One classifier: a fold, an arm, its recipe and a seed (from 0)."""

    fold: Fold
    arm: Arm
    recipe: Recipe
    seed: int

    @property
    def file(self) -> str:
        """Name of the file of its predictions."""
        arm = self.arm.name.replace("best control", self.recipe).replace(" ", "_")
        return f"fold_{self.fold.number}_seed_{self.seed}_{arm}.json"


def measure(
    setup: MeasurementSetup,
    *,
    pool_runner: Runner = run_sequentially,
    job_runner: Runner = run_sequentially,
    progress: ProgressCallback,
) -> Measurement:
    """Measure all arms.

    Args:
        pool_runner, job_runner: run generators and classifiers.

    Raises:
        LeakError: a photograph of a test patient was used by a generator, filter, reference, search or classifier.
        UserError: too few patients, or a generator or classifier that can not be used.
    """
    config, cohort = setup.config, _cohort(setup)
    folds = patient_folds(cohort, folds=config.folds, seed=setup.seed, repeats=config.repeats)
    for fold in folds:
        refuse_common_patients(cohort, fold.train, fold.test)

    # synthetic images of each fold and phase, from the fold's training patients alone
    requests = [_pool_request(setup, cohort, fold, phase) for fold in folds for phase in cohort.phases]
    make = partial(make_pool, open_source=setup.open_source, generator=setup.generator)
    _run_all(pool_runner, make, requests, "generators", progress)
    passed, refused = {}, {}
    for fold in folds:
        for phase in cohort.phases:
            pool = read_pool(setup.pool(fold, phase))
            refuse_leaks(cohort, fold.test, pool.used)
            passed[fold.number, phase], refused[fold.number, phase] = pool.passed, pool.refused

    # controls; then synthetic images added to the control that is best on the other folds
    work = partial(predict, setup=setup)
    controls = [
        ClassifierJob(fold, Arm(recipe), recipe, seed)
        for fold in folds
        for recipe in RECIPES
        for seed in _seeds(setup, Arm(recipe))
    ]
    predicted = _collect(cohort, controls, _run_all(job_runner, work, controls, "controls", progress), config)
    recipes = tuple(best_recipe(cohort, fold, predicted, config) for fold in folds)
    tests = [
        ClassifierJob(fold, arm, recipe, seed)
        for fold, recipe in zip(folds, recipes, strict=True)
        for arm in synthetic_arms(config.ratios)
        for seed in _seeds(setup, arm)
    ]
    predicted |= _collect(cohort, tests, _run_all(job_runner, work, tests, "synthetic arms", progress), config)
    return Measurement(cohort, folds, predicted, recipes, passed, refused)


def best_recipe(cohort: Cohort, fold: Fold, predicted: Predictions, config: EffectConfig) -> Recipe:
    """Return the control with the highest kappa on the patients of the other folds.

    Chosen on the test side itself, the best of three would be too good by chance, and the gain too small.
    """
    groups = np.array(cohort.groups)[fold.train]

    def score(recipe: Recipe) -> float:
        guessed = predicted[Arm(recipe)][fold.seeds(config.seeds), fold.train]
        counts = patient_confusions(cohort.labels[fold.train], guessed, groups, len(cohort.phases))
        return float(kappa(counts.sum(axis=0), config.kappa).mean())

    return max(RECIPES, key=score)


def predict(job: ClassifierJob, *, setup: MeasurementSetup) -> list[int]:
    """Return predictions of a fold's test photographs, from their file if the inputs are the same as before."""
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
    train = build_training_set(job.arm.with_recipe(job.recipe), cohort, fold.train, pools, seed=job.seed)
    test = HeldOut(cohort.plain[fold.test], tuple(cohort.photos[row] for row in fold.test), cohort.phases)
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="woundray-arm-") as scratch:
        predicted = setup.classifier(train, test, seed=job.seed, folder=Path(scratch))
    write_json({"key": key, "predicted": predicted.tolist()}, file)
    return [int(label) for label in predicted]


def _seeds(setup: MeasurementSetup, arm: Arm) -> range:
    """Return the seeds of an arm: one if neither its images (all of a pool) nor its classifier depend on the seed."""
    all_of_pool = arm.ratio in (0.0, max(setup.config.ratios))
    return range(1 if all_of_pool and not setup.classifier.random else setup.config.seeds)


def _pool_request(setup: MeasurementSetup, cohort: Cohort, fold: Fold, phase: str) -> PoolRequest:
    """Return the request for the images of the highest ratio, from the fold's training photographs of the phase."""
    photos = tuple(cohort.photos[row] for row in fold.train if cohort.photos[row].phase == phase)
    count = max(round(ratio * len(photos)) for ratio in setup.config.ratios)
    return PoolRequest(phase, photos, count, setup.config.views, setup.seed, setup.pool(fold, phase))


def _run_all(
    runner: Runner, work: Callable[[Task], Result], tasks: Sequence[Task], name: str, progress: ProgressCallback
) -> list[Result]:
    """Run all tasks and return their results in the order of tasks."""
    found: dict[int, Result] = {}
    progress(name, 0, len(tasks))
    for index, result in runner(work, tasks):
        found[index] = result
        progress(name, len(found), len(tasks))
    return [found[index] for index in range(len(tasks))]


def _collect(
    cohort: Cohort, jobs: Sequence[ClassifierJob], results: Sequence[list[int]], config: EffectConfig
) -> Predictions:
    """Join predictions of all folds: arm -> (R S, N). An arm with seed 0 alone has its values at all seeds."""
    found: dict[Arm, NDArray[np.int64]] = {}
    for job, result in zip(jobs, results, strict=True):
        table = found.setdefault(job.arm, np.full((config.repeats * config.seeds, len(cohort.photos)), -1))
        rows = job.fold.seeds(config.seeds)
        table[rows.start + job.seed : rows.stop, job.fold.test] = result
    assert all((table >= 0).all() for table in found.values()), "each photograph is tested once in each repeat"
    return found


@cache
def _load_cohort(open_source: OpenSource, phases: tuple[str, ...], views: int) -> Cohort:
    return load_cohort(open_once(open_source), phases, views=views)


def _cohort(setup: MeasurementSetup) -> Cohort:
    """Return the cohort, cached in this process: loading photographs takes longer than a classifier."""
    return _load_cohort(setup.open_source, setup.config.phases, setup.config.views)
