"""Scores of copying, each beside what held-out photographs score, and the copies' and wounds' look of one picture."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import fisher_exact

from woundray.config import QualityConfig
from woundray.evaluation.embedders import Features, score_name
from woundray.evaluation.filter_rules import Passes, Values, hold
from woundray.evaluation.real_reference import Reference
from woundray.evaluation.score_context import COPY_FEATURES, Basis, binomial
from woundray.metrics.baseline import Bar, Rows, Score
from woundray.metrics.frechet import frechet_distance
from woundray.metrics.memorization import CopyRate, auth_pct, c_t, mifid, nearest_ratio, train_gap
from woundray.metrics.precision_recall import neighbour_distance

GAP_DRAWS = 20


def copy_scores(basis: Basis, copies: CopyRate) -> list[Score]:
    """copy_rate with its bar, train_gap, and MiFID, AuthPct and C_T, which hardly see one copy in ten."""
    generated, reference = basis.generated, basis.reference
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

    everything = np.arange(basis.n), np.arange(basis.m)
    informed, statistic = mifid_of(*everything), c_t_of(*everything)
    authentic = auth_pct(generated.copies, seen.copies)
    return [
        basis.score(
            "copy_rate",
            copies.rate,
            COPY_FEATURES,
            interval=binomial(copies.rate, basis.n),
            real=copies.held_out_rate,
            bar=Bar(largest_unsuspicious_rate(copies, reference.copies.p_value), "max"),
        ),
        basis.score(
            score_name("train_gap", extractor), gap.mean, extractor, interval=basis.interval(gap.mean, gap_of), real=0.0
        ),
        basis.score(
            score_name("mifid", extractor),
            informed,
            f"{extractor}, {COPY_FEATURES}",
            interval=basis.interval(informed, mifid_of) if np.isfinite(informed) else None,
            real=mifid(reference.floor.mean, unseen.copies, seen.copies),
        ),
        basis.score(
            "auth_pct",
            authentic,
            COPY_FEATURES,
            interval=binomial(authentic, basis.n),
            real=auth_pct(unseen.copies, seen.copies),
        ),
        basis.score("c_t", statistic, COPY_FEATURES, interval=basis.interval(statistic, c_t_of), real=0.0),
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
class Judge:
    """Judges one picture alone: as near to photographs as those of other patients are (`knn`), and no copy."""

    reference: Reference
    copy_threshold: float
    neighbours: int
    knn_limit: float

    @classmethod
    def of(cls, reference: Reference, quality: QualityConfig, copy_threshold: float) -> "Judge":
        """The kNN limit is the quantile of training photographs' own distances to those of other patients."""
        groups = np.array(reference.train.groups)
        same_patient = groups[:, None] == groups[None, :]
        k = min(quality.knn.neighbours, int((~same_patient).sum(axis=1).min()))
        real = reference.train.features.copies
        own = neighbour_distance(real, real, k=k, exclude=same_patient)
        return cls(reference, copy_threshold, k, float(np.quantile(own, quality.knn.quantile, method="weibull")))

    @property
    def bars(self) -> dict[str, Bar]:
        """What each value of a picture is held against."""
        return {"knn": Bar(self.knn_limit, "max"), "copies": Bar(self.copy_threshold, "min")}

    def values(self, features: Features) -> dict[str, Values]:
        """(N,) each: mean distance to the nearest training photographs, and the nearest's over the second nearest's."""
        train = self.reference.train
        near = neighbour_distance(features.copies, train.features.copies, k=self.neighbours)
        return {"knn": near, "copies": nearest_ratio(features.copies, self.reference.bank, train.groups).ratio}

    def judge(self, features: Features) -> dict[str, Passes]:
        """Name of each metric -> (N,), True where a picture passes."""
        values = self.values(features)
        return {name: hold(bar, values[name]) for name, bar in self.bars.items()}
