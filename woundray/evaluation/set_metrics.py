"""Metrics of one set of images against another, as functions of the rows of both that count."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from lpips import LPIPS  # type: ignore[import-untyped]
from scipy.spatial.distance import pdist
from torch import Tensor
from torch.nn import functional

from woundray.evaluation.embedders import Features
from woundray.metrics.feature_checks import Matrix, Rows
from woundray.metrics.frechet import frechet_distance
from woundray.metrics.inception_score import inception_score
from woundray.metrics.jackknife import Statistic
from woundray.metrics.kid import kid, rbf_mmd
from woundray.metrics.lpips import lpips_matrix
from woundray.metrics.nearest import nearest
from woundray.metrics.precision_recall import diversity, precision_recall
from woundray.metrics.score_names import frechet_name, score_name
from woundray.metrics.ssim import ssim_matrix

PAIR_MAX_PX = 128  # larger images are downscaled to this side before they are compared pixel by pixel
NEIGHBOURS = 5  # of precision, recall, density, coverage (Naeem et al. 2020)

FeatureStatistic = Callable[[Features, Features], float]


@dataclass(frozen=True)
class SetMetric:
    """A metric: its name, features and range, and how to compute it from rows of two sets.

    of_generated: (rows of generated images, rows of held-out photographs) -> value; of_real: (rows of photographs, rows
    of other photographs) -> value.
    """

    name: str
    features: str
    of_generated: Statistic
    of_real: Statistic
    low: float = -np.inf
    high: float = np.inf
    needs_reference: bool = True


@dataclass(frozen=True)
class PairMetric:
    """Similarity (`highest`: more is nearer) or distance of all pairs of two sets of images."""

    name: str
    function: Callable[[Tensor, Tensor], Matrix]
    highest: bool

    def __call__(self, x: Tensor, y: Tensor) -> Matrix:
        """Return the values (N, M) of uint8 NCHW images, downscaled to sides of 128 px at most."""
        return self.function(downscale(x), downscale(y))

    def symmetric(self, x: Tensor, *, block: int = 40) -> Matrix:
        """Return the values of one set with itself (N, N), each pair computed once except within a block."""
        small = downscale(x)
        result = np.empty((len(x), len(x)))
        for start in range(0, len(x), block):
            part = self.function(small[start : start + block], small[start:])
            result[start : start + block, start:] = part
            result[start:, start : start + block] = part.T
        return result

    def nearest_values(self, pairs: Matrix) -> Matrix:
        """Return the value (N,) of the most similar image of each row of `pairs` (N, M)."""
        return nearest(pairs, highest=self.highest).value


def pair_metrics(lpips: LPIPS | None) -> list[PairMetric]:
    """Return SSIM and, with its network, LPIPS."""
    metrics = [PairMetric("ssim", ssim_matrix, highest=True)]
    if lpips is not None:
        metrics.append(PairMetric("lpips", partial(lpips_matrix, lpips), highest=False))
    return metrics


def feature_metrics(
    extractor: str, generated: Features, held_out: Features, real: Features, *, smallest: int
) -> list[SetMetric]:
    """Return the metrics on features.

    real: features of all photographs; smallest: number of images of the smallest set that they are computed on, which
    bounds the neighbours of precision, recall, density and coverage.
    """
    k = max(1, min(NEIGHBOURS, smallest // 2 - 1))  # intervals leave a part of each set out
    bandwidth = float(np.median(pdist(held_out.distance)))  # of real images alone: the same kernel for all sets

    def metric(
        name: str, statistic: FeatureStatistic, low: float = -np.inf, high: float = np.inf, *, alone: bool = False
    ) -> SetMetric:
        of_generated, of_real = _on_rows(statistic, generated, held_out), _on_rows(statistic, real, real)
        return SetMetric(name, extractor, of_generated, of_real, low, high, needs_reference=not alone)

    def named(score: str) -> str:
        return score_name(score, extractor)

    def share(which: str) -> FeatureStatistic:
        return lambda a, b: float(getattr(precision_recall(b.distance, a.distance, k=k), which))

    return [
        metric(frechet_name(extractor), lambda a, b: frechet_distance(a.distance, b.distance), 0),
        metric(named("kid"), lambda a, b: kid(a.distance, b.distance)),
        metric(named("mmd_rbf"), lambda a, b: rbf_mmd(a.distance, b.distance, bandwidth=bandwidth)),
        metric(named("precision"), share("precision"), 0, 1),
        metric(named("recall"), share("recall"), 0, 1),
        metric(named("density"), share("density"), 0),
        metric(named("coverage"), share("coverage"), 0, 1),
        metric(named("diversity"), lambda a, _: diversity(a.distance), 0, alone=True),
        metric(named("inception_score"), lambda a, _: inception_score(a.logits), 1, alone=True),
    ]


def nearest_metric(metric: PairMetric, features: str, of_generated: Matrix, of_real: Matrix) -> SetMetric:
    """Return the mean over images of the value of the most similar photograph, `ssim_nn` or `lpips_nn`.

    of_generated: pairs of generated images and held-out photographs (N, M); of_real: pairs of photographs.
    """
    low, high = (-1.0, 1.0) if metric.highest else (0.0, np.inf)
    means = _mean_of_nearest(of_generated, metric), _mean_of_nearest(of_real, metric)
    return SetMetric(f"{metric.name}_nn", features, *means, low, high)


def downscale(images: Tensor) -> Tensor:
    """Resize uint8 images (N, 3, H, W) with a side above 128 px, so that the longer side has 128 px."""
    side = max(images.shape[2:])
    if side <= PAIR_MAX_PX:
        return images
    size = tuple(round(length * PAIR_MAX_PX / side) for length in images.shape[2:])
    smaller = functional.interpolate(images.float(), size, mode="bicubic", antialias=True, align_corners=False)
    return smaller.round().clamp(0, 255).to(torch.uint8)


def _on_rows(statistic: FeatureStatistic, a: Features, b: Features) -> Statistic:
    return lambda rows_a, rows_b: statistic(a.rows(rows_a), b.rows(rows_b))


def _mean_of_nearest(pairs: Matrix, metric: PairMetric) -> Statistic:
    def mean(a: Rows, b: Rows) -> float:
        return float(metric.nearest_values(pairs[np.ix_(a, b)]).mean())

    return mean
