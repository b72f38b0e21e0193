"""Are generated pictures copies of training photographs? Always beside what unseen photographs score."""

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
from woundray.metrics.precision_recall import neighbour_distance

TURN_DEG, ZOOM = 2.0, 0.96  # of the bank's turned crops: side over the picture's


@dataclass(frozen=True)
class Ratios:
    """Each picture's distance to the nearest training picture over that to the second, and the nearest's row.

    `ratio` (N,) lies in 0..1: near 1 for a picture that is new, near 0 for a copy.
    """

    ratio: Matrix
    nearest: NDArray[np.int64]


@dataclass(frozen=True)
class Suspect:
    """A generated picture that looks like a copy of a training picture, both by index, with their ratio."""

    generated: int
    training: int
    ratio: float


@dataclass(frozen=True)
class CopyRate:
    """Share below `threshold` of the `n` generated and of the `held_out_n` real pictures never trained on.

    `p_value`: chance of so many suspects, or more, if generated pictures copied no more than held-out real
    ones do (Fisher's exact test, one-sided). `suspects` are sorted, the most suspicious first.
    """

    rate: float
    held_out_rate: float
    p_value: float
    threshold: float
    false_alarm_rate: float
    n: int
    held_out_n: int
    suspects: tuple[Suspect, ...]


@dataclass(frozen=True)
class Gap:
    """Distance to held-out minus that to training pictures, `n` of each; above 0: nearer to training."""

    mean: float
    sd: float
    n: int
    repeats: int


def bank_views(images: Tensor) -> Tensor:
    """The training bank (4 N): uint8 NCHW pictures, their central 96 % crops turned by 2 degrees, and both mirrored.

    View-major: row r shows picture r % N. On 320 real photographs more views (turned both ways, by 3 degrees, crops of
    86 and 93 %) found no more planted copies.
    """
    check_images(images)
    angle = math.radians(TURN_DEG)
    cosine, sine = ZOOM * math.cos(angle), ZOOM * math.sin(angle)
    turn = torch.tensor([[cosine, -sine, 0.0], [sine, cosine, 0.0]], device=images.device)
    places = functional.affine_grid(turn.expand(len(images), 2, 3), list(images.shape), align_corners=False)
    turned = functional.grid_sample(images.float(), places, "bicubic", "reflection", align_corners=False)
    upright = torch.cat([images, turned.round().clamp(0, 255).to(torch.uint8)])
    return torch.cat([upright, upright.flip(3)])


def nearest_ratio(features: ArrayLike, bank: ArrayLike, groups: Sequence[Hashable]) -> Ratios:
    """Nearest over second-nearest distance of `features` (N, d) to the training pictures of `bank` (V M, d).

    bank: features of `bank_views`, V views of M pictures, row r of picture r % M; groups: the patient of each of
    the M pictures. The second nearest is a picture of another patient, as a patient's photographs are near-copies
    of one another. A picture at distance 0 of both has ratio 1: nothing tells them apart.

    Raises UserError for fewer than two patients, a bank of another length, or values that are not finite.
    """
    x, views = feature_matrix(features, "pictures", at_least=1), feature_matrix(bank, "training bank")
    same_width(x, views)
    pictures = len(groups)
    number = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    patient = np.array([number[group] for group in groups])
    if len(number) < 2 or len(views) % pictures:
        raise UserError(
            f"training bank: {len(views)} views of {pictures} pictures; give the patient of each picture, "
            "an equal number of views each, two patients or more"
        )

    # N x V x M => N x M: the best view of each picture
    distances = cdist(x, views).reshape(len(x), -1, pictures).min(axis=1)
    nearest = distances.argmin(axis=1)
    first = distances[np.arange(len(x)), nearest]
    others = np.where(patient[None, :] == patient[nearest][:, None], np.inf, distances)
    second = others.min(axis=1)
    return Ratios(np.divide(first, second, out=np.ones_like(first), where=second > 0), nearest)


