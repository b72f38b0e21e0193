"""What scores see of a picture: features for distances between sets, features for copies, and class logits."""

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
from woundray.metrics.staged_extractors import Dinov2, Sscd
from woundray.weights.feature_weights import WEIGHTS
from woundray.weights.repositories import weights_home
from woundray.weights.staging import staged_file

Rows = NDArray[np.int64]
Columns = NDArray[np.float32]

INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"


@dataclass(frozen=True)
class Features:
    """N pictures, one row each: `distance` (N, d), `copies` (N, 1280) and `logits` (N, classes), float32."""

    distance: Columns
    copies: Columns
    logits: Columns

    def __len__(self) -> int:
        return len(self.distance)

    def rows(self, rows: Rows) -> "Features":
        """Some of the pictures."""
        return Features(self.distance[rows], self.copies[rows], self.logits[rows])

    def joined(self) -> Tensor:
        """(N, all columns), as an embedder gives them."""
        return torch.from_numpy(np.concatenate([self.distance, self.copies, self.logits], axis=1))


class Embedder(Extractor, Protocol):
    """An extractor that gives all three kinds of columns at once; `parts`: how many of each.

    `name` is that of the features for distances; copies are always looked for on Lite0's head.
    """

    parts: tuple[int, int, int]


class Lite0Embedder:
    """All from one pass of the packaged EfficientNet-Lite0: block 10, head, logits of 1000 classes."""

    name = "lite0"
    parts = (112, 1280, 1000)
    dim = sum(parts)

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self._layers = Lite0Layers(("b10", "head", "logits"), device)
        self.content_hash = self._layers.content_hash

    def __call__(self, images: Tensor) -> Tensor:
        return torch.cat(list(self._layers(images).values()), dim=1)


class InceptionEmbedder:
    """Inception's pool3 (2048) and logits (1008), as the literature has them; copies on Lite0's head."""

    name = "inception"
    parts = (2048, 1280, 1008)
    dim = sum(parts)

    def __init__(self, inception: Inception, device: str | torch.device = "cpu") -> None:
        self._inception = inception
        self._head = Lite0Layers(("head",), device)
        self.content_hash = f"{inception.content_hash} {self._head.content_hash}"

    def __call__(self, images: Tensor) -> Tensor:
        pool, logits = self._inception.features_and_logits(images)
        return torch.cat([pool, self._head(images)["head"], logits], dim=1)


class Alone:
    """An extractor as an embedder: the same features for distances and for copies, and no classes."""

    def __init__(self, extractor: Extractor) -> None:
        self._extractor = extractor
        self.name, self.content_hash = extractor.name, f"alone {extractor.content_hash}"
        self.parts = (extractor.dim, extractor.dim, 0)
        self.dim = sum(self.parts)

    def __call__(self, images: Tensor) -> Tensor:
        features = self._extractor(images)
        return torch.cat([features, features], dim=1)


def embed(embedder: Embedder, images: Tensor, cache: Path | None = None) -> Features:
    """Features of uint8 NCHW RGB pictures; read from the folder `cache` where they were measured before."""
    columns = embedder(images) if cache is None else cached_features(embedder, images, cache)
    return split_columns(columns, embedder.parts)


def split_columns(columns: Tensor, parts: tuple[int, int, int]) -> Features:
    """(N, sum of parts) -> Features."""
    return Features(*(part.numpy() for part in torch.split(columns, list(parts), dim=1)))


def score_name(score: str, embedder: str) -> str:
    """A score's name with its features: `kid_lite0`; those of Inception, as in the literature, go without: `kid`."""
    return score if embedder == "inception" else f"{score}_{embedder}"


def resolve_objective(config: Config) -> Config:
    """`auto` becomes `fid` where Inception's weights are on this machine, else `fd_lite0`; another stays."""
    if config.metrics.objective != "auto":
        return config
    return config.with_values({"metrics.objective": "fid" if staged_file(INCEPTION_FILE) else "fd_lite0"})


def make_embedder(config: Config, device: torch.device) -> Embedder:
    """Inception's where the objective is `fid`, else the packaged one.

    Raises:
        UserError: Inception's weights are not there, or are not the known ones.
    """
    if config.metrics.objective == "fid":
        weights = staged_file(INCEPTION_FILE) or weights_home() / INCEPTION_FILE
        return InceptionEmbedder(Inception(weights, device), device)
    return Lite0Embedder(device)


def staged_extractors(device: torch.device) -> list[Extractor]:
    """Extractors of a full evaluation that are used where their weights are on this machine.

    Raises:
        UserError: a file is not the known one.
    """
    found: list[Extractor] = []
    if file := staged_file(WEIGHTS["dinov2"].file_name):
        found.append(Dinov2(file, device))
    if file := staged_file(WEIGHTS["sscd"].file_name):
        found.append(Sscd(file, device))
    return found
