"""Jackknife standard deviation of a score of two samples, for intervals."""

from collections.abc import Callable, Hashable, Sequence

import numpy as np

from woundray.errors import UserError
from woundray.metrics.feature_checks import Rows

Statistic = Callable[[Rows, Rows], float]


def jackknife_sd(statistic: Statistic, n: int, groups: Sequence[Hashable], *, seed: int, blocks: int = 20) -> float:
    """Estimate the standard deviation of `statistic(generated rows, real rows)`, with both sides as samples.

    Delete-a-group jackknife (Efron & Tibshirani 1993, section 11): the n generated images are assigned at random to
    blocks, and each block is left out once; then the same with the patients. The variances of both sides are added.
    Unlike a bootstrap it uses no image twice, which would bias a Fréchet distance.

    groups: patient of each real image. Raises UserError for fewer than two images or patients.
    """
    patients = list(dict.fromkeys(groups))
    if min(n, len(patients)) < 2:
        raise UserError(f"{n} pictures and {len(patients)} patients: give 2 or more of each, which an interval needs")
    rng = np.random.default_rng(seed)
    indices = {patient: index for index, patient in enumerate(patients)}
    patient_of = np.array([indices[group] for group in groups])
    pictures, real = np.arange(n), np.arange(len(patient_of))

    without_pictures = [
        statistic(np.setdiff1d(pictures, block), real) for block in np.array_split(rng.permutation(n), min(blocks, n))
    ]
    without_patients = [
        statistic(pictures, real[~np.isin(patient_of, block)])
        for block in np.array_split(rng.permutation(len(patients)), min(blocks, len(patients)))
    ]
    return float(np.sqrt(_variance(without_pictures) + _variance(without_patients)))


def _variance(values: list[float]) -> float:
    return float((len(values) - 1) * np.var(values))
