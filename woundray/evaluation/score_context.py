"""Score context: sample sizes, reference and thresholds that all scores of an evaluation share; intervals."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import binomtest

from woundray.config import QualityConfig
from woundray.evaluation.embedders import Features
from woundray.evaluation.filter_rules import Passes
from woundray.evaluation.real_reference import RealReference
from woundray.evaluation.set_metrics import SetMetric
from woundray.evaluation.thresholds import score_threshold
from woundray.metrics.feature_checks import Rows
from woundray.metrics.jackknife import Statistic, jackknife_sd
from woundray.metrics.real_baseline import BaselineOptions, RealBaseline, patient_splits
from woundray.metrics.score import Score

NORMAL_95 = 1.96
COPY_FEATURES = "lite0_head"

Splits = list[tuple[Rows, Rows]]


@dataclass(frozen=True)
class ScoreContext:
    """Features of generated images (first seed `seed`), their reference, and the thresholds of their phase."""

    generated: Features
    reference: RealReference
    quality: QualityConfig
    seed: int

    @property
    def n(self) -> int:
        """Number of generated images."""
        return len(self.generated)

    @property
    def m(self) -> int:
        """Number of held-out photographs."""
        return len(self.reference.held_out.groups)

    def splits(self, groups: Sequence[str]) -> Splits:
        """Draw splits of photographs by patient into n and m, or fewer where there are too few photographs."""
        reference = self.reference
        return patient_splits(groups, BaselineOptions(self.n, reference.repeats, reference.seed, m=self.m))

    def score(self, name: str, value: float, features: str, *, interval: tuple[float, float] | None = None) -> Score:
        """Return a score with its configured threshold."""
        low, high = interval or (None, None)
        threshold = score_threshold(name, self.reference.extractor, self.quality)
        return Score(name, value, self.n, None, self.seed, features, self.m, low, high, threshold=threshold)

    def score_metric(self, metric: SetMetric, splits: Splits) -> Score:
        """Compute a metric, its baseline on the splits and its interval."""
        value = metric.of_generated(np.arange(self.n), np.arange(self.m))
        low, high = self.interval(value, metric.of_generated)
        if low == high and (metric.low, metric.high) == (0.0, 1.0):
            low, high = binomial(value, min(self.n, self.m))  # a share of 0 or 1 does not vary under the jackknife
        score = self.score(metric.name, value, metric.features, interval=(max(low, metric.low), min(high, metric.high)))
        return replace(
            score,
            real_baseline=RealBaseline.of([metric.of_real(a, b) for a, b in splits], splits, n_wanted=self.n),
            reference_n=self.m if metric.needs_reference else None,
        )

    def score_share(self, name: str, passes: Passes, real: Passes, *, features: str) -> Score:
        """Return the share of images that pass, and that of held-out photographs."""
        value = float(passes.mean())
        score = self.score(name, value, features, interval=binomial(value, self.n))
        return replace(score, real=float(real.mean()))

    def interval(self, value: float, statistic: Statistic) -> tuple[float, float]:
        """Return the 95 % interval, by a jackknife over images and patients."""
        half = NORMAL_95 * jackknife_sd(statistic, self.n, self.reference.held_out.groups, seed=self.reference.seed)
        return value - half, value + half


def binomial(share: float, n: int) -> tuple[float, float]:
    """Return the exact 95 % interval of a share of n (Clopper & Pearson 1934)."""
    interval = binomtest(round(share * n), n).proportion_ci(0.95)
    return float(interval.low), float(interval.high)
