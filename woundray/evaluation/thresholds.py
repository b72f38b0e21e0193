"""Thresholds of an evaluation: on scores of a set of images, on the share of copies, and on single images."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import fisher_exact

from woundray.config import QualityConfig
from woundray.evaluation.real_reference import RealReference
from woundray.metrics.memorization import CopyRate
from woundray.metrics.precision_recall import knn_distance
from woundray.metrics.score_names import INCEPTION, frechet_name, score_name
from woundray.metrics.threshold import Threshold


def score_threshold(name: str, extractor: str, quality: QualityConfig) -> Threshold | None:
    """Return the configured threshold of a score; None where it has none or it is disabled.

    Thresholds of FID and inception score are comparable on Inception features only.
    """
    inception = extractor == INCEPTION
    if name == frechet_name(extractor):
        return Threshold(quality.fid.max_threshold, "max", inception) if quality.fid.enabled else None
    if name == score_name("inception_score", extractor):
        limit = quality.inception_score
        return Threshold(limit.min_threshold, "min", inception) if limit.enabled else None
    if name == "ssim_nn":
        return Threshold(quality.ssim.min_threshold, "min") if quality.ssim.enabled else None
    if name == "lpips_nn":
        return Threshold(quality.lpips.max_threshold, "max") if quality.lpips.enabled else None
    return None


def copy_rate_threshold(copies: CopyRate, p_value: float) -> Threshold:
    """Return the largest share of suspected copies with a p-value of at least `p_value`, given the held-out share."""
    alarms = round(copies.held_out_rate * copies.held_out_n)
    largest = 0
    for count in range(copies.n + 1):
        table = [[count, copies.n - count], [alarms, copies.held_out_n - alarms]]
        if fisher_exact(table, alternative="greater").pvalue < p_value:
            break
        largest = count
    return Threshold(largest / copies.n, "max")


@dataclass(frozen=True)
class KnnLimit:
    """Calibrated limit on the mean cosine distance of an image to its k nearest training photographs."""

    k: int
    threshold: Threshold

    @classmethod
    def of(cls, reference: RealReference, quality: QualityConfig) -> "KnnLimit":
        """Take a quantile of the distances of training photographs to those of other patients."""
        groups = np.array(reference.train.groups)
        same_patient = groups[:, None] == groups[None, :]
        k = min(quality.knn.neighbours, int((~same_patient).sum(axis=1).min()))
        real = reference.train.features.copies
        distances = knn_distance(real, real, k=k, exclude=same_patient)
        return cls(k, Threshold(float(np.quantile(distances, quality.knn.quantile, method="weibull")), "max"))
