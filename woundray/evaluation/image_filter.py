"""Image filter: decides on each image alone whether it is usable, for `evaluate`, `generate` and `augment`.

Metrics of an image: `knn` (distance to the nearest training photographs; high: unlike a wound), `copies` (ratio of
nearest to second-nearest distance; low: a copy), `ssim` and `lpips` (similarity to the nearest photograph); and the
simple checks of `filter_rules`. quality.filtering says which of them decide, and how.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from woundray.config import QualityConfig
from woundray.evaluation.embedders import Features, embed
from woundray.evaluation.filter_rules import Passes, Values, heuristics, passes_filter, within_threshold
from woundray.evaluation.networks import ScoringNetworks
from woundray.evaluation.real_reference import RealImages, RealReference
from woundray.evaluation.set_metrics import pair_metrics
from woundray.evaluation.thresholds import KnnLimit, score_threshold
from woundray.metrics.feature_checks import Matrix
from woundray.metrics.precision_recall import knn_distance
from woundray.metrics.threshold import Threshold


@dataclass(frozen=True)
class FilterDecisions:
    """Decisions of the filter on N images.

    Attributes:
        usable: (N,), True where an image passes the filter.
        values, thresholds: (N,) values of each metric, and its threshold; one that is disabled is left out.
        passes: of each metric and simple check, (N,), True where an image passes.
        deciding: names of the metrics and checks that the filter uses.
    """

    usable: Passes
    values: Mapping[str, Values]
    thresholds: Mapping[str, Threshold]
    passes: Mapping[str, Passes]
    deciding: tuple[str, ...]

    def scores(self, row: int) -> dict[str, float]:
        """Return the values of one image."""
        return {name: float(values[row]) for name, values in self.values.items()}

    def reasons(self, row: int) -> dict[str, str]:
        """Return the metrics and checks that one image fails: `{"knn": "0.41, not ≤ 0.38"}`; empty text for a check."""
        failed = [name for name in self.passes if name in self.deciding and not self.passes[name][row]]
        return {
            name: f"{self.values[name][row]:.3g}, not {self.thresholds[name]}" if name in self.values else ""
            for name in failed
        }


class ImageFilter:
    """Filter of generated images of one size, calibrated on the photographs of a reference.

    Args:
        photographs: those of the reference, of the size of the generated images.
        networks: without LPIPS that metric is left out.
        quality: settings of the filter, with the thresholds of the phase applied.
    """

    def __init__(
        self, reference: RealReference, photographs: RealImages, networks: ScoringNetworks, quality: QualityConfig
    ) -> None:
        self._reference = reference
        self._photographs = photographs
        self._networks = networks
        self._quality = quality
        self._knn = KnnLimit.of(reference, quality)
        self._pair_metrics = {metric.name: metric for metric in pair_metrics(networks.lpips)}
        thresholds = {
            "knn": self._knn.threshold,
            "copies": Threshold(reference.copy_threshold, "min"),
            **{name: score_threshold(f"{name}_nn", reference.extractor, quality) for name in self._pair_metrics},
        }
        self._thresholds = {name: threshold for name, threshold in thresholds.items() if threshold is not None}

    def __call__(
        self, images: Tensor, features: Features | None = None, pairs: Mapping[str, Matrix] | None = None
    ) -> FilterDecisions:
        """Filter generated images, uint8 (N, 3, H, W).

        features, pairs: features of the images, and matrices of `ssim` and `lpips` with the held-out photographs,
        where they were computed before. Metrics of `pairs` are reported even if the filter does not use them.
        """
        features = embed(self._networks.embedder, images) if features is None else features
        return self._decide(images, features, self._photographs.held_out, pairs or {})

    def of_photographs(self) -> FilterDecisions:
        """Filter the held-out photographs; `ssim` and `lpips` compare them with the training photographs."""
        features = self._reference.held_out.features
        return self._decide(self._photographs.held_out, features, self._photographs.train, {})

    def _decide(
        self, images: Tensor, features: Features, photographs: Tensor, pairs: Mapping[str, Matrix]
    ) -> FilterDecisions:
        config = self._quality.filtering
        values: dict[str, Values] = {
            "knn": knn_distance(features.copies, self._reference.train.features.copies, k=self._knn.k),
            "copies": self._reference.copy_ratios(features).ratio,
        }
        for name, metric in self._pair_metrics.items():
            if name in pairs or name in config.metrics:
                matrix = pairs[name] if name in pairs else metric(images, photographs)
                values[name] = metric.nearest_values(matrix)
        metrics = {name: within_threshold(self._thresholds.get(name), found) for name, found in values.items()}
        simple = heuristics(images, self._quality.heuristics)
        usable = passes_filter(metrics, simple, config, len(images))
        thresholds = {name: threshold for name, threshold in self._thresholds.items() if name in values}
        return FilterDecisions(usable, values, thresholds, metrics | simple, (*config.metrics, *simple))
