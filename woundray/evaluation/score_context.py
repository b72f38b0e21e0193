"""What all scores of an evaluation are read against, and how one of them is made."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from woundray.config import QualityConfig
from woundray.evaluation.embedders import Features, score_name
from woundray.evaluation.filter_rules import Passes
from woundray.evaluation.real_reference import RealReference
from woundray.evaluation.set_metrics import Measure
from woundray.metrics.jackknife import Statistic, jackknife_sd
from woundray.metrics.real_baseline import RealBaseline, Rows, deals
from woundray.metrics.score import Score
from woundray.metrics.threshold import Threshold

NORMAL_95 = 1.96
COPY_FEATURES = "lite0_head"

Splits = list[tuple[Rows, Rows]]


@dataclass(frozen=True)
class ScoreContext:
    """Features of generated pictures (seeds from `seed` on), their reference, and the thresholds of their phase."""

    generated: Features
    reference: RealReference
    quality: QualityConfig
    seed: int

    @property
    def n(self) -> int:
        """Generated pictures."""
        return len(self.generated)

    @property
    def m(self) -> int:
        """Held-out photographs."""
        return len(self.reference.held_out.groups)

    def threshold(self, name: str) -> Threshold | None:
        """Threshold on a score that users ask for, where it is enabled; comparable on the features it was made for."""
        quality, inception = self.quality, self.reference.extractor == "inception"
        if name == frechet(self.reference):
            return Threshold(quality.fid.max_threshold, "max", inception) if quality.fid.enabled else None
        if name == score_name("inception_score", self.reference.extractor):
            limit = quality.inception_score
            return Threshold(limit.min_threshold, "min", inception) if limit.enabled else None
        if name == "ssim_nn":
            return Threshold(quality.ssim.min_threshold, "min") if quality.ssim.enabled else None
        if name == "lpips_nn":
            return Threshold(quality.lpips.max_threshold, "max") if quality.lpips.enabled else None
        return None

    def splits(self, groups: Sequence[str]) -> Splits:
        """Sides of real photographs of these sizes, as far as the photographs go, without a common patient."""
        return deals(groups, n=self.n, m=self.m, repeats=self.reference.repeats, seed=self.reference.seed)

    def measure(self, measure: Measure, splits: Splits) -> Score:
        """A score with its floor on the splits and its interval."""
        value = measure.of_generated(np.arange(self.n), np.arange(self.m))
        real_baseline = RealBaseline.of([measure.of_real(a, b) for a, b in splits], splits, n_wanted=self.n)
        low, high = self.interval(value, measure.of_generated)
        if low == high and (measure.low, measure.high) == (0.0, 1.0):
            low, high = binomial(value, min(self.n, self.m))  # none or all, whatever is left out
        return self.score(
            measure.name,
            value,
            measure.features,
            interval=(max(low, measure.low), min(high, measure.high)),
            real_baseline=real_baseline,
            alone=not measure.needs_reference,
        )

    def share(self, name: str, passes: Passes, real: Passes, threshold: Threshold | None, *, features: str) -> Score:
        """Share of pictures that pass, beside that of held-out photographs."""
        value = float(passes.mean())
        return self.score(
            name, value, features, interval=binomial(value, self.n), real=float(real.mean()), threshold=threshold
        )

    def interval(self, value: float, statistic: Statistic) -> tuple[float, float]:
        """95 %, by leaving out pictures and patients."""
        half = NORMAL_95 * jackknife_sd(statistic, self.n, self.reference.held_out.groups, seed=self.reference.seed)
        return value - half, value + half

    def score(
        self,
        name: str,
        value: float,
        features: str,
        *,
        interval: tuple[float, float] | None = None,
        real_baseline: RealBaseline | None = None,
        real: float | None = None,
        threshold: Threshold | None = None,
        alone: bool = False,
    ) -> Score:
        """A score with its threshold; `alone`: it needs no reference."""
        low, high = interval or (None, None)
        against = None if alone else self.m
        threshold = threshold or self.threshold(name)
        return Score(name, value, self.n, real_baseline, self.seed, features, against, low, high, real, threshold)


def frechet(reference: RealReference) -> str:
    """Name of the Frechet distance of a reference."""
    return "fid" if reference.extractor == "inception" else f"fd_{reference.extractor}"


def binomial(share: float, n: int) -> tuple[float, float]:
    """Exact 95 % interval of a share of n (Clopper & Pearson 1934)."""
    interval = binomtest(round(share * n), n).proportion_ci(0.95)
    return float(interval.low), float(interval.high)
