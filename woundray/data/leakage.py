"""Leakage check: training and test sides must share no patient, group, image or near-duplicate.

It looks at the photographs alone, and does not rely on how sides and groups were made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from woundray.config.data import DataConfig, SimilarPatients
from woundray.data.dataset import Photo
from woundray.data.deduplicate import Scene
from woundray.data.duplicates import DUPLICATE_CORRELATION, similar_pairs
from woundray.data.patient_names import patient_key
from woundray.errors import UserError

if TYPE_CHECKING:
    from woundray.data.image_source import ImageSource
    from woundray.data.split import Split

_TOLERANCE = 1e-3  # added to the threshold of the groups: sums in another order differ in their last digits
_SHOWN = 3


class LeakError(UserError):
    """A patient or an image is on both sides; the message names photographs, and how to correct it."""


@dataclass(frozen=True)
class PhotoScene:
    """Photograph and its scene."""

    photo: Photo
    scene: Scene


@dataclass(frozen=True)
class Leak:
    """Pair of photographs, one of each side, with the same patient, group or scene."""

    kind: Literal["patient", "group", "copy", "near-duplicate"]
    train: Photo
    test: Photo

    def __str__(self) -> str:
        shared = {
            "patient": f"are of patient {self.train.patient}"
            + ("" if self.train.patient == self.test.patient else f", also called {self.test.patient}"),
            "group": f"are of group {self.train.group}",
            "copy": "are the same picture",
            "near-duplicate": "are near-duplicates",
        }[self.kind]
        return f"{self.train.path.as_posix()} and {self.test.path.as_posix()} {shared}"


def find_leaks(
    train: Sequence[PhotoScene],
    test: Sequence[PhotoScene],
    *,
    similar_patients: SimilarPatients = "refuse",
    duplicate_correlation: float | None = DUPLICATE_CORRELATION,
) -> Iterator[Leak]:
    """Yield the pairs of photographs of two sides that share a patient, a group, their pixels, or a scene.

    Args:
        similar_patients: with `apart` only equal names are one patient, else also similar ones (see `patient_key`).
        duplicate_correlation: threshold of near-duplicates (see `woundray.data.duplicates`); None: not checked.
    """
    patient = _exact_patient if similar_patients == "apart" else _normalised_patient
    yield from _sharing("patient", train, test, lambda item: patient(item.photo))
    yield from _sharing("group", train, test, lambda item: item.photo.group)
    yield from _sharing("copy", train, test, lambda item: item.scene.pixels_sha256)
    if duplicate_correlation is not None and train and test:
        first, second = (np.stack([item.scene.thumbnail for item in side]) for side in (train, test))
        for i, j in similar_pairs(first, second, min_correlation=duplicate_correlation + _TOLERANCE):
            yield Leak("near-duplicate", train[i].photo, test[j].photo)


def refuse_split_leaks(split: Split, source: ImageSource, data: DataConfig) -> None:
    """Raise LeakError if the sides of a split share a patient, a group, an image or a near-duplicate.

    Near-duplicates of drawn wounds (no data.root) are not checked: they are known to be of different patients.
    """
    if not split.validation:
        return
    sides = (
        [PhotoScene(photo, Scene.of(source.pixels[photo.path], photo.box)) for photo in side] for side in _sides(split)
    )
    drawn = data.root is None
    duplicate_correlation = None if drawn else data.duplicate_correlation
    leaks = list(
        find_leaks(*sides, similar_patients=data.similar_patients, duplicate_correlation=duplicate_correlation)
    )
    if leaks:
        shown = "; ".join(str(leak) for leak in leaks[:_SHOWN])
        raise LeakError(
            f"{data.root or 'drawn wounds'}: {len(leaks)} pairs of photographs stand on both sides of the split, such "
            f"as {shown}; give both one patient or one group in manifest.csv"
        )


def _sides(split: Split) -> tuple[Sequence[Photo], Sequence[Photo]]:
    return split.train, split.validation


def _sharing(
    kind: Literal["patient", "group", "copy"],
    train: Sequence[PhotoScene],
    test: Sequence[PhotoScene],
    key: Callable[[PhotoScene], str],
) -> Iterator[Leak]:
    """Yield each training photograph with the first test photograph of the same key; empty keys are ignored."""
    first: dict[str, Photo] = {}
    for item in test:
        first.setdefault(key(item), item.photo)
    for item in train:
        if key(item) and key(item) in first:
            yield Leak(kind, item.photo, first[key(item)])


def _exact_patient(photo: Photo) -> str:
    return photo.patient


def _normalised_patient(photo: Photo) -> str:
    """Return the key of the patient's name; an image that counts as a patient of its own keeps its path."""
    return photo.patient if photo.patient == photo.path.as_posix() else patient_key(photo.patient)
