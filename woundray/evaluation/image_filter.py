"""Pictures judged one by one by the filter, with the figures that decided, beside photographs judged likewise."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from lpips import LPIPS  # type: ignore[import-untyped]
from torch import Tensor

from woundray.config import QualityConfig
from woundray.evaluation.copy_detection import SingleImageScores
from woundray.evaluation.embedders import Embedder, Features, embed
from woundray.evaluation.filter_rules import Passes, Values, heuristics, hold, usable
from woundray.evaluation.real_reference import RealReference
from woundray.evaluation.set_metrics import Pairs, shrunk
from woundray.metrics.lpips import lpips_matrix
from woundray.metrics.nearest import nearest
from woundray.metrics.ssim import ssim_matrix
from woundray.metrics.threshold import Threshold


@dataclass(frozen=True)
class FilterDecisions:
    """What was found of N pictures.

    Attributes:
        usable: (N,), pictures that pass the filter.
        values, thresholds: figures of each metric (N,), and what they are held against.
        passes: of each metric and simple check, which pictures pass.
    """

    usable: Passes
    values: Mapping[str, Values]
    thresholds: Mapping[str, Threshold]
    passes: Mapping[str, Passes]

    def scores(self, row: int) -> dict[str, float]:
        """Figures of one picture."""
        return {name: float(values[row]) for name, values in self.values.items()}

    def reasons(self, row: int) -> dict[str, str]:
        """What one picture fails, and how: `{"knn": "0.41, not ≤ 0.38"}`; a simple check has no figure."""
        failed = [name for name, passes in self.passes.items() if not passes[row]]
        return {
            name: f"{self.values[name][row]:.3g}, not {self.thresholds[name]}" if name in self.values else ""
            for name in failed
        }


class ImageFilter:
    """The filter of one checkpoint: judges any pictures of its resolution against its photographs.

    Args:
        train, held_out: photographs of the reference, uint8 (., 3, H, W).
        quality: the filter's settings, with the thresholds of the phase laid over.
        lpips: network; None leaves LPIPS out.
    """

    def __init__(
        self,
        reference: RealReference,
        embedder: Embedder,
        quality: QualityConfig,
        *,
        train: Tensor,
        held_out: Tensor,
        lpips: LPIPS | None = None,
    ) -> None:
        threshold = reference.copy_rate(reference.held_out.features).threshold
        self._judge = SingleImageScores.of(reference, quality, threshold)
        self._embedder = embedder
        self._quality = quality
        self._train, self._held_out = train, held_out
        self._pairs: dict[str, tuple[Pairs, Threshold]] = {
            "ssim": (ssim_matrix, Threshold(quality.ssim.min_threshold, "min"))
        }
        if lpips is not None:
            self._pairs["lpips"] = partial(lpips_matrix, lpips), Threshold(quality.lpips.max_threshold, "max")

    def __call__(self, pictures: Tensor) -> FilterDecisions:
        """Verdicts on uint8 (N, 3, H, W)."""
        return self._verdicts(pictures, embed(self._embedder, pictures), self._held_out)

    def of_photographs(self) -> FilterDecisions:
        """Verdicts on the held-out photographs."""
        return self._verdicts(self._held_out, self._judge.reference.held_out.features, self._train)

    def _verdicts(self, pictures: Tensor, features: Features, others: Tensor) -> FilterDecisions:
        values, thresholds = self._judge.values(features), dict(self._judge.thresholds)
        for name, (pairs, threshold) in self._pairs.items():
            if name in self._quality.filtering.metrics:
                found = nearest(pairs(shrunk(pictures), shrunk(others)), highest=threshold.kind == "min")
                values[name], thresholds[name] = np.asarray(found.value), threshold
        chosen = self._quality.filtering.metrics
        passes: dict[str, Passes] = {
            name: hold(thresholds[name], values[name]) for name in thresholds if name in chosen
        }
        simple = heuristics(pictures, self._quality.heuristics)
        kept = usable(passes, simple, self._quality.filtering, len(pictures))
        return FilterDecisions(kept, values, thresholds, passes | simple)
