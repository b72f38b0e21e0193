"""Scores of copying: copy rate, train gap, MiFID, AuthPct and C_T, each with the value of held-out photographs."""

from dataclasses import replace

import numpy as np

from woundray.evaluation.score_context import COPY_FEATURES, ScoreContext, binomial
from woundray.evaluation.thresholds import copy_rate_threshold
from woundray.metrics.feature_checks import Rows
from woundray.metrics.frechet import frechet_distance
from woundray.metrics.memorization import CopyRate, auth_pct, c_t, mifid, train_gap
from woundray.metrics.score import Score
from woundray.metrics.score_names import score_name


def copy_scores(score_context: ScoreContext, copies: CopyRate) -> list[Score]:
    """Return copy_rate with its threshold, train_gap, and MiFID, AuthPct and C_T.

    The last three hardly detect 10 % of copies.
    """
    generated, reference = score_context.generated, score_context.reference
    seen, unseen = reference.train.features, reference.held_out.features
    extractor = reference.extractor

    # distance to held-out minus distance to training photographs, with equally many of each
    gap = train_gap(generated.distance, seen.distance, unseen.distance, distance=frechet_distance, seed=reference.seed)
    sample = seen.distance[np.random.default_rng(reference.seed).choice(len(seen), gap.n, replace=False)]

    def gap_of(a: Rows, b: Rows) -> float:
        x = generated.distance[a]
        return frechet_distance(x, unseen.distance[b]) - frechet_distance(x, sample)

    def mifid_of(a: Rows, b: Rows) -> float:
        return mifid(frechet_distance(generated.distance[a], unseen.distance[b]), generated.copies[a], seen.copies)

    def c_t_of(a: Rows, b: Rows) -> float:
        return c_t(generated.copies[a], seen.copies, unseen.copies[b])

    all_rows = np.arange(score_context.n), np.arange(score_context.m)
    memorization_distance, statistic = mifid_of(*all_rows), c_t_of(*all_rows)
    authentic = auth_pct(generated.copies, seen.copies)

    rate = copy_rate_score(score_context, "copy_rate", copies, COPY_FEATURES)
    gap_score = score_context.score(
        score_name("train_gap", extractor), gap.mean, extractor, interval=score_context.interval(gap.mean, gap_of)
    )
    mifid_score = score_context.score(
        score_name("mifid", extractor),
        memorization_distance,
        f"{extractor}, {COPY_FEATURES}",
        interval=score_context.interval(memorization_distance, mifid_of)
        if np.isfinite(memorization_distance)
        else None,
    )
    authentic_score = score_context.score(
        "auth_pct", authentic, COPY_FEATURES, interval=binomial(authentic, score_context.n)
    )
    c_t_score = score_context.score("c_t", statistic, COPY_FEATURES, interval=score_context.interval(statistic, c_t_of))
    return [
        replace(rate, threshold=copy_rate_threshold(copies, reference.copies.p_value)),
        replace(gap_score, real=0.0),
        replace(mifid_score, real=mifid(reference.real_baseline.mean, unseen.copies, seen.copies)),
        replace(authentic_score, real=auth_pct(unseen.copies, seen.copies)),
        replace(c_t_score, real=0.0),
    ]


def copy_rate_score(score_context: ScoreContext, name: str, copies: CopyRate, features: str) -> Score:
    """Return the share of suspected copies, and that of held-out photographs."""
    score = score_context.score(name, copies.rate, features, interval=binomial(copies.rate, score_context.n))
    return replace(score, real=copies.held_out_rate)
