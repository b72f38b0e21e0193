"""The scene of each picture: by it copies are left out, and patients of near-duplicates become one group."""

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

Pixels = NDArray[np.uint8]

CONTEXT = 0.5  # surroundings that belong to a scene on each side of a box, share of the box
LEAST_HALF_PX = 32  # of a scene around a small box


@dataclass(frozen=True)
class Scene:
    """Hashes of a picture's pixels, and a thumbnail of the wound and its surroundings, by which pictures are compared.

    photograph_sha256: of the pixels of the photograph that the picture was cut from, or of the picture itself.
    """

    pixels_sha256: str
    photograph_sha256: str
    thumbnail: NDArray[np.float32]

    @classmethod
    def of(cls, picture: Pixels, box: Box | None, photograph: Pixels | None = None) -> "Scene":
        """Of uint8 HWC RGB, and its photograph where it was cut from one; without a box of all of it."""
        left, top, right, bottom = context_square(box, picture.shape[1], picture.shape[0])
        small = thumbnail(picture[top:bottom, left:right])
        sha256 = pixels_sha256(picture)
        return cls(sha256, sha256 if photograph is None else pixels_sha256(photograph), small)


def pixels_sha256(picture: Pixels) -> str:
    """Of uint8 HWC RGB: equal for the same pixels, whatever file they came from."""
    return hashlib.sha256(f"{picture.shape} ".encode() + np.ascontiguousarray(picture).tobytes()).hexdigest()


def context_square(box: Box | None, width: int, height: int) -> Box:
    """A square around the box with CONTEXT on each side, as far as the picture goes; without a box all of it.

    Around a small box there is more, so that no side gets under LEAST_HALF_PX.
    """
    if box is None:
        return 0, 0, width, height
    half = max(max(box[2] - box[0], box[3] - box[1]) * (0.5 + CONTEXT), LEAST_HALF_PX)
    middle_x, middle_y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return (
        max(0, round(middle_x - half)),
        max(0, round(middle_y - half)),
        min(width, round(middle_x + half)),
        min(height, round(middle_y + half)),
    )


@dataclass(frozen=True)
class Deduplicated:
    """Photographs with their groups, without copies.

    Attributes:
        photos: each with its group.
        copies: what was left out as a copy, and what stays for it.
        across: pairs of photos of different groups that are of one scene, and are one group now.
        contradictions: pairs of photos of the same pixels and box, and of different phases.
    """

    photos: tuple[Photo, ...]
    copies: tuple[tuple[Photo, Photo], ...] = ()
    across: tuple[tuple[Photo, Photo], ...] = ()
    contradictions: tuple[tuple[Photo, Photo], ...] = ()


def deduplicate(
    photos: Sequence[Photo], scenes: Sequence[Scene], *, duplicate_correlation: float = DUPLICATE_CORRELATION
) -> Deduplicated:
    """Joins the groups of near-duplicates, and leaves out all but one of several pictures with the same pixels and box.

    Same pixels with other boxes are several wounds in one photograph, and with other phases a contradiction: all of
    them stay, in one group.
    """
    if not photos:
        return Deduplicated(())
    pairs = near_duplicate_pairs(
        np.stack([scene.thumbnail for scene in scenes]), duplicate_correlation=duplicate_correlation
    )
    same: dict[str, list[int]] = defaultdict(list)
    for index, scene in enumerate(scenes):
        same[scene.photograph_sha256].append(index)
    pairs = sorted({*pairs, *(pair for rows in same.values() for pair in combinations(rows, 2))})
    groups = group_patients([photo.group for photo in photos], pairs)

    originals = _originals(photos, scenes)
    kept = [index for index, original in enumerate(originals) if index == original]
    copies = [(photos[index], photos[original]) for index, original in enumerate(originals) if index != original]
    both = [(i, j) for i, j in pairs if originals[i] == i and originals[j] == j]
    return Deduplicated(
        tuple(replace(photos[index], group=groups[index]) for index in kept),
        tuple(copies),
        tuple((photos[i], photos[j]) for i, j in both if photos[i].group != photos[j].group),
        tuple((photos[i], photos[j]) for i, j in both if _contradict(i, j, photos, scenes)),
    )


def _originals(photos: Sequence[Photo], scenes: Sequence[Scene]) -> list[int]:
    """Of each picture the one that stays for it: that of the shortest name, `a.png` and not `a (1).png`."""
    same: dict[tuple[str, Box | None, str], list[int]] = defaultdict(list)
    keys = [(scene.pixels_sha256, photo.box, photo.phase) for photo, scene in zip(photos, scenes, strict=True)]
    for index, key in enumerate(keys):
        same[key].append(index)
    first = {
        key: min(rows, key=lambda row: (len(photos[row].path.name), str(photos[row].path)))
        for key, rows in same.items()
    }
    return [first[key] for key in keys]


def copy_of(copy: Photo, original: Photo, path: Path | None = None) -> str:
    """Reason that a copy is left out; path: of the original."""
    other = "" if copy.patient == original.patient else f", of patient {original.patient} there"
    return f"exact copy: {(path or original.path).as_posix()} is the same picture{other}"


def _contradict(i: int, j: int, photos: Sequence[Photo], scenes: Sequence[Scene]) -> bool:
    same = scenes[i].pixels_sha256 == scenes[j].pixels_sha256 and photos[i].box == photos[j].box
    return same and photos[i].phase != photos[j].phase
