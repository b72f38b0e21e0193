"""Are generated pictures copies of training photographs? Always beside what unseen photographs score."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist
from scipy.stats import fisher_exact
from torch import Tensor
from torch.nn import functional

from woundray.errors import UserError
from woundray.metrics.checks import Matrix, feature_matrix, same_width
from woundray.metrics.features import check_images

CROP = 0.86  # side of the bank's crops over the picture's


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
    """The training bank (4 N): uint8 NCHW pictures, their central 86 % crops at full size, and both mirrored.

    View-major: row r shows picture r % N.
    """
    check_images(images)
    height, width = images.shape[2:]
    top, left = round(height * (1 - CROP) / 2), round(width * (1 - CROP) / 2)
    inner = images[:, :, top : height - top, left : width - left].float()
    zoomed = functional.interpolate(inner, (height, width), mode="bicubic", antialias=True, align_corners=False)
    upright = torch.cat([images, zoomed.round().clamp(0, 255).to(torch.uint8)])
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
    threshold = float(np.quantile(real, false_alarm_rate))
    alarms = sum(r < np.quantile(np.delete(real, i), false_alarm_rate) for i, r in enumerate(real))

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
