"""Kappa, its gain, and confidence intervals: pure functions of counts, float64.

Counts of true and predicted phases are confusion matrices (..., K, K), true phases in rows. Patients are the sampling
unit: images of one patient are not independent.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
Weighting = Literal["unweighted", "linear", "quadratic"]
Statistic = Callable[[Floats], Floats]

LEVEL = 0.95
POWER = 0.80
_BATCH = 500  # resamples that are held in memory at a time


@dataclass(frozen=True)
class Estimate:
    """Value, confidence interval, and standard deviation of the bootstrap distribution."""

    value: float
    low: float
    high: float
    sd: float


@dataclass(frozen=True)
class CorrectedT:
    """Mean difference over folds, confidence interval, and two-sided p value of no difference."""

    mean: float
    low: float
    high: float
    p_value: float


def patient_confusions(truth: ArrayLike, predicted: ArrayLike, patients: ArrayLike, classes: int) -> Floats:
    """Count true (N,) and predicted phases (..., N) for the patient of each image (N,): (P, ..., K, K)."""
    true, guessed = np.asarray(truth, dtype=np.int64), np.asarray(predicted, dtype=np.int64)
    names, patient = np.unique(np.asarray(patients), return_inverse=True)
    counts = np.zeros((len(names), *guessed.shape[:-1], classes, classes))
    for index in np.ndindex(guessed.shape[:-1]):
        np.add.at(counts, (patient, *index, true, guessed[index]), 1.0)
    return counts


def kappa(confusion: ArrayLike, weighting: Weighting = "unweighted") -> Floats:
    """Cohen's kappa (1960), or weighted kappa (1968), of confusion matrices (..., K, K): (...).

    1 - observed / expected disagreement; 0 where the expected disagreement is 0 (one phase everywhere).
    """
    counts = np.asarray(confusion, dtype=np.float64)
    phases = np.arange(counts.shape[-1])
    distances = np.abs(phases[:, None] - phases[None, :]).astype(np.float64)
    weights = {"unweighted": (distances > 0).astype(np.float64), "linear": distances, "quadratic": distances**2}[
        weighting
    ]
    by_chance = counts.sum(axis=-1)[..., :, None] * counts.sum(axis=-2)[..., None, :]
    observed = (weights * counts).sum(axis=(-2, -1)) * counts.sum(axis=(-2, -1))
    expected = (weights * by_chance).sum(axis=(-2, -1))
    ratio: Floats = np.divide(observed, expected, out=np.ones_like(observed), where=expected > 0)
    return 1.0 - ratio


def accuracy(confusion: ArrayLike) -> Floats:
    """Share of images with the right phase: (..., K, K) -> (...)."""
    counts = np.asarray(confusion, dtype=np.float64)
    return _share(np.trace(counts, axis1=-2, axis2=-1), counts.sum(axis=(-2, -1)))


def recalls(confusion: ArrayLike) -> Floats:
    """Recall of each phase: (..., K, K) -> (..., K); 0 for a phase without images."""
    counts = np.asarray(confusion, dtype=np.float64)
    return _share(np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(axis=-1))


def macro_f1(confusion: ArrayLike) -> Floats:
    """Mean over phases of F1 = 2 TP / (2 TP + FP + FN): (..., K, K) -> (...)."""
    counts = np.asarray(confusion, dtype=np.float64)
    right = np.diagonal(counts, axis1=-2, axis2=-1)
    f1: Floats = _share(2 * right, counts.sum(axis=-1) + counts.sum(axis=-2)).mean(axis=-1)
    return f1


def bootstrap(counts: Floats, statistic: Statistic, *, resamples: int, seed: int, level: float = LEVEL) -> Estimate:
    """Estimate a statistic of pooled patients, with the BCa interval (Efron 1987) of resampling patients.

    The interval leaves out the variation between training sets, which `corrected_t` covers.

    Args:
        counts: (P, ...), counts of each patient.
        statistic: of sums over patients, (..., *counts.shape[1:]) -> (...).
    """
    flat = counts.reshape(len(counts), -1)

    def of_patients(rows: NDArray[np.int64], axis: int) -> Floats:
        # rows of resampled patients (B, P) => multiplicity of each patient (B, P) => sums (B, ...)
        assert axis in (-1, rows.ndim - 1)
        drawn = rows.reshape(-1, rows.shape[-1])
        offsets = np.arange(len(drawn))[:, None] * len(flat)
        times = np.bincount((drawn + offsets).ravel(), minlength=len(drawn) * len(flat)).reshape(len(drawn), -1)
        return statistic((times @ flat).reshape(*rows.shape[:-1], *counts.shape[1:]))

    value = float(statistic(counts.sum(axis=0)))
    if len(counts) < 2:
        return Estimate(value, float("-inf"), float("inf"), float("inf"))
    with np.errstate(invalid="ignore", divide="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # handled below
        result = stats.bootstrap(
            (np.arange(len(counts)),), of_patients, vectorized=True, axis=-1, n_resamples=resamples, batch=_BATCH,
            confidence_level=level, method="percentile", rng=np.random.default_rng(seed),
        )  # fmt: skip
        drawn = result.bootstrap_distribution
        if np.ptp(drawn) == 0:  # no patient changes the statistic
            return Estimate(value, value, value, 0.0)
        result = stats.bootstrap(
            (np.arange(len(counts)),), of_patients, vectorized=True, axis=-1, n_resamples=0, batch=_BATCH,
            confidence_level=level, method="BCa", bootstrap_result=result,
        )  # fmt: skip
    low, high = float(result.confidence_interval.low), float(result.confidence_interval.high)
    if not np.isfinite([low, high]).all():  # all resamples on one side of the value: no bias to correct
        low, high = (float(bound) for bound in np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2]))
    return Estimate(value, low, high, float(drawn.std(ddof=1)))


def corrected_t(differences: ArrayLike, *, test_share: float, level: float = LEVEL) -> CorrectedT:
    """Corrected resampled t test (Nadeau & Bengio 2003, eq. 10) of differences (J,), one for each fold.

    Training sets of folds overlap, so that the plain variance of the mean is too small. It is replaced by
    (1 / J + n_test / n_train) times the variance, with J - 1 degrees of freedom.

    Args:
        test_share: n_test / n_train of a fold: 1 / (K - 1) for K folds.
    """
    values = np.asarray(differences, dtype=np.float64)
    mean, count = float(values.mean()), len(values)
    if count < 2:
        return CorrectedT(mean, float("-inf"), float("inf"), 1.0)
    sd = float(np.sqrt((1 / count + test_share) * values.var(ddof=1)))
    if sd == 0:
        return CorrectedT(mean, mean, mean, float(mean == 0))
    half = float(stats.t.ppf((1 + level) / 2, count - 1)) * sd
    return CorrectedT(mean, mean - half, mean + half, float(2 * stats.t.sf(abs(mean) / sd, count - 1)))


def detectable_gain(sd: float, *, power: float = POWER, level: float = LEVEL) -> float:
    """Return the gain that a study of this standard deviation detects with this power: (z_(1+level)/2 + z_power) sd."""
    return float(stats.norm.ppf((1 + level) / 2) + stats.norm.ppf(power)) * sd


def patients_for(gain: float, *, sd: float, patients: int, power: float = POWER) -> int:
    """Return the patients needed to detect a gain with this power, if `patients` gave the standard deviation."""
    return int(np.ceil(patients * (detectable_gain(sd, power=power) / gain) ** 2))


def slope_weights(doses: ArrayLike) -> Floats:
    """Return weights (A,) whose dot product with values at doses (A,) is the least-squares slope over the doses."""
    values = np.asarray(doses, dtype=np.float64)
    centred = values - values.mean()
    weights: Floats = centred / (centred**2).sum()
    return weights


def _share(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
