"""Precision, recall, density and coverage of generated images, by k-nearest-neighbour balls; diversity."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist, pdist

from woundray.errors import UserError
from woundray.metrics.feature_checks import Matrix, feature_matrix, same_width


@dataclass(frozen=True)
class PrecisionRecall:
    """Fidelity (precision, density) and diversity (recall, coverage) at `k` neighbours.

    All are shares in 0..1 except density, which may exceed 1.
    """

    precision: float
    recall: float
    density: float
    coverage: float
    k: int


def precision_recall(real: ArrayLike, generated: ArrayLike, *, k: int) -> PrecisionRecall:
    """Compare features `real` (N, d) and `generated` (M, d); the ball of an image reaches to its k-th neighbour.

    precision: share of generated images inside a ball of a real one; recall: the reverse (Kynkaanniemi et
    al. 2019, eq. 1 and 2). density: number of real balls around a generated image, over k; coverage: share
    of real balls that hold a generated image (Naeem et al. 2020, eq. 4 and 5). A ball is open, as in their
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
    return PrecisionRecall(
        precision=float(in_real_ball.any(axis=0).mean()),
        recall=float(in_generated_ball.any(axis=1).mean()),
        density=float(in_real_ball.sum(axis=0).mean() / k),
        coverage=float(in_real_ball.any(axis=1).mean()),
        k=k,
    )


def diversity(features: ArrayLike) -> float:
    """Return the mean Euclidean distance of two different images of `features` (N, d); low: images are alike."""
    return float(pdist(feature_matrix(features, "pictures")).mean())


def knn_distance(features: ArrayLike, real: ArrayLike, *, k: int, exclude: NDArray[np.bool_] | None = None) -> Matrix:
    """Return the mean cosine distance (N,) of `features` (N, d) to their k nearest rows of `real` (M, d), in 0..2.

    exclude: (N, M), pairs that do not count, such as images of one patient. Raises UserError where a row has fewer
    than k other pairs.
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
    """Return the distance (N,) of each row to its k-th nearest other row."""
    return np.asarray(np.partition(cdist(features, features), k, axis=1)[:, k])  # 0 is the row itself
