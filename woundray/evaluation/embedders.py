"""Embedders: networks that return all features of an evaluation at once, for distances, copies and classes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from woundray.config import Config
from woundray.metrics.extractors import Extractor, Inception, Lite0Layers
from woundray.metrics.feature_cache import cached_features
from woundray.metrics.feature_checks import Rows
from woundray.metrics.score_names import INCEPTION, frechet_name
from woundray.weights.feature_weights import WEIGHTS
from woundray.weights.repositories import weights_home
from woundray.weights.staging import weights_file

FeatureArray = NDArray[np.float32]


@dataclass(frozen=True)
class Features:
    """Features of N images, one row each: `distance` (N, d), `copies` (N, 1280) and `logits` (N, classes), float32."""

    distance: FeatureArray
    copies: FeatureArray
    logits: FeatureArray

    def __len__(self) -> int:
        return len(self.distance)

    def rows(self, rows: Rows) -> "Features":
        """Select some of the images."""
        return Features(self.distance[rows], self.copies[rows], self.logits[rows])

    def concatenated(self) -> Tensor:
        """Return (N, all columns), in the format of an embedder."""
        return torch.from_numpy(np.concatenate([self.distance, self.copies, self.logits], axis=1))


class Embedder(Extractor, Protocol):
    """Extractor that returns all three kinds of features in one array; `parts`: number of columns of each.

    `name` is that of the features for distances; features for copies are always those of Lite0's head.
    """

    parts: tuple[int, int, int]


class Lite0Embedder:
    """Block 10, head and logits of 1000 classes, from one pass of the packaged EfficientNet-Lite0."""

    name = "lite0"
    parts = (112, 1280, 1000)
    dim = sum(parts)

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self._layers = Lite0Layers(("b10", "head", "logits"), device)
        self.content_hash = self._layers.content_hash

    def __call__(self, images: Tensor) -> Tensor:
        return torch.cat(list(self._layers(images).values()), dim=1)


class InceptionEmbedder:
    """Inception's pool3 (2048) and logits (1008), as in the literature; Lite0's head for copies."""

    name = INCEPTION
    parts = (2048, 1280, 1008)
    dim = sum(parts)

    def __init__(self, inception: Inception, device: str | torch.device = "cpu") -> None:
        self._inception = inception
        self._head = Lite0Layers(("head",), device)
        self.content_hash = f"{inception.content_hash} {self._head.content_hash}"

    def __call__(self, images: Tensor) -> Tensor:
        pool, logits = self._inception.features_and_logits(images)
        return torch.cat([pool, self._head(images)["head"], logits], dim=1)


class SingleExtractorEmbedder:
    """Embedder of one extractor: the same features for distances and for copies, and no classes."""

    def __init__(self, extractor: Extractor) -> None:
        self._extractor = extractor
        self.name, self.content_hash = extractor.name, f"alone {extractor.content_hash}"
        self.parts = (extractor.dim, extractor.dim, 0)
        self.dim = sum(self.parts)

    def __call__(self, images: Tensor) -> Tensor:
        features = self._extractor(images)
        return torch.cat([features, features], dim=1)


def embed(embedder: Embedder, images: Tensor, cache: Path | None = None) -> Features:
    """Compute features of uint8 NCHW RGB images, or read them from the folder `cache`."""
    columns = embedder(images) if cache is None else cached_features(embedder, images, cache)
    return split_features(columns, embedder.parts)


def split_features(columns: Tensor, parts: tuple[int, int, int]) -> Features:
    """Split (N, sum of parts) into Features."""
    return Features(*(part.numpy() for part in torch.split(columns, list(parts), dim=1)))


def make_embedder(config: Config, device: torch.device) -> Embedder:
    """Return Inception's embedder where the objective is `fid`, else the packaged one.

    Raises:
        UserError: Inception's weights are missing or have another sha256.
    """
    if config.metrics.objective == frechet_name(INCEPTION):
        weights = weights_file(INCEPTION) or weights_home() / WEIGHTS[INCEPTION].file_name
        return InceptionEmbedder(Inception(weights, device), device)
    return Lite0Embedder(device)
