"""Scores of one set of pictures against another, each a function of which rows of both count."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial.distance import pdist
from torch import Tensor
from torch.nn import functional

from woundray.evaluation.embedders import Features, score_name
from woundray.metrics.feature_checks import Matrix
from woundray.metrics.frechet import frechet_distance
from woundray.metrics.inception_score import inception_score
from woundray.metrics.jackknife import Statistic
from woundray.metrics.kid import kid, rbf_mmd
from woundray.metrics.nearest import nearest
from woundray.metrics.precision_recall import diversity, manifold
from woundray.metrics.real_baseline import Rows

PAIRS_PX = 128  # pictures are compared pixel by pixel at this side at most

Pairs = Callable[[Tensor, Tensor], Matrix]
Of = Callable[[Features, Features], float]


@dataclass(frozen=True)
class Measure:
    """A score: its name, the features it is taken on, its range, and how it follows from features or pairs.

    of_generated: rows of generated and of held-out pictures -> value; of_real: rows of two sides of all real ones.
    """

    name: str
    features: str
    of_generated: Statistic
    of_real: Statistic
    low: float = -np.inf
    high: float = np.inf
    needs_reference: bool = True


def feature_measures(
    extractor: str, generated: Features, held_out: Features, real: Features, *, k: int
) -> list[Measure]:
    """Scores on features; `real`: of all photographs; k: neighbours of precision, recall, density, coverage."""
    bandwidth = float(np.median(pdist(held_out.distance)))  # of real pictures alone: the same kernel for all sets

    def measure(name: str, of: Of, low: float = -np.inf, high: float = np.inf, *, alone: bool = False) -> Measure:
        of_generated, of_real = _on(of, generated, held_out), _on(of, real, real)
        return Measure(name, extractor, of_generated, of_real, low, high, needs_reference=not alone)

    def named(score: str) -> str:
        return score_name(score, extractor)

    def share(which: str) -> Of:
        return lambda a, b: float(getattr(manifold(b.distance, a.distance, k=k), which))

    frechet = "fid" if extractor == "inception" else f"fd_{extractor}"
    return [
        measure(frechet, lambda a, b: frechet_distance(a.distance, b.distance), 0),
        measure(named("kid"), lambda a, b: kid(a.distance, b.distance)),
        measure(named("mmd_rbf"), lambda a, b: rbf_mmd(a.distance, b.distance, bandwidth=bandwidth)),
        measure(named("precision"), share("precision"), 0, 1),
        measure(named("recall"), share("recall"), 0, 1),
        measure(named("density"), share("density"), 0),
        measure(named("coverage"), share("coverage"), 0, 1),
        measure(named("diversity"), lambda a, _: diversity(a.distance), 0, alone=True),
        measure(named("inception_score"), lambda a, _: inception_score(a.logits), 1, alone=True),
    ]


def pair_measure(name: str, features: str, of_generated: Matrix, of_real: Matrix, *, highest: bool) -> Measure:
    """Mean over pictures of how similar the most similar real one is.

    of_generated: generated with held-out pictures (N, M); of_real: real pictures with one another.
    """
    low, high = (-1.0, 1.0) if highest else (0.0, np.inf)
    return Measure(name, features, _nearest(of_generated, highest), _nearest(of_real, highest), low, high)


def all_pairs(pairs: Pairs, x: Tensor, *, block: int = 40) -> Matrix:
    """Pairs of one set (N, N), reckoning each once but for those of one block."""
    result = np.empty((len(x), len(x)))
    for start in range(0, len(x), block):
        part = pairs(x[start : start + block], x[start:])
        result[start : start + block, start:] = part
        result[start:, start : start + block] = part.T
    return result


def shrunk(pictures: Tensor) -> Tensor:
    """uint8 pictures (N, 3, H, W) with sides of 128 px at most."""
    side = max(pictures.shape[2:])
    if side <= PAIRS_PX:
        return pictures
    size = tuple(round(length * PAIRS_PX / side) for length in pictures.shape[2:])
    smaller = functional.interpolate(pictures.float(), size, mode="bicubic", antialias=True, align_corners=False)
    return smaller.round().clamp(0, 255).to(torch.uint8)


def _on(of: Of, a: Features, b: Features) -> Statistic:
    return lambda rows_a, rows_b: of(a.rows(rows_a), b.rows(rows_b))


def _nearest(pairs: Matrix, highest: bool) -> Statistic:
    def mean(a: Rows, b: Rows) -> float:
        return float(nearest(pairs[np.ix_(a, b)], highest=highest).value.mean())

    return mean
