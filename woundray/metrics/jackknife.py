"""Intervals of scores of two samples, by leaving parts of each out."""

from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from woundray.errors import UserError

Rows = NDArray[np.int64]
Statistic = Callable[[Rows, Rows], float]


def jackknife_sd(statistic: Statistic, n: int, groups: Sequence[Hashable], *, seed: int, blocks: int = 20) -> float:
    """Standard deviation of `statistic(rows of n pictures, rows of real pictures)`, both sides being samples.

    Delete-a-group jackknife (Efron & Tibshirani 1993, section 11): the pictures, and then the patients (`groups`: of
    each real picture), are dealt at random into blocks that are left out in turn; the variances of both sides add up.
    Unlike a bootstrap it draws no picture twice, which would move a Frechet distance.

    Raises UserError for one picture or one patient.
    """
    patients = list(dict.fromkeys(groups))
    if min(n, len(patients)) < 2:
        raise UserError(f"{n} pictures and {len(patients)} patients: give 2 or more of each, which an interval needs")
    rng = np.random.default_rng(seed)
    number = {patient: place for place, patient in enumerate(patients)}
    patient_of = np.array([number[group] for group in groups])
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
