"""Fréchet distance between two sets of images: FID on Inception features, and the same on other features."""

import numpy as np
from numpy.typing import ArrayLike

from woundray.metrics.feature_checks import Matrix, feature_matrix, same_width


def frechet_distance(x: ArrayLike, y: ArrayLike) -> float:
    """Return the squared 2-Wasserstein distance of Gaussians fitted to features `x` (N, d) and `y` (M, d), N, M >= 2.

    |mu_x - mu_y|^2 + tr(S_x + S_y - 2 (S_x S_y)^(1/2)), S the unbiased covariances (Heusel et al. 2017, eq.
    6). With centred features A, B the eigenvalues of S_x S_y are the squared singular values of A B^T /
    sqrt((N - 1)(M - 1)), so the trace of the root is that matrix's nuclear norm: exact for any N, d, singular
    covariances included. Computed in float64; 0 or more.

    The distance of finite sets is biased upwards and the bias depends on N and M: compare only at equal sizes, and
    with the baseline of `woundray.metrics.real_baseline`.

    Raises UserError for fewer than 2 images, values that are not finite, or unequal d.
    """
    a, b = feature_matrix(x, "first set"), feature_matrix(y, "second set")
    same_width(a, b)

    mean_gap = a.mean(axis=0) - b.mean(axis=0)
    a, b = _root_of_covariance(a), _root_of_covariance(b)
    trace_of_root = np.linalg.norm(a @ b.T, ord="nuc")
    distance = mean_gap @ mean_gap + np.sum(a * a) + np.sum(b * b) - 2.0 * trace_of_root
    return max(0.0, float(distance))  # rounding of equal sets may fall below 0


def _root_of_covariance(features: Matrix) -> Matrix:
    """Return R (min(N, d), d) with R^T R = the unbiased covariance of `features` (N, d)."""
    n, d = features.shape
    centred = (features - features.mean(axis=0)) / np.sqrt(n - 1)
    return np.asarray(np.linalg.qr(centred, mode="r")) if n > d else centred
