"""Arms: what one classifier is trained on. All arms of a fold have equal total weight and equal training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from woundray.data.manifest import Photo
from woundray.effect.cohort import Cohort, Rows
from woundray.effect.pools import Pool

Recipe = Literal["real", "oversampling", "augmentation"]
RECIPES: tuple[Recipe, ...] = ("real", "oversampling", "augmentation")


@dataclass(frozen=True)
class Arm:
    """Real pictures by a recipe, with `ratio` synthetic ones for each of them; or synthetic ones alone.

    The recipes: the photographs as they are; so weighted that all phases count alike, which is what drawing them again
    and again comes to; with augmented views. Synthetic pictures are added to the recipe that is best without them.
    """

    recipe: Recipe | Literal["best"]
    ratio: float = 0.0
    synthetic_only: bool = False

    @property
    def name(self) -> str:
        """As in tables and files."""
        if self.synthetic_only:
            return f"synthetic only x{self.ratio:g}"
        return f"best control + synthetic x{self.ratio:g}" if self.ratio else f"{self.recipe}"


@dataclass(frozen=True)
class TrainingSet:
    """Pictures that a classifier is trained on.

    Attributes:
        pictures: uint8 (n, 3, H, W).
        labels: (n,), places among the phases.
        weights: (n,), above 0; their sum is the number of the fold's training photographs.
        kinds: real, augmented or synthetic, of each.
        photos: which photograph it shows; None where it is synthetic.
    """

    pictures: Tensor
    labels: Rows
    weights: NDArray[np.float64]
    kinds: tuple[str, ...]
    photos: tuple[Photo | None, ...]


def synthetic_arms(ratios: Sequence[float]) -> tuple[Arm, ...]:
    """The best control with synthetic pictures at each ratio, and at the highest of them these alone."""
    return (*(Arm("best", ratio) for ratio in ratios), Arm("best", max(ratios), synthetic_only=True))


def compose(
    arm: Arm, cohort: Cohort, train: Rows, pools: Mapping[str, Pool], *, recipe: Recipe, seed: int
) -> TrainingSet:
    """The training set of an arm; `recipe` stands for `best`, pools: phase -> synthetic pictures of this fold."""
    parts: list[tuple[Tensor, Rows, NDArray[np.float64], str, list[Photo | None]]] = []
    labels = cohort.labels[train]
    photos: list[Photo | None] = [cohort.photos[row] for row in train]
    if not arm.synthetic_only:
        views = cohort.views.shape[1] if recipe == "augmentation" else 0
        weight = np.full(len(train), 1 / (1 + views))
        rows = torch.from_numpy(train)
        parts.append((cohort.plain[rows], labels, weight, "real", photos))
        parts += [(cohort.views[rows, view], labels, weight, "augmented", photos) for view in range(views)]
    if arm.ratio:
        for place, phase in enumerate(cohort.phases):
            count = round(arm.ratio * int((labels == place).sum()))
            drawn = pools[phase].draw(count, seed)
            pictures = pools[phase].pictures[torch.from_numpy(drawn)]
            parts.append((pictures, np.full(count, place), np.ones(count), "synthetic", [None] * count))

    labels = np.concatenate([part[1] for part in parts])
    weights = np.concatenate([part[2] for part in parts])
    if recipe == "oversampling":
        weights = weights / np.bincount(labels, weights, minlength=len(cohort.phases))[labels]
    return TrainingSet(
        torch.cat([part[0] for part in parts]),
        labels,
        weights * (len(train) / weights.sum()),
        tuple(part[3] for part in parts for _ in range(len(part[1]))),
        tuple(photo for part in parts for photo in part[4]),
    )
