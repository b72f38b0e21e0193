"""Arms: training sets of classifiers. All arms of a fold have the same total weight and the same training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
    """Real images by a recipe, with `ratio` synthetic images for each of them; or synthetic images alone.

    Recipes: `real` takes the photographs as they are. `oversampling` weights them so that all phases count alike, which
    is the expectation of repeated sampling. `augmentation` adds augmented views. Synthetic images are added to the best
    recipe (`best`) and get its views, too: otherwise they would undo a part of the augmentation, and copies of
    photographs would seem to hurt.
    """

    recipe: Recipe | Literal["best"]
    ratio: float = 0.0
    synthetic_only: bool = False

    @property
    def name(self) -> str:
        """Name in tables and files."""
        if self.synthetic_only:
            return f"synthetic only x{self.ratio:g}"
        return f"best control + synthetic x{self.ratio:g}" if self.ratio else f"{self.recipe}"

    def with_recipe(self, recipe: Recipe) -> "Arm":
        """Return the arm with a recipe in place of `best`."""
        return replace(self, recipe=recipe)


@dataclass(frozen=True)
class TrainingSet:
    """Training images of a classifier.

    Attributes:
        pictures: uint8 (n, 3, H, W).
        labels: (n,), indices into the cohort's phases.
        weights: (n,), above 0; their sum is the number of the fold's training photographs.
        kinds: real, augmented or synthetic, of each image.
        photos: photograph of each image; None for a synthetic image.
    """

    pictures: Tensor
    labels: Rows
    weights: NDArray[np.float64]
    kinds: tuple[str, ...]
    photos: tuple[Photo | None, ...]


def synthetic_arms(ratios: Sequence[float]) -> tuple[Arm, ...]:
    """Return the best control with synthetic images at each ratio, and synthetic images alone at the highest ratio."""
    return (*(Arm("best", ratio) for ratio in ratios), Arm("best", max(ratios), synthetic_only=True))


def build_training_set(arm: Arm, cohort: Cohort, train: Rows, pools: Mapping[str, Pool], *, seed: int) -> TrainingSet:
    """Return the training set of an arm.

    Args:
        arm: with a recipe other than `best` (see `Arm.with_recipe`).
        train: training rows of the cohort.
        pools: phase -> synthetic images of this fold.
        seed: of the choice of synthetic images.
    """
    labels, sets = cohort.labels[train], []
    if not arm.synthetic_only:
        rows = torch.from_numpy(train)
        photos = tuple(cohort.photos[row] for row in train)
        sets.append(_with_views(arm, cohort.plain[rows], cohort.views[rows], labels, photos))
    if arm.ratio:
        for index, phase in enumerate(cohort.phases):
            pool, count = pools[phase], round(arm.ratio * int((labels == index).sum()))
            rows = torch.from_numpy(pool.draw(count, seed))
            sets.append(_with_views(arm, pool.pictures[rows], pool.views[rows], np.full(count, index), None))

    joined = np.concatenate([part.labels for part in sets])
    weights = np.concatenate([part.weights for part in sets])
    if arm.recipe == "oversampling":
        weights = weights / np.bincount(joined, weights, minlength=len(cohort.phases))[joined]
    return TrainingSet(
        torch.cat([part.pictures for part in sets]),
        joined,
        weights * (len(train) / weights.sum()),
        tuple(kind for part in sets for kind in part.kinds),
        tuple(photo for part in sets for photo in part.photos),
    )


def _with_views(arm: Arm, plain: Tensor, views: Tensor, labels: Rows, photos: tuple[Photo, ...] | None) -> TrainingSet:
    """Return images (n, 3, H, W) of weight 1 each; with augmentation, image and views (n, V, 3, H, W) share it."""
    number = views.shape[1] if arm.recipe == "augmentation" else 0
    kinds = ("synthetic", "synthetic") if photos is None else ("real", "augmented")
    return TrainingSet(
        torch.cat([plain, *(views[:, index] for index in range(number))]),
        np.tile(labels, 1 + number),
        np.full(len(labels) * (1 + number), 1 / (1 + number)),
        (kinds[0],) * len(labels) + (kinds[1],) * (len(labels) * number),
        (photos or (None,) * len(labels)) * (1 + number),
    )
