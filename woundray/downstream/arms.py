"""Arms: what one classifier is trained on. All arms of a fold have equal total weight and equal training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from woundray.data.manifest import Photo
from woundray.downstream.cohort import Cohort, Rows
from woundray.downstream.synthetic_pools import Pool

Recipe = Literal["real", "oversampling", "augmentation"]
RECIPES: tuple[Recipe, ...] = ("real", "oversampling", "augmentation")


@dataclass(frozen=True)
class Arm:
    """Real pictures by a recipe, with `ratio` synthetic ones for each of them; or synthetic ones alone.

    The recipes: the photographs as they are; so weighted that all phases count alike, which is what drawing them again
    and again comes to; with augmented views. Synthetic pictures are added to the recipe that is best without them, and
    have its views, too: without them they would undo a part of the augmentation, and copies would seem to hurt.
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
    labels, sets = cohort.labels[train], []
    if not arm.synthetic_only:
        rows = torch.from_numpy(train)
        photos = tuple(cohort.photos[row] for row in train)
        sets.append(_with_views(cohort.plain[rows], cohort.views[rows], labels, photos, recipe))
    if arm.ratio:
        for place, phase in enumerate(cohort.phases):
            pool, count = pools[phase], round(arm.ratio * int((labels == place).sum()))
            rows = torch.from_numpy(pool.draw(count, seed))
            sets.append(_with_views(pool.pictures[rows], pool.views[rows], np.full(count, place), None, recipe))

    joined = np.concatenate([part.labels for part in sets])
    weights = np.concatenate([part.weights for part in sets])
    if recipe == "oversampling":
        weights = weights / np.bincount(joined, weights, minlength=len(cohort.phases))[joined]
    return TrainingSet(
        torch.cat([part.pictures for part in sets]),
        joined,
        weights * (len(train) / weights.sum()),
        tuple(kind for part in sets for kind in part.kinds),
        tuple(photo for part in sets for photo in part.photos),
    )


def _with_views(
    plain: Tensor, views: Tensor, labels: Rows, photos: tuple[Photo, ...] | None, recipe: Recipe
) -> TrainingSet:
    """Pictures (n, 3, H, W), each of weight 1, which the recipe may share with its views (n, V, 3, H, W)."""
    number = views.shape[1] if recipe == "augmentation" else 0
    kinds = ("synthetic", "synthetic") if photos is None else ("real", "augmented")
    return TrainingSet(
        torch.cat([plain, *(views[:, place] for place in range(number))]),
        np.tile(labels, 1 + number),
        np.full(len(labels) * (1 + number), 1 / (1 + number)),
        (kinds[0],) * len(labels) + (kinds[1],) * (len(labels) * number),
        (photos or (None,) * len(labels)) * (1 + number),
    )
