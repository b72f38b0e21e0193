"""Records of a data set: one a picture."""

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path

PHASES = ("I", "P", "R")
PREPARED_FROM = "prepared_from.txt"
"""In a data set that `prepare` makes: the raw folder that it is made of. It is there before the manifest."""
MANIFEST = "manifest.csv"

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Photo:
    """One picture.

    Attributes:
        path: relative to the data set's folder.
        box: xmin, ymin, xmax, ymax of the wound, px of the picture; None: not known.
        sha256: of the file.
        group: patients of one group share near-duplicates: they stay on one side of a split.
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
    """A picture that is still to be opened.

    Attributes:
        place: where it is named: a line of a table, or its file.
        named: its patient is; else it stands for a patient of its own.
    """

    photo: Photo
    place: str
    named: bool = True


@dataclass(frozen=True)
class LeftOut:
    """A picture, or the row of a table, that is not used, and why."""

    path: Path
    reason: str
    is_row: bool = False


@dataclass(frozen=True)
class Dataset:
    """All pictures of a folder; `notes`: what was done to read them, a line each."""

    root: Path
    photos: tuple[Photo, ...]
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = field(default=(), compare=False)

    def of_phase(self, phase: str) -> "Dataset":
        """The pictures of one phase."""
        return replace(self, photos=tuple(photo for photo in self.photos if photo.phase == phase))

    @property
    def content_hash(self) -> str:
        """Changes with every picture, box, phase and group; not with the folder's place."""
        rows = sorted(f"{photo.sha256} {photo.phase} {photo.box} {photo.group}" for photo in self.photos)
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()
