"""Scores of copying, each beside what held-out photographs score, and the copies' and wounds' look of one picture."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import fisher_exact

from woundray.config import QualityConfig
from woundray.evaluation.embedders import Features, score_name
from woundray.evaluation.filter_rules import Passes, Values, hold
from woundray.evaluation.real_reference import RealReference
from woundray.evaluation.score_context import COPY_FEATURES, ScoreContext, binomial
from woundray.metrics.frechet import frechet_distance
from woundray.metrics.memorization import CopyRate, auth_pct, c_t, mifid, nearest_ratio, train_gap
from woundray.metrics.precision_recall import neighbour_distance
from woundray.metrics.real_baseline import Rows
from woundray.metrics.score import Score
from woundray.metrics.threshold import Threshold

GAP_DRAWS = 20


def copy_scores(score_context: ScoreContext, copies: CopyRate) -> list[Score]:
    """copy_rate with its threshold, train_gap, and MiFID, AuthPct and C_T, which hardly see one copy in ten."""
    generated, reference = score_context.generated, score_context.reference
    seen, unseen = reference.train.features, reference.held_out.features
    extractor = reference.extractor

    # nearer to training photographs than to held-out ones, with equally many of each
    gap = train_gap(
        generated.distance, seen.distance, unseen.distance, distance=frechet_distance, repeats=GAP_DRAWS,
        seed=reference.seed,
    )  # fmt: skip
    drawn = seen.distance[np.random.default_rng(reference.seed).choice(len(seen), gap.n, replace=False)]

    def gap_of(a: Rows, b: Rows) -> float:
        x = generated.distance[a]
        return frechet_distance(x, unseen.distance[b]) - frechet_distance(x, drawn)

    def mifid_of(a: Rows, b: Rows) -> float:
        return mifid(frechet_distance(generated.distance[a], unseen.distance[b]), generated.copies[a], seen.copies)

    def c_t_of(a: Rows, b: Rows) -> float:
        return c_t(generated.copies[a], seen.copies, unseen.copies[b])

    everything = np.arange(score_context.n), np.arange(score_context.m)
    informed, statistic = mifid_of(*everything), c_t_of(*everything)
    authentic = auth_pct(generated.copies, seen.copies)
    return [
        score_context.score(
            "copy_rate",
            copies.rate,
            COPY_FEATURES,
            interval=binomial(copies.rate, score_context.n),
            real=copies.held_out_rate,
            threshold=Threshold(largest_unsuspicious_rate(copies, reference.copies.p_value), "max"),
        ),
        score_context.score(
            score_name("train_gap", extractor),
            gap.mean,
            extractor,
            interval=score_context.interval(gap.mean, gap_of),
            real=0.0,
        ),
        score_context.score(
            score_name("mifid", extractor),
            informed,
            f"{extractor}, {COPY_FEATURES}",
            interval=score_context.interval(informed, mifid_of) if np.isfinite(informed) else None,
            real=mifid(reference.real_baseline.mean, unseen.copies, seen.copies),
        ),
        score_context.score(
            "auth_pct",
            authentic,
            COPY_FEATURES,
            interval=binomial(authentic, score_context.n),
            real=auth_pct(unseen.copies, seen.copies),
        ),
        score_context.score(
            "c_t", statistic, COPY_FEATURES, interval=score_context.interval(statistic, c_t_of), real=0.0
        ),
    ]


def largest_unsuspicious_rate(copies: CopyRate, p_value: float) -> float:
    """The largest share of suspected copies that chance explains, given the held-out share."""
    alarms = round(copies.held_out_rate * copies.held_out_n)
    largest = 0
    for count in range(copies.n + 1):
        table = [[count, copies.n - count], [alarms, copies.held_out_n - alarms]]
        if fisher_exact(table, alternative="greater").pvalue < p_value:
            break
        largest = count
    return largest / copies.n


@dataclass(frozen=True)
class SingleImageScores:
    """Judges one picture alone: as near to photographs as those of other patients are (`knn`), and no copy."""

    reference: RealReference
    copy_threshold: float
    neighbours: int
    knn_limit: float

    @classmethod
    def of(cls, reference: RealReference, quality: QualityConfig, copy_threshold: float) -> "SingleImageScores":
        """The kNN limit is the quantile of training photographs' own distances to those of other patients."""
        groups = np.array(reference.train.groups)
        same_patient = groups[:, None] == groups[None, :]
        k = min(quality.knn.neighbours, int((~same_patient).sum(axis=1).min()))
        real = reference.train.features.copies
        own = neighbour_distance(real, real, k=k, exclude=same_patient)
        return cls(reference, copy_threshold, k, float(np.quantile(own, quality.knn.quantile, method="weibull")))

    @property
    def thresholds(self) -> dict[str, Threshold]:
        """What each value of a picture is held against."""
        return {"knn": Threshold(self.knn_limit, "max"), "copies": Threshold(self.copy_threshold, "min")}

    def values(self, features: Features) -> dict[str, Values]:
        """(N,) each: mean distance to the nearest training photographs, and the nearest's over the second nearest's."""
        train = self.reference.train
        near = neighbour_distance(features.copies, train.features.copies, k=self.neighbours)
        return {"knn": near, "copies": nearest_ratio(features.copies, self.reference.bank, train.groups).ratio}

    def judge(self, features: Features) -> dict[str, Passes]:
        """Name of each metric -> (N,), True where a picture passes."""
        values = self.values(features)
        return {name: hold(threshold, values[name]) for name, threshold in self.thresholds.items()}
