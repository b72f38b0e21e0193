"""Cohort of a measurement: its photographs, and the folds of patients."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold
from torch import Tensor

from woundray.data.duplicates import group_patients, near_duplicate_pairs, thumbnail
from woundray.data.image_source import ImageSource
from woundray.data.manifest import Photo
from woundray.data.split import joined_groups
from woundray.data.transforms import Augmentation, view
from woundray.errors import UserError

Rows = NDArray[np.int64]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Cohort:
    """Photographs of several phases, N in all.

    Attributes:
        phases: names of the classes, in order of healing.
        photos: each with its group of patients, which is never split.
        labels: (N,), indices into `phases`.
        plain: uint8 (N, 3, H, W), without augmentation: what a classifier is tested on.
        views: uint8 (N, V, 3, H, W), augmented.
        thumbnails: (N, d), to find near-duplicates.
        duplicate_correlation: correlation of thumbnails from which two photographs are near-duplicates.
    """

    phases: tuple[str, ...]
    photos: tuple[Photo, ...]
    labels: Rows
    plain: Tensor
    views: Tensor
    thumbnails: NDArray[np.float32]
    duplicate_correlation: float

    @property
    def groups(self) -> list[str]:
        """Group of each photograph: a patient, and all patients with a near-duplicate of one of their photographs."""
        return [photo.group for photo in self.photos]

    @property
    def patients(self) -> int:
        """Number of groups of patients."""
        return len(set(self.groups))


@dataclass(frozen=True)
class Fold:
    """Training and test rows of a cohort. `number` counts from 1; `repeat` is the index of the random split, from 0."""

    number: int
    train: Rows
    test: Rows
    repeat: int = 0

    def seeds(self, per_repeat: int) -> slice:
        """Return the rows of this fold's repeat in a table of predictions with `per_repeat` seeds for each repeat."""
        return slice(self.repeat * per_repeat, (self.repeat + 1) * per_repeat)


def load_cohort(source: ImageSource, phases: Sequence[str], *, views: int) -> Cohort:
    """Load all photographs of the phases, with `views` augmented views of each that depend on the photograph alone.

    Raises:
        UserError: a phase has no photograph.
    """
    for phase in phases:
        if not any(photo.phase == phase for photo in source.photos):
            raise UserError(f"effect.phases: no photograph of phase {phase}; leave it out")
    photos = [photo for photo in source.photos if photo.phase in phases]
    plain, augmented = [], []
    for photo in photos:
        first = int(photo.sha256[:8], 16)
        plain.append(source.plain(photo))
        augmented.append(torch.stack([rotated(source.view(photo, first + number), number) for number in range(views)]))
    thumbnails = np.stack([thumbnail(picture.permute(1, 2, 0).numpy()) for picture in plain])  # CHW => HWC
    labels = np.array([tuple(phases).index(photo.phase) for photo in photos])
    grouped = tuple(_with_groups(photos, thumbnails, source.duplicate_correlation))
    return Cohort(
        tuple(phases),
        grouped,
        labels,
        torch.stack(plain),
        torch.stack(augmented),
        thumbnails,
        source.duplicate_correlation,
    )


def patient_folds(cohort: Cohort, *, folds: int, seed: int, repeats: int = 1) -> tuple[Fold, ...]:
    """Split groups of patients into folds with about as many images of each phase (stratified), `repeats` times.

    Raises:
        UserError: a phase has fewer groups of patients than there are folds.
    """
    groups = np.array(cohort.groups)
    for index, phase in enumerate(cohort.phases):
        count = len(set(groups[cohort.labels == index]))
        if count < 2 * folds:
            raise UserError(
                f"effect.folds: phase {phase} has {count} groups of patients, and {folds} folds need two each or more; "
                "take fewer folds or leave the phase out"
            )
    found: list[Fold] = []
    for repeat in range(repeats):
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed + repeat)
        sides = splitter.split(np.zeros((len(groups), 1)), cohort.labels, groups)
        found += [Fold(len(found) + index, train, test, repeat) for index, (train, test) in enumerate(sides, start=1)]
    return tuple(found)


def _with_groups(photos: Sequence[Photo], thumbnails: NDArray[np.float32], duplicate_correlation: float) -> list[Photo]:
    """Return the photos with groups that join patients, the data set's groups, and near-duplicates of any phase."""
    pairs = near_duplicate_pairs(thumbnails, min_correlation=duplicate_correlation)
    joined = group_patients([photo.group or photo.patient for photo in photos], pairs)
    photos = [replace(photo, group=group) for photo, group in zip(photos, joined, strict=True)]
    return [replace(photo, group=group) for photo, group in zip(photos, joined_groups(photos), strict=True)]


def augmented_views(pictures: Tensor, augmentation: Augmentation, *, views: int) -> Tensor:
    """Return augmented views of finished images, uint8 (n, 3, H, W) -> (n, V, 3, H, W); equal images, equal views."""

    def one(picture: Pixels, number: int) -> Tensor:
        first = int(hashlib.sha256(picture.tobytes()).hexdigest()[:8], 16)
        shown = view(picture, None, size_px=len(picture), augmentation=augmentation, seed=first + number)
        return rotated(torch.tensor(shown).permute(2, 0, 1), number)  # HWC => CHW

    rows = np.ascontiguousarray(pictures.permute(0, 2, 3, 1).numpy())  # NCHW => NHWC
    return torch.stack([torch.stack([one(picture, number) for number in range(views)]) for picture in rows])


def rotated(picture: Tensor, quarters: int) -> Tensor:
    """Rotate by quarter turns: a wound has no upright position."""
    return torch.rot90(picture, quarters, (1, 2))
