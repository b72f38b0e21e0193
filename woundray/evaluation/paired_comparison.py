"""Several sets of pictures of the same seeds against one reference: differences with intervals."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from woundray.evaluation.embedders import Features
from woundray.evaluation.real_reference import RealReference
from woundray.evaluation.score_context import NORMAL_95
from woundray.evaluation.set_metrics import feature_measures
from woundray.metrics.jackknife import Statistic, jackknife_sd
from woundray.metrics.real_baseline import Rows

NEIGHBOURS = 5


@dataclass(frozen=True)
class Difference:
    """A score of each set, and for each set after the first its value minus the first's with a 95 % interval."""

    name: str
    values: tuple[float, ...]
    differences: tuple[tuple[float, float, float], ...]

    def clear(self, number: int) -> bool:
        """Whether the interval of the difference of set `number` (from 1) lies on one side of 0."""
        _, low, high = self.differences[number - 1]
        return low > 0 or high < 0


def differences(sets: Sequence[Features], reference: RealReference) -> list[Difference]:
    """Differences of scores between sets of equally many pictures, picture by picture of the same seed.

    The same pictures' seeds and the same patients are left out of both sets at a time, so that what both share
    cancels: a difference can be clear where the intervals of the two scores overlap.
    """
    assert len({len(features) for features in sets}) == 1, "paired sets have one size"
    n, groups = len(sets[0]), reference.held_out.groups
    real, held_out = reference.everything.features, reference.held_out.features
    k = max(1, min(NEIGHBOURS, min(n, len(groups)) // 2 - 1))
    columns: dict[str, list[Statistic]] = {}
    for features in sets:
        for measure in feature_measures(reference.extractor, features, held_out, real, k=k):
            columns.setdefault(measure.name, []).append(measure.of_generated)
        columns.setdefault("copy_rate", []).append(_copy_rate(features, reference))

    everything = np.arange(n), np.arange(len(groups))
    found = []
    for name, statistics in columns.items():
        values = tuple(statistic(*everything) for statistic in statistics)
        gaps = []
        for statistic, value in zip(statistics[1:], values[1:], strict=True):
            half = NORMAL_95 * jackknife_sd(_minus(statistic, statistics[0]), n, groups, seed=reference.seed)
            gap = value - values[0]
            gaps.append((gap, gap - half, gap + half))
        found.append(Difference(name, values, tuple(gaps)))
    return found


def _minus(a: Statistic, b: Statistic) -> Statistic:
    return lambda pictures, real: a(pictures, real) - b(pictures, real)


def _copy_rate(features: Features, reference: RealReference) -> Statistic:
    suspected = np.zeros(len(features))
    suspected[[suspect.generated for suspect in reference.copy_rate(features).suspects]] = 1

    def rate(pictures: Rows, _: Rows) -> float:
        return float(suspected[pictures].mean())

    return rate
