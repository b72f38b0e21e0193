"""A data set: one row a picture, in `manifest.csv` or as a folder a phase."""

import csv
import hashlib
import io
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path, PurePosixPath
from typing import Any

from woundray.data.photos import MAX_PIXELS, SUFFIXES, PhotoError, read_photo
from woundray.errors import UserError

logger = logging.getLogger(__name__)

PHASES = ("I", "P", "R")
MANIFEST = "manifest.csv"

Box = tuple[int, int, int, int]

_REQUIRED = ("path", "phase", "patient")
_PATIENT_IN_NAME = re.compile(r"_P(\d{3})\d{2}\d[BA][DT][MLR][WZ]$")


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
class LeftOut:
    """A picture that is not used, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Dataset:
    """All pictures of a folder."""

    root: Path
    photos: tuple[Photo, ...]
    left_out: tuple[LeftOut, ...] = ()

    def of_phase(self, phase: str) -> "Dataset":
        """The pictures of one phase."""
        return replace(self, photos=tuple(photo for photo in self.photos if photo.phase == phase))

    @property
    def content_hash(self) -> str:
        """Changes with every picture, box, phase and group; not with the folder's place."""
        rows = sorted(f"{photo.sha256} {photo.phase} {photo.box} {photo.group}" for photo in self.photos)
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def write_manifest(dataset: Dataset) -> None:
    """Writes `manifest.csv` into the data set's folder, beside and renamed into place."""
    names = [field.name for field in fields(Photo) if field.name != "box"]
    beside = dataset.root / f".{MANIFEST}.part"
    with beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*names, "xmin", "ymin", "xmax", "ymax"])
        for photo in dataset.photos:
            writer.writerow([*(_text(getattr(photo, name)) for name in names), *(photo.box or ("",) * 4)])
    beside.replace(dataset.root / MANIFEST)


def read_dataset(root: Path, *, max_pixels: int = MAX_PIXELS) -> Dataset:
    """Reads a folder with `manifest.csv` (columns path, phase, patient at least), or `I/`, `P/`, `R/`, or `rgb/I/` ...

    A picture that can not be read or has more than max_pixels is left out, with a warning; mistakes in the manifest
    are errors.

    Raises:
        UserError: no such folder, raw photographs, nothing to read, or a row that names no known phase, misses a
            value, points out of the folder or comes twice.
    """
    if not root.is_dir():
        raise UserError(f"--data: {root} is no folder")
    if (root / MANIFEST).is_file():
        candidates = list(_rows(root))
    elif (root / "Depth_RGB").is_dir():
        raise UserError(
            f"--data: {root} holds raw photographs; run `python -m woundray.prepare --raw {root} --out DIR`"
        )
    else:
        candidates = list(_folders(root))
    if not candidates:
        raise UserError(f"--data: {root} has neither {MANIFEST} nor pictures in I/, P/, R/ (or rgb/I/ ...)")

    photos, left_out = [], []
    for photo in candidates:
        try:
            photos.append(_checked(root, photo, max_pixels))
        except PhotoError as error:
            left_out.append(LeftOut(photo.path, str(error)))
    if left_out:
        logger.warning("%d of %d pictures left out, such as %s", len(left_out), len(candidates), left_out[0].reason)
    return Dataset(root, tuple(photos), tuple(left_out))


def _checked(root: Path, photo: Photo, max_pixels: int) -> Photo:
    """The photo with its file's hash, a box inside the picture, and a group; PhotoError if it can not be read."""
    path = root / photo.path
    if not path.is_file():
        raise PhotoError(f"{path}: no such file")
    if not path.resolve().is_relative_to(root.resolve()):
        raise PhotoError(f"{path}: a link that leaves the data set's folder; put the picture itself there")
    height, width = read_photo(path, max_pixels=max_pixels).shape[:2]
    box = photo.box
    if box is not None:
        box = (max(box[0], 0), max(box[1], 0), min(box[2], width), min(box[3], height))
        if box[2] - box[0] < 2 or box[3] - box[1] < 2:
            raise PhotoError(f"{path}: its box {photo.box} lies outside the picture of {width} x {height} px")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return replace(photo, box=box, sha256=digest, group=photo.group or photo.patient)


def _rows(root: Path) -> Iterator[Photo]:
    path = root / MANIFEST
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not in UTF-8 ({error.reason}); save it again as CSV UTF-8") from None
    with io.StringIO(text, newline="") as file:
        reader = csv.DictReader(file)
        missing = [name for name in _REQUIRED if name not in (reader.fieldnames or ())]
        if missing:
            raise UserError(f"{path}: no column {', '.join(missing)}; a manifest has {', '.join(_REQUIRED)} at least")
        seen: set[Path] = set()
        for row in reader:
            photo = _photo_of(row, f"{path}: line {reader.line_num}")
            if photo.path in seen:
                raise UserError(
                    f"{path}: line {reader.line_num}: path {photo.path} comes twice; keep one row a picture"
                )
            seen.add(photo.path)
            yield photo


def _photo_of(row: Mapping[str, str | None], place: str) -> Photo:
    """A row of a manifest; UserError names the line."""
    values: dict[str, Any] = {}
    for field in fields(Photo):
        text = (row.get(field.name) or "").strip()
        if text:
            values[field.name] = int(text) if field.name in ("visit", "ulcer") and text.isdecimal() else text
    for name in _REQUIRED:
        if name not in values:
            raise UserError(f"{place}: {name} is empty")
    relative = PurePosixPath(str(values["path"]).replace("\\", "/"))
    if relative.is_absolute() or ".." in relative.parts:
        raise UserError(f"{place}: path {relative} leaves the data set's folder; give one relative to it")
    if values["phase"] not in PHASES:
        raise UserError(f"{place}: phase {values['phase']} is not one of {', '.join(PHASES)}")
    for name in ("visit", "ulcer"):
        if not isinstance(values.get(name, 1), int):
            raise UserError(f"{place}: {name} {values[name]} is no whole number")
    return Photo(**{**values, "path": Path(relative), "box": _box_of(row, place)})


def _box_of(row: Mapping[str, str | None], place: str) -> Box | None:
    corners = [(row.get(name) or "").strip() for name in ("xmin", "ymin", "xmax", "ymax")]
    if not any(corners):
        return None
    try:
        xmin, ymin, xmax, ymax = (round(float(corner)) for corner in corners)
    except (ValueError, OverflowError):
        raise UserError(f"{place}: box {', '.join(corners)} is not four numbers; give all of them or none") from None
    return xmin, ymin, xmax, ymax


def _folders(root: Path) -> Iterator[Photo]:
    """Pictures in a folder a phase; the patient from the file name, else each file its own patient."""
    unknown = 0
    for phase in PHASES:
        for folder in (root / "rgb" / phase, root / phase):
            for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
                if path.suffix.lower() not in SUFFIXES or path.is_symlink():
                    continue
                found = _PATIENT_IN_NAME.search(path.stem)
                unknown += found is None
                name = path.relative_to(root)
                yield Photo(name, phase, found[1] if found else name.as_posix())
    if unknown:
        logger.warning(
            "%s: %d file names carry no patient: each counts as a patient of its own; with several pictures of "
            "one patient, give a manifest.csv with path, phase, patient, or scores will be too good",
            root,
            unknown,
        )


def _text(value: object) -> str:
    return value.as_posix() if isinstance(value, Path) else str(value)
