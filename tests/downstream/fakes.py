"""Fast fakes: images of noise around a pattern for each phase, and generators with a known effect."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from woundray.data.image_source import ImageSource
from woundray.data.manifest import Dataset, Photo
from woundray.data.transforms import Augmentation
from woundray.downstream.arms import TrainingSet
from woundray.downstream.classifiers import HeldOut
from woundray.downstream.cohort import Rows
from woundray.downstream.generators import SyntheticImages
from woundray.errors import UserError

SIDE = 32
PHASES = ("I", "P", "R")
SIGNAL, NOISE = 7.0, 45.0  # grey levels: a classifier of few pictures is right in about two of three


@dataclass(frozen=True)
class NoisyStudy:
    """Source of `patients` patients for each phase, with two images each, all with different noise."""

    patients: int
    seed: int = 0

    def __call__(self) -> ImageSource:
        photos, pixels = [], {}
        for phase in PHASES:
            for number in range(self.patients):
                for visit in (1, 2):
                    path = Path(f"{phase}{number:02}-{visit}.png")
                    pixels[path] = (
                        noisy(phase, [self.seed, PHASES.index(phase), number, visit]).permute(1, 2, 0).numpy()
                    )
                    name = f"{phase}{number:02}"
                    photos.append(Photo(path, phase, name, visit, sha256=f"{len(photos):064x}", group=name))
        return ImageSource(tuple(photos), pixels, Dataset(Path(), tuple(photos)).content_hash, SIDE, AUGMENTATION)


AUGMENTATION = Augmentation(margin_min=0, margin_max=0, flip=False, scale=(1, 1), jitter=0)


def noisy(phase: str, seed: list[int]) -> Tensor:
    """Return an image, uint8 (3, SIDE, SIDE): the phase's pattern, shared by all its images, and coarse noise."""
    pattern = np.random.default_rng(PHASES.index(phase)).normal(size=(3, 8, 8))
    values = 128 + SIGNAL * pattern + np.random.default_rng(seed).normal(0, NOISE, size=(3, 8, 8))
    fine = values.clip(0, 255).round().astype(np.uint8).repeat(SIDE // 8, axis=1).repeat(SIDE // 8, axis=2)
    return torch.from_numpy(fine)


@dataclass
class Planted:
    """Generator of new images of a phase ("useful"), of the next one ("harmful"), or of copies ("useless").

    claims: paths that it reports as used, besides the photographs. calls: phases of all calls.
    """

    kind: str = "useful"
    claims: dict[str, list[Path]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    dies_after: int = 10**6

    @property
    def key(self) -> str:
        return self.kind

    def __call__(self, photographs: ImageSource, n: int, seed: int, folder: Path) -> SyntheticImages:
        if len(self.calls) >= self.dies_after:
            raise UserError("out of power")
        phase = photographs.photos[0].phase
        self.calls.append(phase)
        used = {"generator": [photo.path for photo in photographs.photos], **self.claims}
        if self.kind == "useless":
            pictures = [photographs.plain(photographs.photos[k % len(photographs.photos)]) for k in range(n)]
        else:
            drawn = PHASES[(PHASES.index(phase) + (self.kind == "harmful")) % 3]
            pictures = [noisy(drawn, [10**6, seed, number, PHASES.index(drawn)]) for number in range(n)]
        return SyntheticImages(torch.stack(pictures), 1.0, 0.0, used)


@dataclass
class Pixels:
    """Logistic regression on coarse pixels."""

    random: bool = False
    calls: int = 0
    key: str = "pixels"

    def __call__(self, train: TrainingSet, test: HeldOut, *, seed: int, folder: Path) -> Rows:
        self.calls += 1
        model = LogisticRegression(C=0.03, max_iter=2000)
        model.fit(coarse(train.pictures), train.labels, sample_weight=train.weights)
        predicted: Rows = model.predict(coarse(test.pictures))
        return predicted


def coarse(pictures: Tensor) -> NDArray[np.float64]:
    """Return coarse pixels (n, 192) around 0."""
    small = pictures[:, :, :: SIDE // 8, :: SIDE // 8].flatten(1).numpy()
    return (small.astype(np.float64) - 128) / NOISE
