"""Deduplicate a data set: leave out exact copies, and join the patients of near-duplicates into one group."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from woundray.data.dataset import Box, Photo
from woundray.data.duplicates import DUPLICATE_CORRELATION, group_patients, near_duplicate_pairs, thumbnail
from woundray.data.notes import Notes

Pixels = NDArray[np.uint8]

CONTEXT = 0.5  # margin of a scene on each side of the box, share of the box
MIN_HALF_SIDE_PX = 32  # of a scene around a small box


@dataclass(frozen=True)
class Scene:
    """Hashes of an image's pixels, and a thumbnail of the wound and its surroundings, to compare images.

    Attributes:
        pixels_sha256: hash of the image's pixels.
        photograph_sha256: hash of the photograph that the image was cropped from; that of the image, if it was not.
        thumbnail: see `woundray.data.duplicates.thumbnail`.
    """

    pixels_sha256: str
    photograph_sha256: str
    thumbnail: NDArray[np.float32]

    @classmethod
    def of(cls, picture: Pixels, box: Box | None, photograph: Pixels | None = None) -> "Scene":
        """Return the scene of an image.

        Args:
            picture: uint8 HWC RGB.
            box: wound; None: the scene is the whole image.
            photograph: uint8 HWC RGB, if the image was cropped from it.
        """
        left, top, right, bottom = context_square(box, picture.shape[1], picture.shape[0])
        small = thumbnail(picture[top:bottom, left:right])
        sha256 = pixels_sha256(picture)
        return cls(sha256, sha256 if photograph is None else pixels_sha256(photograph), small)


def pixels_sha256(picture: Pixels) -> str:
    """Return the hash of the pixels of an image, uint8 HWC RGB, independent of its file."""
    return hashlib.sha256(f"{picture.shape} ".encode() + np.ascontiguousarray(picture).tobytes()).hexdigest()


def context_square(box: Box | None, width: int, height: int) -> Box:
    """Return a square around the box with the margin CONTEXT on each side, clipped to the image.

    Its half side is at least MIN_HALF_SIDE_PX. Without a box it is the whole image.
    """
    if box is None:
        return 0, 0, width, height
    half = max(max(box[2] - box[0], box[3] - box[1]) * (0.5 + CONTEXT), MIN_HALF_SIDE_PX)
    middle_x, middle_y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return (
        max(0, round(middle_x - half)),
        max(0, round(middle_y - half)),
        min(width, round(middle_x + half)),
        min(height, round(middle_y + half)),
    )


@dataclass(frozen=True)
class Deduplicated:
    """Photographs without exact copies, with their groups.

    Attributes:
        photos: each with its group.
        copies: pairs of an exact copy that was left out, and the original that is kept.
        across: pairs of near-duplicates of different groups, which now are one group.
        contradictions: pairs with the same pixels and box, but different phases.
    """

    photos: tuple[Photo, ...]
    copies: tuple[tuple[Photo, Photo], ...] = ()
    across: tuple[tuple[Photo, Photo], ...] = ()
    contradictions: tuple[tuple[Photo, Photo], ...] = ()


def deduplicate(
    photos: Sequence[Photo], scenes: Sequence[Scene], *, duplicate_correlation: float = DUPLICATE_CORRELATION
) -> Deduplicated:
    """Join the groups of near-duplicates, and keep one of several images with the same pixels, box and phase.

    The same pixels with different boxes are several wounds in one photograph; with different phases they are a
    contradiction. All of these are kept, in one group.
    """
    if not photos:
        return Deduplicated(())
    pairs = near_duplicate_pairs(np.stack([scene.thumbnail for scene in scenes]), min_correlation=duplicate_correlation)
    same: dict[str, list[int]] = defaultdict(list)
    for index, scene in enumerate(scenes):
        same[scene.photograph_sha256].append(index)
    pairs = sorted({*pairs, *(pair for rows in same.values() for pair in combinations(rows, 2))})
    groups = group_patients([photo.group for photo in photos], pairs)

    originals = _originals(photos, scenes)
    kept = [index for index, original in enumerate(originals) if index == original]
    copies = [(photos[index], photos[original]) for index, original in enumerate(originals) if index != original]
    kept_pairs = [(i, j) for i, j in pairs if originals[i] == i and originals[j] == j]
    return Deduplicated(
        tuple(replace(photos[index], group=groups[index]) for index in kept),
        tuple(copies),
        tuple((photos[i], photos[j]) for i, j in kept_pairs if photos[i].group != photos[j].group),
        tuple((photos[i], photos[j]) for i, j in kept_pairs if _contradict(i, j, photos, scenes)),
    )


def note_contradictions(result: Deduplicated, notes: Notes) -> None:
    """Add notes on images with two phases."""
    for first, second in result.contradictions:
        notes.add("one picture under two phases, keep the right one", f"{first.path} and {second.path}")


def _originals(photos: Sequence[Photo], scenes: Sequence[Scene]) -> list[int]:
    """Return for each image the index of its original: of equal ones that with the shortest name, as `a.png`."""
    same: dict[tuple[str, Box | None, str], list[int]] = defaultdict(list)
    keys = [(scene.pixels_sha256, photo.box, photo.phase) for photo, scene in zip(photos, scenes, strict=True)]
    for index, key in enumerate(keys):
        same[key].append(index)
    first = {
        key: min(rows, key=lambda row: (len(photos[row].path.name), str(photos[row].path)))
        for key, rows in same.items()
    }
    return [first[key] for key in keys]


def copy_reason(copy: Photo, original: Photo, path: Path | None = None) -> str:
    """Return the reason for leaving out a copy.

    Args:
        path: path of the original to name, instead of its path in the data set.
    """
    other = "" if copy.patient == original.patient else f", of patient {original.patient} there"
    return f"exact copy: {(path or original.path).as_posix()} is the same picture{other}"


def _contradict(i: int, j: int, photos: Sequence[Photo], scenes: Sequence[Scene]) -> bool:
    """Return whether two images have the same pixels and box, but different phases."""
    same = scenes[i].pixels_sha256 == scenes[j].pixels_sha256 and photos[i].box == photos[j].box
    return same and photos[i].phase != photos[j].phase
