"""Networks of an evaluation: embedder, LPIPS, and further extractors whose weights are on this machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from lpips import LPIPS  # type: ignore[import-untyped]

from woundray.config import QualityConfig
from woundray.evaluation.embedders import Embedder
from woundray.metrics.extractors import Extractor
from woundray.metrics.lpips import load_lpips
from woundray.metrics.staged_extractors import Dinov2, Sscd
from woundray.weights.feature_weights import LPIPS_TRUNKS
from woundray.weights.staging import weights_file


@dataclass(frozen=True)
class ScoringNetworks:
    """Networks that scores and the image filter are computed with.

    Attributes:
        lpips: None leaves LPIPS out.
        extractors: further ones, each of which adds scores under its own name.
        cache: folder of features that were computed before.
    """

    embedder: Embedder
    lpips: LPIPS | None = None
    extractors: Sequence[Extractor] = ()
    cache: Path | None = None

    @classmethod
    def of_evaluation(
        cls, embedder: Embedder, quality: QualityConfig, device: torch.device, cache: Path | None
    ) -> "ScoringNetworks":
        """Load LPIPS and all further extractors whose weights are on this machine.

        Raises:
            UserError: a weights file has another sha256.
        """
        return cls(embedder, staged_lpips(quality, device), staged_extractors(device), cache)

    @classmethod
    def of_filter(cls, embedder: Embedder, quality: QualityConfig, device: torch.device) -> "ScoringNetworks":
        """Load LPIPS if the image filter uses it and its weights are on this machine.

        Raises:
            UserError: the weights file has another sha256.
        """
        return cls(embedder, staged_lpips(quality, device) if "lpips" in quality.filtering.metrics else None)


def staged_lpips(quality: QualityConfig, device: torch.device) -> LPIPS | None:
    """Load the configured LPIPS network; None where its weights are not on this machine."""
    trunk = weights_file(LPIPS_TRUNKS[quality.lpips.network])
    return load_lpips(trunk, quality.lpips.network).to(device) if trunk else None


def staged_extractors(device: torch.device) -> list[Extractor]:
    """Load DINOv2 and SSCD where their weights are on this machine.

    Raises:
        UserError: a weights file has another sha256.
    """
    found: list[Extractor] = []
    if file := weights_file("dinov2"):
        found.append(Dinov2(file, device))
    if file := weights_file("sscd"):
        found.append(Sscd(file, device))
    return found