def copy_rate(generated: Ratios, held_out: Ratios, *, false_alarm_rate: float = 0.05) -> CopyRate:
    """Share of generated pictures that look like copies, beside that of held-out real photographs.

    The threshold is the `false_alarm_rate` quantile of the held-out ratios. The held-out share is measured leaving
    one out: each photograph against the threshold of the others. Both sets must be measured against one bank.

    Raises UserError where there are too few held-out pictures for that quantile.
    """
    real = held_out.ratio
    if not 0 < false_alarm_rate < 1 or len(real) * false_alarm_rate < 1:
        raise UserError(
            f"{len(real)} held-out pictures for a false-alarm rate of {false_alarm_rate:g}: "
            f"give a rate from {1 / max(len(real), 2):.2g} to below 1, or more held-out pictures"
        )
    threshold = _quantile(real, false_alarm_rate)
    alarms = sum(r < _quantile(np.delete(real, i), false_alarm_rate) for i, r in enumerate(real))

    rows = np.flatnonzero(generated.ratio < threshold)
    rows = rows[np.argsort(generated.ratio[rows], kind="stable")]
    suspects = tuple(Suspect(int(i), int(generated.nearest[i]), float(generated.ratio[i])) for i in rows)

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
    """The value that a new draw falls below with this chance; with numpy's own method it is 6.2, not 5 %, at n = 75."""
    return float(np.quantile(values, share, method="weibull"))


def train_gap(
    generated: ArrayLike,
    train: ArrayLike,
    held_out: ArrayLike,
    *,
    distance: Callable[[Matrix, Matrix], float],
    repeats: int,
    seed: int,
) -> Gap:
    """distance(generated, held-out) - distance(generated, train), with equally many real pictures each.

    Each of `repeats` draws takes n = min(len(train), len(held_out)) pictures of each set without replacement, so
    that the bias of a distance in n cancels. The smaller set is the same in every draw: `sd` is the spread of the
    draws of the larger one, and no standard error.
    """
    x = feature_matrix(generated, "generated pictures")
    seen, unseen = feature_matrix(train, "training pictures"), feature_matrix(held_out, "held-out pictures")
    if repeats < 2:
        raise UserError(f"repeats = {repeats}: give 2 or more")
    n = min(len(seen), len(unseen))
    rng = np.random.default_rng(seed)

    def draw(of: Matrix) -> Matrix:
        return of[rng.choice(len(of), size=n, replace=False)]

    gaps = [distance(x, draw(unseen)) - distance(x, draw(seen)) for _ in range(repeats)]
    return Gap(float(np.mean(gaps)), float(np.std(gaps, ddof=1)), n, repeats)


def mifid(distance: float, generated: ArrayLike, train: ArrayLike, *, threshold: float = 0.1) -> float:
    """Memorization-informed distance (Bai et al. 2021, arXiv 2106.03062): `distance` over the mean cosine
    distance of `generated` (N, d) to the nearest row of `train` (M, d), where that mean is below the threshold.

    Infinite where every picture is a training picture.
    """
    nearest = float(neighbour_distance(generated, train, k=1).mean())
    if nearest >= threshold:
        return distance
    return distance / nearest if nearest > 0 else math.inf


def auth_pct(generated: ArrayLike, train: ArrayLike) -> float:
    """Share of authentic pictures (Alaa et al. 2022, arXiv 2102.08921), 0..1.

    A picture is authentic unless it is nearer to its nearest training picture than that is to any other.
    """
    x, y = feature_matrix(generated, "pictures", at_least=1), feature_matrix(train, "training pictures")
    same_width(x, y)
    distances = cdist(x, y)
    own = cdist(y, y)
    np.fill_diagonal(own, np.inf)
    nearest = distances.argmin(axis=1)
    return float(np.mean(distances[np.arange(len(x)), nearest] >= own.min(axis=1)[nearest]))


def c_t(generated: ArrayLike, train: ArrayLike, held_out: ArrayLike) -> float:
    """Data-copying statistic C_T in one cell (Meehan et al. 2020, arXiv 2004.05675): about N(0, 1).

    Mann-Whitney z of the distances to the nearest training picture, of generated against held-out pictures; far
    below 0: generated pictures lie nearer to training pictures than unseen photographs do.
    """
    x, seen, unseen = (
        feature_matrix(f, what) for f, what in ((generated, "pictures"), (train, "training"), (held_out, "held-out"))
    )
    of_x, of_unseen = cdist(x, seen).min(axis=1), cdist(unseen, seen).min(axis=1)
    n, m = len(x), len(unseen)
    u = mannwhitneyu(of_x, of_unseen).statistic  # pairs in which the generated picture is farther
    return float((u - n * m / 2) / math.sqrt(n * m * (n + m + 1) / 12))
