"""Kernel distances between two sets of pictures: unbiased, so the floor of real against real is 0 at any n."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.distance import cdist, pdist

from woundray.errors import UserError
from woundray.metrics.checks import Matrix, feature_matrix, same_width

SMALLEST_RESAMPLED = 10  # fewer pictures: a resample may hold one picture only, which has no pairs


@dataclass(frozen=True)
class Interval:
    """An estimate and its bootstrap interval `low`..`high` at confidence `level`, of `repeats` resamples."""

    value: float
    low: float
    high: float
    level: float
    repeats: int


def kid(x: ArrayLike, y: ArrayLike) -> float:
    """Kernel Inception distance of features `x` (N, d) and `y` (M, d): MMD^2 with k(a, b) = (a.b / d + 1)^3.

    The full unbiased estimate over all pairs, not a mean over subsets (Binkowski et al. 2018, eq. 4 with section
    4's kernel); it may be negative. Raises UserError for fewer than 2 pictures or values that are not finite.
    """
    return _mmd2(*_cubic_kernels(x, y))


def kid_interval(x: ArrayLike, y: ArrayLike, *, seed: int, repeats: int = 1000, level: float = 0.95) -> Interval:
    """`kid` with a percentile bootstrap interval over pictures, both sets resampled.

    A picture drawn twice is never paired with itself: each resample is a U-statistic weighted by how often a
    picture was drawn, which keeps it unbiased. Pictures of one patient are not independent, so with several a
    patient the interval is too narrow.
    """
    if repeats < 1 or not 0 < level < 1:
        raise UserError(f"repeats = {repeats}, level = {level}: give repeats >= 1 and a level between 0 and 1")
    kernels = _cubic_kernels(x, y)
    n, m = kernels[2].shape
    if min(n, m) < SMALLEST_RESAMPLED:
        raise UserError(f"{n} and {m} pictures: an interval needs at least {SMALLEST_RESAMPLED} in each set")
    rng = np.random.default_rng(seed)
    resampled = [
        _mmd2(*kernels, rng.multinomial(n, np.full(n, 1 / n)), rng.multinomial(m, np.full(m, 1 / m)))
        for _ in range(repeats)
    ]
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return Interval(_mmd2(*kernels), float(low), float(high), level, repeats)


def rbf_mmd(x: ArrayLike, y: ArrayLike, *, bandwidth: float | None = None) -> float:
    """Unbiased MMD^2 with k(a, b) = exp(-|a - b|^2 / (2 bandwidth^2)) (Gretton et al. 2012, eq. 3); may be negative.

    bandwidth: in units of the features; None takes the median distance of two pictures of the pooled sets
    (ibid., section 8), so values with different sets then have different kernels.
    """
    a, b = feature_matrix(x, "first set"), feature_matrix(y, "second set")
    same_width(a, b)
    if bandwidth is None:
        bandwidth = float(np.median(pdist(np.concatenate([a, b]))))
    if bandwidth <= 0:
        raise UserError(f"bandwidth {bandwidth:g}: must be above 0 (are all pictures equal?)")

    def kernel(p: Matrix, q: Matrix) -> Matrix:
        return np.asarray(np.exp(-cdist(p, q, "sqeuclidean") / (2 * bandwidth**2)))

    return _mmd2(kernel(a, a), kernel(b, b), kernel(a, b))


def _cubic_kernels(x: ArrayLike, y: ArrayLike) -> tuple[Matrix, Matrix, Matrix]:
    """Kernel matrices x with x, y with y, x with y."""
    a, b = feature_matrix(x, "first set"), feature_matrix(y, "second set")
    same_width(a, b)
    d = a.shape[1]
    return (a @ a.T / d + 1) ** 3, (b @ b.T / d + 1) ** 3, (a @ b.T / d + 1) ** 3


def _mmd2(
    xx: Matrix, yy: Matrix, xy: Matrix, x_weights: ArrayLike | None = None, y_weights: ArrayLike | None = None
) -> float:
    """Unbiased MMD^2 of kernel matrices (N, N), (M, M), (N, M); weights: how often each picture counts."""
    v = np.ones(len(xx)) if x_weights is None else np.asarray(x_weights, dtype=np.float64)
    w = np.ones(len(yy)) if y_weights is None else np.asarray(y_weights, dtype=np.float64)
    return float(_mean_of_pairs(xx, v) + _mean_of_pairs(yy, w) - 2 * (v @ xy @ w) / (v.sum() * w.sum()))


def _mean_of_pairs(kernel: Matrix, weights: Matrix) -> float:
    """Weighted mean of a kernel matrix over pairs of two different pictures."""
    off_diagonal = weights @ kernel @ weights - weights**2 @ np.diag(kernel)
    return float(off_diagonal / (weights.sum() ** 2 - np.sum(weights**2)))
