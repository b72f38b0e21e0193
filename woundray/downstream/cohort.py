"""The photographs of an effect's measurement, and their folds of patients."""

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
        photos: each with the group of patients that it can not be parted from.
        labels: (N,), places in `phases`.
        plain: uint8 (N, 3, H, W), what a classifier is tested on.
        views: uint8 (N, V, 3, H, W), augmented.
        thumbnails: (N, d), for near-duplicates.
        duplicate_correlation: of thumbnails from which they are near-duplicates.
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
        """The group of each photograph: patients, and all who share a near-duplicate with them."""
        return [photo.group for photo in self.photos]

    @property
    def patients(self) -> int:
        """Groups of patients, which are what a study has many or few of."""
        return len(set(self.groups))


@dataclass(frozen=True)
class Fold:
    """Rows of a cohort; `number` counts from 1, `deal` from 0: how often the patients were dealt anew before."""

    number: int
    train: Rows
    test: Rows
    deal: int = 0

    def seeds(self, each: int) -> slice:
        """Rows of its deal in a table of predictions, where a deal has `each` seeds."""
        return slice(self.deal * each, (self.deal + 1) * each)


def gather(source: ImageSource, phases: Sequence[str], *, views: int) -> Cohort:
    """All photographs of the phases, with `views` augmented views of each that depend on the photograph alone.

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
        augmented.append(torch.stack([turned(source.view(photo, first + number), number) for number in range(views)]))
    thumbnails = np.stack([thumbnail(picture.permute(1, 2, 0).numpy()) for picture in plain])  # CHW => HWC
    labels = np.array([tuple(phases).index(photo.phase) for photo in photos])
    grouped = tuple(_grouped(photos, thumbnails, source.duplicate_correlation))
    pictures = torch.stack(plain), torch.stack(augmented)
    return Cohort(tuple(phases), grouped, labels, *pictures, thumbnails, source.duplicate_correlation)


def patient_folds(cohort: Cohort, *, folds: int, seed: int, repeats: int = 1) -> tuple[Fold, ...]:
    """Deals groups of patients to folds that have about as many pictures of each phase, `repeats` times over.

    Raises:
        UserError: a phase has fewer groups of patients than there are folds.
    """
    groups = np.array(cohort.groups)
    for place, phase in enumerate(cohort.phases):
        count = len(set(groups[cohort.labels == place]))
        if count < 2 * folds:
            raise UserError(
                f"effect.folds: phase {phase} has {count} groups of patients, and {folds} folds want two each or more; "
                "take fewer folds or leave the phase out"
            )
    found: list[Fold] = []
    for deal in range(repeats):
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed + deal)
        sides = splitter.split(np.zeros((len(groups), 1)), cohort.labels, groups)
        found += [Fold(len(found) + place, train, test, deal) for place, (train, test) in enumerate(sides, start=1)]
    return tuple(found)


def _grouped(photos: Sequence[Photo], thumbnails: NDArray[np.float32], duplicate_correlation: float) -> list[Photo]:
    """The photos with groups that join patients, the data set's own groups, and near-duplicates of any phase."""
    pairs = near_duplicate_pairs(thumbnails, min_correlation=duplicate_correlation)
    joined = group_patients([photo.group or photo.patient for photo in photos], pairs)
    photos = [replace(photo, group=group) for photo, group in zip(photos, joined, strict=True)]
    return [replace(photo, group=group) for photo, group in zip(photos, joined_groups(photos), strict=True)]


def views_of(pictures: Tensor, augmentation: Augmentation, *, views: int) -> Tensor:
    """As `gather`'s, of finished pictures: uint8 (n, 3, H, W) -> (n, V, 3, H, W); equal pictures have equal views."""

    def one(picture: Pixels, number: int) -> Tensor:
        first = int(hashlib.sha256(picture.tobytes()).hexdigest()[:8], 16)
        shown = view(picture, None, size_px=len(picture), augmentation=augmentation, seed=first + number)
        return turned(torch.tensor(shown).permute(2, 0, 1), number)  # HWC => CHW

    rows = np.ascontiguousarray(pictures.permute(0, 2, 3, 1).numpy())  # NCHW => NHWC
    return torch.stack([torch.stack([one(picture, number) for number in range(views)]) for picture in rows])


def turned(picture: Tensor, quarters: int) -> Tensor:
    """Turned by quarters: a wound has no upright position."""
    return torch.rot90(picture, quarters, (1, 2))
