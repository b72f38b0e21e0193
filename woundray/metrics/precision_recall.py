"""Is what was generated real-looking, and is all that is real generated? k-nearest-neighbour manifolds."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist, pdist

from woundray.errors import UserError
from woundray.metrics.feature_checks import Matrix, feature_matrix, same_width


@dataclass(frozen=True)
class Manifold:
    """Fidelity (precision, density) and diversity (recall, coverage), with the `k` they were taken at.

    All are shares in 0..1, but density, which may exceed 1.
    """

    precision: float
    recall: float
    density: float
    coverage: float
    k: int


def manifold(real: ArrayLike, generated: ArrayLike, *, k: int) -> Manifold:
    """Compare features `real` (N, d) and `generated` (M, d); a picture's ball reaches to its k-th neighbour.

    precision: share of generated pictures inside a ball of a real one; recall: the reverse (Kynkaanniemi et
    al. 2019, eq. 1 and 2). density: number of real balls around a generated picture, over k; coverage: share
    of real balls that hold a generated picture (Naeem et al. 2020, eq. 4 and 5). A ball is open, as in their
    code.

    Raises UserError where k is not below both N and M, or values are not finite.
    """
    x, y = feature_matrix(real, "real pictures"), feature_matrix(generated, "generated pictures")
    same_width(x, y)
    if not 1 <= k < min(len(x), len(y)):
        raise UserError(f"k = {k}: give 1 or more and below the {len(x)} real and {len(y)} generated pictures")

    distances = cdist(x, y)  # N x M
    real_radii, generated_radii = _distance_to_kth(x, k), _distance_to_kth(y, k)
    in_real_ball = distances < real_radii[:, None]
    in_generated_ball = distances < generated_radii[None, :]
    return Manifold(
        precision=float(in_real_ball.any(axis=0).mean()),
        recall=float(in_generated_ball.any(axis=1).mean()),
        density=float(in_real_ball.sum(axis=0).mean() / k),
        coverage=float(in_real_ball.any(axis=1).mean()),
        k=k,
    )


def diversity(features: ArrayLike) -> float:
    """Mean Euclidean distance of two different pictures of `features` (N, d): falls when pictures become alike."""
    return float(pdist(feature_matrix(features, "pictures")).mean())


def neighbour_distance(
    features: ArrayLike, real: ArrayLike, *, k: int, exclude: NDArray[np.bool_] | None = None
) -> Matrix:
    """Mean cosine distance (N,) of `features` (N, d) to their k nearest rows of `real` (M, d), in 0..2.

    exclude: (N, M), pairs that do not count, such as pictures of one patient; k of each row must be left.
    """
    x, y = feature_matrix(features, "pictures", at_least=1), feature_matrix(real, "real pictures", at_least=1)
    same_width(x, y)
    distances = np.asarray(cdist(x, y, "cosine"))
    if exclude is not None:
        distances = np.where(exclude, np.inf, distances)
    if not 1 <= k <= np.isfinite(distances).sum(axis=1).min():
        raise UserError(f"k = {k}: give 1 or more, and real pictures of other patients to find as many neighbours")
    return np.asarray(np.partition(distances, k - 1, axis=1)[:, :k].mean(axis=1))


def _distance_to_kth(features: Matrix, k: int) -> Matrix:
    """Distance (N,) of each row to its k-th nearest other row."""
    return np.asarray(np.partition(cdist(features, features), k, axis=1)[:, k])  # 0 is the row itself
