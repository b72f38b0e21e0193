"""Paired comparison of sets of images of the same seeds against one reference: differences with intervals."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from woundray.evaluation.embedders import Features
from woundray.evaluation.real_reference import RealReference
from woundray.evaluation.score_context import NORMAL_95
from woundray.evaluation.set_metrics import feature_metrics
from woundray.metrics.feature_checks import Rows
from woundray.metrics.jackknife import Statistic, jackknife_sd


@dataclass(frozen=True)
class Difference:
    """Values of a score for each set, and for each set after the first its difference to the first.

    differences: (difference, low, high) with the 95 % interval.
    """

    name: str
    values: tuple[float, ...]
    differences: tuple[tuple[float, float, float], ...]

    def significant(self, number: int) -> bool:
        """Return whether the interval of the difference of set `number` (from 1) excludes 0."""
        _, low, high = self.differences[number - 1]
        return low > 0 or high < 0


def paired_differences(sets: Sequence[Features], reference: RealReference) -> list[Difference]:
    """Compute differences of scores between sets of equally many images, paired by seed.

    The jackknife leaves the same seeds and the same patients out of both sets, so that common variation cancels: a
    difference can be significant where the intervals of the two scores overlap.
    """
    assert len({len(features) for features in sets}) == 1, "paired sets have one size"
    n, groups = len(sets[0]), reference.held_out.groups
    real, held_out = reference.all_images.features, reference.held_out.features
    smallest = min(n, len(groups))
    columns: dict[str, list[Statistic]] = {}
    for features in sets:
        for metric in feature_metrics(reference.extractor, features, held_out, real, smallest=smallest):
            columns.setdefault(metric.name, []).append(metric.of_generated)
        columns.setdefault("copy_rate", []).append(_copy_rate(features, reference))

    all_rows = np.arange(n), np.arange(len(groups))
    found = []
    for name, statistics in columns.items():
        values = tuple(statistic(*all_rows) for statistic in statistics)
        differences = []
        for statistic, value in zip(statistics[1:], values[1:], strict=True):
            half = NORMAL_95 * jackknife_sd(_minus(statistic, statistics[0]), n, groups, seed=reference.seed)
            difference = value - values[0]
            differences.append((difference, difference - half, difference + half))
        found.append(Difference(name, values, tuple(differences)))
    return found


def _minus(a: Statistic, b: Statistic) -> Statistic:
    return lambda generated, real: a(generated, real) - b(generated, real)


def _copy_rate(features: Features, reference: RealReference) -> Statistic:
    suspected = np.zeros(len(features))
    suspected[[suspect.generated for suspect in reference.copy_rate(features).suspects]] = 1

    def rate(generated: Rows, _: Rows) -> float:
        return float(suspected[generated].mean())

    return rate
