"""Whether two sides share a patient or a picture, told by the photographs alone: how sides and groups came about is not
taken for granted."""

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

_SLACK = 1e-3  # above the likeness that groups are made by: sums in another order differ in their last digits
_SHOWN = 3


class LeakError(UserError):
    """A patient or a picture stands on both sides; the message names photographs and the mend."""


@dataclass(frozen=True)
class PhotoWithScene:
    """A photograph that is used, and what it shows."""

    photo: Photo
    scene: Scene


@dataclass(frozen=True)
class Leak:
    """Two photographs, one of each side, that share what the sides must not."""

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
    train: Sequence[PhotoWithScene],
    test: Sequence[PhotoWithScene],
    *,
    similar_patients: SimilarPatients = "refuse",
    duplicate_correlation: float | None = DUPLICATE_CORRELATION,
) -> Iterator[Leak]:
    """Pairs of photographs that two sides must not have: of one patient, one group, the same pixels, or one scene.

    Args:
        similar_patients: with `apart` only equal names are one patient, else similar ones, too (see `patient_key`).
        duplicate_correlation: of near-duplicates (see `woundray.data.duplicates`); None: they are not looked for.
    """
    name = _exact if similar_patients == "apart" else _similar
    yield from _sharing("patient", train, test, lambda seen: name(seen.photo))
    yield from _sharing("group", train, test, lambda seen: seen.photo.group)
    yield from _sharing("copy", train, test, lambda seen: seen.scene.pixels_sha256)
    if duplicate_correlation is not None and train and test:
        first, second = (np.stack([seen.scene.thumbnail for seen in side]) for side in (train, test))
        for i, j in similar_pairs(first, second, duplicate_correlation=duplicate_correlation + _SLACK):
            yield Leak("near-duplicate", train[i].photo, test[j].photo)


def refuse_leaks(split: Split, source: ImageSource, data: DataConfig) -> None:
    """Raises LeakError where the sides of a split share a patient, group or picture of those that are used.

    Drawn wounds (no data.root) may look alike: they are known to be of different patients, so near-duplicates of them
    are not looked for.
    """
    if not split.validation:
        return
    sides = (
        [PhotoWithScene(photo, Scene.of(source.pixels[photo.path], photo.box)) for photo in side]
        for side in _sides(split)
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
    train: Sequence[PhotoWithScene],
    test: Sequence[PhotoWithScene],
    key: Callable[[PhotoWithScene], str],
) -> Iterator[Leak]:
    """Each training photograph with the first of the test side that has its key; an empty key is none."""
    first: dict[str, Photo] = {}
    for seen in test:
        first.setdefault(key(seen), seen.photo)
    for seen in train:
        if key(seen) and key(seen) in first:
            yield Leak(kind, seen.photo, first[key(seen)])


def _exact(photo: Photo) -> str:
    return photo.patient


def _similar(photo: Photo) -> str:
    """A file that stands for a patient has no name that could be written in several ways."""
    return photo.patient if photo.patient == photo.path.as_posix() else patient_key(photo.patient)
