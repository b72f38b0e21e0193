"""Memorisation: copies of training photographs among generated images, compared with held-out photographs."""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist
from scipy.stats import fisher_exact, mannwhitneyu
from torch import Tensor
from torch.nn import functional

from woundray.errors import UserError
from woundray.metrics.extractors import check_images
from woundray.metrics.feature_checks import Matrix, feature_matrix, same_width
from woundray.metrics.precision_recall import knn_distance

GAP_REPEATS = 20  # draws of `train_gap`
TURN_DEG, ZOOM = 2.0, 0.96  # of the rotated crops; zoom: side of the crop over side of the image


@dataclass(frozen=True)
class NearestRatios:
    """Distance of each image to the nearest training image over that to the second nearest, and the nearest's row.

    `ratio` (N,) is in 0..1: near 1 for a new image, near 0 for a copy.
    """

    ratio: Matrix
    nearest: NDArray[np.int64]


@dataclass(frozen=True)
class SuspectedCopy:
    """Indices of a generated image and of the training image that it may be a copy of, with their distance ratio."""

    generated: int
    training: int
    ratio: float


@dataclass(frozen=True)
class CopyRate:
    """Share of `n` generated images with a ratio below `threshold`, and that of `held_out_n` held-out real images.

    `p_value`: probability of as many suspects or more if generated images are copies no more often than held-out
    real ones (Fisher's exact test, one-sided). `suspects` are sorted by ratio, the lowest first.
    """

    rate: float
    held_out_rate: float
    p_value: float
    threshold: float
    false_alarm_rate: float
    n: int
    held_out_n: int
    suspects: tuple[SuspectedCopy, ...]


@dataclass(frozen=True)
class TrainGap:
    """Distance to held-out images minus distance to training images, `n` of each; above 0: nearer to training."""

    mean: float
    sd: float
    n: int
    repeats: int


def augmented_views(images: Tensor) -> Tensor:
    """Return 4 views of each of N images, uint8 NCHW: itself, its central 96 % crop rotated by 2 degrees, both flipped.

    View-major: row r shows image r % N. On 320 real photographs more views (rotated both ways, by 3 degrees, crops of
    86 and 93 %) found no more planted copies.
    """
    check_images(images)
    angle = math.radians(TURN_DEG)
    cosine, sine = ZOOM * math.cos(angle), ZOOM * math.sin(angle)
    turn = torch.tensor([[cosine, -sine, 0.0], [sine, cosine, 0.0]], device=images.device)
    grid = functional.affine_grid(turn.expand(len(images), 2, 3), list(images.shape), align_corners=False)
    rotated = functional.grid_sample(images.float(), grid, "bicubic", "reflection", align_corners=False)
    unflipped = torch.cat([images, rotated.round().clamp(0, 255).to(torch.uint8)])
    return torch.cat([unflipped, unflipped.flip(3)])


def nearest_ratio(features: ArrayLike, train_views: ArrayLike, groups: Sequence[Hashable]) -> NearestRatios:
    """Return the ratio of nearest to second-nearest distance of `features` (N, d) to M training images.

    train_views: (V M, d), features of `augmented_views`, V views of M images, row r of image r % M; groups: patient
    of each of the M images. The second nearest is an image of another patient, as photographs of one patient are
    near-copies of one another. An image at distance 0 of both has ratio 1, as neither is nearer.

    Raises UserError for fewer than two patients, train_views of another length, or values that are not finite.
    """
    x, views = feature_matrix(features, "pictures", at_least=1), feature_matrix(train_views, "training bank")
    same_width(x, views)
    images = len(groups)
    indices = {group: index for index, group in enumerate(dict.fromkeys(groups))}
    patient = np.array([indices[group] for group in groups])
    if len(indices) < 2 or len(views) % images:
        raise UserError(
            f"training bank: {len(views)} views of {images} pictures; give the patient of each picture, "
            "an equal number of views each, two patients or more"
        )

    # N x V x M => N x M: the best view of each image
    distances = cdist(x, views).reshape(len(x), -1, images).min(axis=1)
    nearest = distances.argmin(axis=1)
    first = distances[np.arange(len(x)), nearest]
    others = np.where(patient[None, :] == patient[nearest][:, None], np.inf, distances)
    second = others.min(axis=1)
    return NearestRatios(np.divide(first, second, out=np.ones_like(first), where=second > 0), nearest)


def copy_threshold(held_out: NearestRatios, *, false_alarm_rate: float) -> float:
    """Return the ratio below which an image looks like a copy: the `false_alarm_rate` quantile of held-out ratios.

    Raises UserError where there are too few held-out images for that quantile.
    """
    n = len(held_out.ratio)
    if not 0 < false_alarm_rate < 1 or n * false_alarm_rate < 1:
        raise UserError(
            f"{n} held-out pictures for a false-alarm rate of {false_alarm_rate:g}: "
            f"give a rate from {1 / max(n, 2):.2g} to below 1, or more held-out pictures"
        )
    return _quantile(held_out.ratio, false_alarm_rate)


