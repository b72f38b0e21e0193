"""Records of a data set: photographs, candidates, and images that were left out."""

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path

PHASES = ("I", "P", "R")
PREPARED_FROM = "prepared_from.txt"
"""File in a prepared data set that names its raw folder; written before the manifest."""
MANIFEST = "manifest.csv"

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Photo:
    """One image of a data set.

    Attributes:
        path: relative to the folder of the data set.
        box: xmin, ymin, xmax, ymax of the wound, px; None: not known.
        sha256: hash of the file.
        group: patients who share near-duplicates are one group, which stays on one side of a split.
    """

    path: Path
    phase: str
    patient: str
    visit: int = 1
    ulcer: int = 1
    box: Box | None = None
    sha256: str = ""
    group: str = ""
    camera: str = ""
    angle: str = ""
    view: str = ""
    debridement: str = ""


@dataclass(frozen=True)
class Candidate:
    """Image of a table or folder that has not been opened yet.

    Attributes:
        location: where it is listed: `line 3` of a table, or its path.
        has_patient: whether its patient is known; else it counts as a patient of its own.
    """

    photo: Photo
    location: str
    has_patient: bool = True


@dataclass(frozen=True)
class LeftOut:
    """Image, or row of a table, that is not used, and the reason."""

    path: Path
    reason: str
    is_row: bool = False


@dataclass(frozen=True)
class Dataset:
    """All images of a folder. `notes`: how they were read, one line each."""

    root: Path
    photos: tuple[Photo, ...]
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = field(default=(), compare=False)

    def of_phase(self, phase: str) -> "Dataset":
        """Return the data set with the images of one phase only."""
        return replace(self, photos=tuple(photo for photo in self.photos if photo.phase == phase))

    @property
    def content_hash(self) -> str:
        """Hash of all images, boxes, phases and groups; independent of the folder's path."""
        rows = sorted(f"{photo.sha256} {photo.phase} {photo.box} {photo.group}" for photo in self.photos)
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()
