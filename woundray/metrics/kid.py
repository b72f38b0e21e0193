"""KID and RBF MMD: unbiased kernel distances between two sets of images, 0 on average for real against real."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.distance import cdist, pdist

from woundray.errors import UserError
from woundray.metrics.feature_checks import Matrix, feature_matrix, same_width

LEVEL = 0.95  # confidence of the interval
MIN_RESAMPLED = 10  # with fewer images a resample may consist of one image only, which has no pairs


@dataclass(frozen=True)
class Interval:
    """An estimate and its bootstrap interval `low`..`high` at confidence `level`, of `repeats` resamples."""

    value: float
    low: float
    high: float
    level: float
    repeats: int


def kid(x: ArrayLike, y: ArrayLike) -> float:
    """Return the kernel Inception distance of features `x` (N, d) and `y` (M, d): MMD^2, k(a, b) = (a.b / d + 1)^3.

    The full unbiased estimate over all pairs, not a mean over subsets (Binkowski et al. 2018, eq. 4 with section
    4's kernel); it may be negative. Raises UserError for fewer than 2 images or values that are not finite.
    """
    return _mmd2(*_cubic_kernels(x, y))


def kid_interval(
    x: ArrayLike,
    y: ArrayLike,
    *,
    seed: int,
    y_groups: Sequence[Hashable] | None = None,
    repeats: int = 1000,
) -> Interval:
    """Return `kid` with a percentile bootstrap interval of 95 %: images of `x` and patients of `y` are resampled.

    y_groups: patient of each image of `y`; None: every image counts as a patient. An image that is drawn twice is
    never paired with itself, and pairs of one patient's images count as often as the patient was drawn (not its
    square): each resample is an unbiased U-statistic.
    """
    if repeats < 1:
        raise UserError(f"repeats = {repeats}: give 1 or more")
    xx, yy, xy = _cubic_kernels(x, y)
    n, m = xy.shape
    groups: Sequence[Hashable] = range(m) if y_groups is None else y_groups
    indices = {group: index for index, group in enumerate(dict.fromkeys(groups))}
    patient, patients = np.array([indices[group] for group in groups]), len(indices)
    if min(n, patients) < MIN_RESAMPLED or len(groups) != m:
        raise UserError(
            f"{n} pictures and {m} of {patients} patients: give at least {MIN_RESAMPLED} of "
            "each, which an interval needs"
        )
    same_patient = patient[:, None] == patient[None, :]
    rng = np.random.default_rng(seed)
    resampled = []
    for _ in range(repeats):
        v = rng.multinomial(n, np.full(n, 1 / n)).astype(np.float64)
        w = rng.multinomial(patients, np.full(patients, 1 / patients)).astype(np.float64)[patient]
        pairs = np.where(same_patient, w[:, None], w[:, None] * w[None, :])
        np.fill_diagonal(pairs, 0.0)
        between = 2 * (v @ xy @ w) / (v.sum() * w.sum())
        resampled.append(_mean_of_pairs(xx, v) + np.sum(pairs * yy) / pairs.sum() - between)
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(_mmd2(xx, yy, xy), float(low), float(high), LEVEL, repeats)


def rbf_mmd(x: ArrayLike, y: ArrayLike, *, bandwidth: float | None = None) -> float:
    """Return the unbiased MMD^2 with k(a, b) = exp(-|a - b|^2 / (2 bandwidth^2)) (Gretton et al. 2012, eq. 3).

    It may be negative. bandwidth: in units of the features; None: the median distance of two images of the pooled
    sets (ibid., section 8), so that values of different sets have different kernels.
    """
    a, b = feature_matrix(x, "first set"), feature_matrix(y, "second set")
    same_width(a, b)
    if bandwidth is None:
        bandwidth = float(np.median(pdist(np.concatenate([a, b]))))
    if bandwidth <= 0:
        raise UserError(f"bandwidth {bandwidth:g}: must be above 0; look for pictures that are all equal")

    def kernel(p: Matrix, q: Matrix) -> Matrix:
        return np.asarray(np.exp(-cdist(p, q, "sqeuclidean") / (2 * bandwidth**2)))

    return _mmd2(kernel(a, a), kernel(b, b), kernel(a, b))


def _cubic_kernels(x: ArrayLike, y: ArrayLike) -> tuple[Matrix, Matrix, Matrix]:
    """Return the kernel matrices of x with x, y with y, and x with y."""
    a, b = feature_matrix(x, "first set"), feature_matrix(y, "second set")
    same_width(a, b)
    d = a.shape[1]
    return (a @ a.T / d + 1) ** 3, (b @ b.T / d + 1) ** 3, (a @ b.T / d + 1) ** 3


def _mmd2(xx: Matrix, yy: Matrix, xy: Matrix) -> float:
    """Return the unbiased MMD^2 of kernel matrices (N, N), (M, M), (N, M)."""
    within = _mean_of_pairs(xx, np.ones(len(xx))) + _mean_of_pairs(yy, np.ones(len(yy)))
    return float(within - 2 * xy.mean())


def _mean_of_pairs(kernel: Matrix, weights: Matrix) -> float:
    """Return the mean of a kernel matrix over pairs of two different images; weights: count of each image."""
    off_diagonal = weights @ kernel @ weights - weights**2 @ np.diag(kernel)
    return float(off_diagonal / (weights.sum() ** 2 - np.sum(weights**2)))