def copy_rate(generated: NearestRatios, held_out: NearestRatios, *, false_alarm_rate: float = 0.05) -> CopyRate:
    """Return the share of generated images that look like copies, and that of held-out real photographs.

    The threshold is `copy_threshold`. The held-out share is a leave-one-out estimate: each photograph is compared
    with the threshold of the others. Both ratios must come from the same training images.

    Raises UserError where there are too few held-out images for that quantile.
    """
    real = held_out.ratio
    threshold = copy_threshold(held_out, false_alarm_rate=false_alarm_rate)
    alarms = sum(r < _quantile(np.delete(real, i), false_alarm_rate) for i, r in enumerate(real))

    rows = np.flatnonzero(generated.ratio < threshold)
    rows = rows[np.argsort(generated.ratio[rows], kind="stable")]
    suspects = tuple(SuspectedCopy(int(i), int(generated.nearest[i]), float(generated.ratio[i])) for i in rows)

    n, held_out_n = len(generated.ratio), len(real)
    table = [[len(suspects), n - len(suspects)], [alarms, held_out_n - alarms]]
    p_value = float(fisher_exact(table, alternative="greater").pvalue)
    return CopyRate(
        rate=len(suspects) / n,
        held_out_rate=float(alarms) / held_out_n,
        p_value=p_value,
        threshold=threshold,
        false_alarm_rate=false_alarm_rate,
        n=n,
        held_out_n=held_out_n,
        suspects=suspects,
    )


def _quantile(values: Matrix, share: float) -> float:
    """Return the value that a new draw is below with this probability.

    With numpy's default method the probability is 6.2 instead of 5 % at n = 75.
    """
    return float(np.quantile(values, share, method="weibull"))


def train_gap(
    generated: ArrayLike,
    train: ArrayLike,
    held_out: ArrayLike,
    *,
    distance: Callable[[Matrix, Matrix], float],
    seed: int,
) -> TrainGap:
    """Return distance(generated, held-out) - distance(generated, train), with equally many real images each.

    Each of 20 draws takes n = min(len(train), len(held_out)) images of each set without replacement, so that
    the bias of the distance in n cancels. The smaller set is the same in every draw: `sd` is the standard deviation
    over draws of the larger one, and no standard error.
    """
    x = feature_matrix(generated, "generated pictures")
    seen, unseen = feature_matrix(train, "training pictures"), feature_matrix(held_out, "held-out pictures")
    n = min(len(seen), len(unseen))
    rng = np.random.default_rng(seed)

    def sample(features: Matrix) -> Matrix:
        return features[rng.choice(len(features), size=n, replace=False)]

    gaps = [distance(x, sample(unseen)) - distance(x, sample(seen)) for _ in range(GAP_REPEATS)]
    return TrainGap(float(np.mean(gaps)), float(np.std(gaps, ddof=1)), n, GAP_REPEATS)


def mifid(distance: float, generated: ArrayLike, train: ArrayLike, *, threshold: float = 0.1) -> float:
    """Return the memorization-informed distance MiFID (Bai et al. 2021, arXiv 2106.03062).

    It is `distance` over the mean cosine distance of `generated` (N, d) to the nearest row of `train` (M, d), where
    that mean is below the threshold; else `distance`. Infinite where every image is a training image.
    """
    nearest = float(knn_distance(generated, train, k=1).mean())
    if nearest >= threshold:
        return distance
    return distance / nearest if nearest > 0 else math.inf


def auth_pct(generated: ArrayLike, train: ArrayLike) -> float:
    """Return the share of authentic images, AuthPct (Alaa et al. 2022, arXiv 2102.08921), 0..1.

    An image is authentic unless it is nearer to its nearest training image than that is to any other.
    """
    x, y = feature_matrix(generated, "pictures", at_least=1), feature_matrix(train, "training pictures")
    same_width(x, y)
    distances = cdist(x, y)
    own = cdist(y, y)
    np.fill_diagonal(own, np.inf)
    nearest = distances.argmin(axis=1)
    return float(np.mean(distances[np.arange(len(x)), nearest] >= own.min(axis=1)[nearest]))


def c_t(generated: ArrayLike, train: ArrayLike, held_out: ArrayLike) -> float:
    """Return the data-copying statistic C_T in one cell (Meehan et al. 2020, arXiv 2004.05675): about N(0, 1).

    Mann-Whitney z of the distances to the nearest training image, of generated against held-out images; far below 0:
    generated images are nearer to training images than held-out photographs are.
    """
    x, seen, unseen = (
        feature_matrix(f, what) for f, what in ((generated, "pictures"), (train, "training"), (held_out, "held-out"))
    )
    x_distances, unseen_distances = cdist(x, seen).min(axis=1), cdist(unseen, seen).min(axis=1)
    n, m = len(x), len(unseen)
    u = mannwhitneyu(x_distances, unseen_distances).statistic  # number of pairs in which the generated one is farther
    return float((u - n * m / 2) / math.sqrt(n * m * (n + m + 1) / 12))
