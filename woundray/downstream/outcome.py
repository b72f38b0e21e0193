"""Outcome of a measurement: scores of each arm, gains over the best control, and the verdict, from predictions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from woundray.config import EffectConfig
from woundray.downstream import statistics
from woundray.downstream.arms import RECIPES, Arm, synthetic_arms
from woundray.downstream.protocol import Measurement
from woundray.downstream.statistics import CorrectedT, Estimate, Floats, Labels, Weighting
from woundray.downstream.verdict import Verdict, verdict_on_gain


@dataclass(frozen=True)
class ArmScores:
    """Scores of one arm, means over seeds. Gains are over the best control; None for controls.

    Attributes:
        confusion: (K, K), images of each true phase (rows) by predicted phase, mean over seeds.
        gain: with its 95 % interval.
        gain_jointly: with an interval that covers all ratios of the curve at once (Bonferroni).
    """

    name: str
    ratio: float
    kappa: Estimate
    quadratic_kappa: Estimate
    macro_f1: float
    accuracy: float
    recalls: tuple[float, ...]
    confusion: Floats
    gain: Estimate | None = None
    gain_jointly: Estimate | None = None


@dataclass(frozen=True)
class Outcome:
    """Outcome of a measurement.

    Attributes:
        arms: controls, the best control, then synthetic arms.
        gain: of the primary ratio over the best control.
        over_folds: the same gain by the corrected t over folds.
        slope: change of kappa for one more synthetic image per real image, over the ratios and 0.
    """

    arms: tuple[ArmScores, ...]
    gain: Estimate
    over_folds: CorrectedT
    slope: Estimate
    verdict: Verdict


@dataclass(frozen=True)
class EffectReport:
    """Everything that the tables and files of a measurement show.

    Attributes:
        generator: name of what generated the synthetic images.
    """

    outcome: Outcome
    measurement: Measurement
    config: EffectConfig
    title: str
    generator: str


def compute_outcome(measurement: Measurement, config: EffectConfig, *, seed: int) -> Outcome:
    """Compute scores and verdict. The control and the ratio of the verdict were chosen without the test side."""
    cohort = measurement.cohort
    groups, classes, kind = cohort.groups, len(cohort.phases), config.kappa
    synthetic = synthetic_arms(config.ratios)
    best = measurement.best_control()

    def counts(*predicted: Labels) -> Floats:  # (P, arms, S, K, K)
        return statistics.patient_confusions(cohort.labels, np.stack(predicted), groups, classes)

    def scores(name: str, ratio: float, predicted: Labels) -> ArmScores:
        own = counts(predicted)[:, 0]
        mean = own.sum(axis=0).mean(axis=0)
        return ArmScores(
            name,
            ratio,
            statistics.bootstrap(own, _mean_kappa(kind), resamples=config.resamples, seed=seed),
            statistics.bootstrap(own, _mean_kappa("quadratic"), resamples=config.resamples, seed=seed),
            float(statistics.macro_f1(own.sum(axis=0)).mean()),
            float(statistics.accuracy(own.sum(axis=0)).mean()),
            tuple(float(value) for value in statistics.recalls(own.sum(axis=0)).mean(axis=0)),
            mean,
        )

    def gain(predicted: Labels, level: float = statistics.LEVEL) -> Estimate:
        pair = counts(best, predicted)
        return statistics.bootstrap(pair, _gain(kind), resamples=config.resamples, seed=seed, level=level)

    arms = [scores(recipe, 0.0, measurement.predicted[Arm(recipe)]) for recipe in RECIPES]
    arms.append(scores("best control", 0.0, best))
    jointly = 1 - (1 - statistics.LEVEL) / len(config.ratios)
    for arm in synthetic:
        predicted = measurement.predicted[arm]
        plain = scores(arm.name, arm.ratio, predicted)
        together = None if arm.synthetic_only else gain(predicted, jointly)
        arms.append(_with_gain(plain, gain(predicted), together))

    primary = measurement.predicted[Arm("best", config.primary_ratio)]
    found = gain(primary)
    over_folds = _over_folds(measurement, best, primary, kind)
    curve = counts(best, *(measurement.predicted[Arm("best", ratio)] for ratio in config.ratios))
    slope = statistics.bootstrap(curve, _slope(kind, (0.0, *config.ratios)), resamples=config.resamples, seed=seed)
    verdict = verdict_on_gain(found, over_folds, smallest=config.smallest_gain, patients=cohort.patients)
    return Outcome(tuple(arms), found, over_folds, slope, verdict)


def _with_gain(scores: ArmScores, gain: Estimate, jointly: Estimate | None) -> ArmScores:
    return ArmScores(**(vars(scores) | {"gain": gain, "gain_jointly": jointly}))


def _mean_kappa(kind: Weighting) -> statistics.Statistic:
    """Return the statistic (..., S, K, K) -> (...): kappa, mean over seeds."""
    return lambda confusions: statistics.kappa(confusions, kind).mean(axis=-1)


def _gain(kind: Weighting) -> statistics.Statistic:
    """Return the statistic (..., 2, S, K, K) -> (...): the second arm's mean kappa minus the first's."""

    def difference(confusions: Floats) -> Floats:
        means = _mean_kappa(kind)(confusions)
        return means[..., 1] - means[..., 0]

    return difference


def _slope(kind: Weighting, ratios: Sequence[float]) -> statistics.Statistic:
    weights = statistics.slope_weights(ratios)
    return lambda confusions: _mean_kappa(kind)(confusions) @ weights


def _over_folds(measurement: Measurement, best: Labels, primary: Labels, kind: Weighting) -> CorrectedT:
    """Corrected t over folds. Seeds are averaged first: seeds of one fold share patients and are not independent."""
    cohort, classes = measurement.cohort, len(measurement.cohort.phases)
    groups, differences = np.array(cohort.groups), []
    for fold in measurement.folds:
        own = fold.seeds(measurement.seeds)
        pair = np.stack([best[own, fold.test], primary[own, fold.test]])
        counts = statistics.patient_confusions(cohort.labels[fold.test], pair, groups[fold.test], classes)
        differences.append(float(_gain(kind)(counts.sum(axis=0))))
    return statistics.corrected_t(differences, test_share=1 / (len(measurement.folds) // measurement.repeats - 1))
