"""A simple embedder, and images for it."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from woundray.config import CopiesThreshold
from woundray.evaluation.real_reference import RealImages, RealReference, ReferenceOptions, make_reference

SIDE = 16
PER_PATIENT = 2


class Colours:
    """Mean colours for distances, a picture in small for copies, mean colours for classes."""

    name, parts, content_hash = "fake", (3, 1280, 3), "fake"
    dim = sum(parts)

    def __call__(self, images: Tensor) -> Tensor:
        means = images.float().mean(dim=(2, 3))
        small = functional.adaptive_avg_pool2d(images.float(), 4).flatten(1)
        return torch.cat([means, functional.pad(small, (0, 1280 - small.shape[1]), value=1.0), means / 50], dim=1)


def pictures(count: int, *, seed: int, level: float = 120) -> Tensor:
    """uint8 (count, 3, 16, 16): coarse random patterns around a level."""
    generator = np.random.default_rng(seed)
    coarse = generator.normal(level, 40, size=(count, 3, 4, 4)) + generator.normal(0, 20, size=(count, 3, 1, 1))
    fine = torch.tensor(coarse.clip(0, 255)).float()
    return functional.interpolate(fine, (SIDE, SIDE), mode="bilinear").to(torch.uint8)


def groups(count: int, side: str) -> tuple[str, ...]:
    """Two images a patient."""
    return tuple(f"{side}{index // PER_PATIENT}" for index in range(count))


TRAIN, HELD_OUT = pictures(60, seed=0), pictures(40, seed=1)
REAL = RealImages(TRAIN, HELD_OUT, groups(60, "t"), groups(40, "h"))


def reference(n: int = 30, copies: CopiesThreshold | None = None) -> RealReference:
    """Of 60 training and 40 held-out images."""
    return make_reference(REAL, Colours(), ReferenceOptions(n, copies or CopiesThreshold(), repeats=10, seed=0))
