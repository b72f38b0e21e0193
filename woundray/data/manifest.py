"""A data set: one row a picture, in `manifest.csv` or as a folder a phase."""

import csv
import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from woundray.config.data import DataConfig, SimilarPatients
from woundray.data.dataset import MANIFEST, PHASES, PREPARED_FROM, Box, Candidate, Dataset, LeftOut, Photo
from woundray.data.deduplicate import Scene, copy_of, deduplicate
from woundray.data.duplicates import DUPLICATE_CORRELATION
from woundray.data.image_files import MAX_PIXELS, TURNED, PhotoError, open_photo
from woundray.data.manifest_rows import read_manifest
from woundray.data.notes import Notes
from woundray.data.patient_names import canonical_names
from woundray.data.phase_folders import read_phase_folders
from woundray.errors import UserError
from woundray.system.atomic_files import atomic_path

__all__ = [
    "MANIFEST",
    "PHASES",
    "Box",
    "Dataset",
    "LeftOut",
    "Photo",
    "read_configured_dataset",
    "read_dataset",
    "write_manifest",
]

_MOST_TOLD = 10

logger = logging.getLogger(__name__)


def write_manifest(dataset: Dataset) -> None:
    """Writes `manifest.csv` into the data set's folder, beside and renamed into place."""
    names = [field.name for field in fields(Photo) if field.name != "box"]
    with atomic_path(dataset.root / MANIFEST) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*names, "xmin", "ymin", "xmax", "ymax"])
        for photo in dataset.photos:
            writer.writerow([*(_text(getattr(photo, name)) for name in names), *(photo.box or ("",) * 4)])


def read_dataset(
    root: Path,
    *,
    max_pixels: int = MAX_PIXELS,
    similar_patients: SimilarPatients = "refuse",
    duplicate_correlation: float = DUPLICATE_CORRELATION,
) -> Dataset:
    """Reads a folder with `manifest.csv` (columns path, phase, patient at least), or `I/`, `P/`, `R/`, or `rgb/I/` ...

    A picture or row that can not be used is left out, with a warning. Exact copies are left out, too; patients of
    near-duplicates are one group.

    Args:
        similar_patients: what is done with patients of similar names (see `woundray.data.patient_names`).
        duplicate_correlation: from which two pictures count as near-duplicates (see `woundray.data.duplicates`).

    Raises:
        UserError: no such folder, raw photographs, nothing to read; similar names that are refused; in the manifest a
            missing column, an unknown phase, a picture twice, or not one row that can be used.
    """
    if not root.is_dir():
        raise UserError(f"--data: {root} is no folder; give the one that `woundray prepare` wrote")
    notes = Notes()
    manifest = _manifest_of(root)
    if manifest is None and (root / PREPARED_FROM).is_file():
        raise UserError(f"--data: {root} is not finished: `prepare` was stopped; run it again, with the same folders")
    if manifest is None and (root / "Depth_RGB").is_dir():
        raise UserError(
            f"--data: {root} holds raw photographs; run `python -m woundray.prepare --raw {root} --out DIR`"
        )
    candidates, left_out = read_phase_folders(root, notes) if manifest is None else read_manifest(root, manifest, notes)
    if not candidates:
        why = f"; left out was {left_out[0].reason}" if left_out else ""
        raise UserError(f"--data: {root} has neither {MANIFEST} nor pictures in I/, P/, R/ (or rgb/I/ ...){why}")
    candidates = _with_canonical_names(candidates, similar_patients, manifest or root, notes)

    photos, scenes = [], []
    for candidate in candidates:
        try:
            photo, scene = _checked(root, candidate.photo, max_pixels, notes)
        except PhotoError as error:
            left_out.append(LeftOut(candidate.photo.path, str(error)))
        else:
            photos.append(photo)
            scenes.append(scene)
    result = deduplicate(photos, scenes, duplicate_correlation=duplicate_correlation)
    for first, second in result.across:
        notes.add("near-duplicates of different patients, who stay on one side", f"{first.path} and {second.path}")
    for first, second in result.contradictions:
        notes.add("one picture under two phases, keep the right one", f"{first.path} and {second.path}")
    left_out += [LeftOut(copy.path, f"{copy.path}: {copy_of(copy, original)}") for copy, original in result.copies]
    _tell(root, left_out, len(result.photos) + len(left_out), notes)
    return Dataset(root, result.photos, tuple(left_out), notes.lines())


def _tell(root: Path, left_out: Sequence[LeftOut], total: int, notes: Notes) -> None:
    """Log lines of what was left out and what was done."""
    if left_out:
        logger.warning("%d of %d pictures left out, such as %s", len(left_out), total, left_out[0].reason)
    for item in left_out[1:_MOST_TOLD]:
        logger.warning("left out, too: %s", item.reason)
    if len(left_out) > _MOST_TOLD:
        logger.warning("all of them: `python -m woundray.doctor --data %s --json`", root)
    for line in notes.lines():
        logger.warning("%s: %s", root, line)


def read_configured_dataset(root: Path, data: DataConfig) -> Dataset:
    """`read_dataset` by the settings."""
    return read_dataset(
        root,
        max_pixels=data.max_pixels,
        similar_patients=data.similar_patients,
        duplicate_correlation=data.duplicate_correlation,
    )


def none_of_phase(dataset: Dataset, phase: str) -> str:
    """What is said of a data set without a photograph of a phase: with one that was left out, if there is one."""
    why = (
        f"; left out was {dataset.left_out[0].reason}"
        if dataset.left_out
        else "; give photographs of it, or another --phase"
    )
    return f"{dataset.root}: no photograph of phase {phase}{why}"


def _manifest_of(root: Path) -> Path | None:
    """`manifest.csv`, whatever its case; UserError for a workbook in its place."""
    files = {path.name: path for path in root.iterdir() if path.is_file()}
    for name in sorted(files, key=lambda name: (name != MANIFEST, name)):
        if name.casefold() == MANIFEST:
            return files[name]
    for name, path in files.items():
        if name.casefold() in ("manifest.xlsx", "manifest.xls", "manifest.ods", "manifest.numbers"):
            raise UserError(f"--data: {path} is a workbook; save the table as CSV UTF-8, {root / MANIFEST}")
    return None


def _with_canonical_names(
    candidates: list[Candidate], similar: SimilarPatients, place: Path, notes: Notes
) -> list[Candidate]:
    """Patients and groups of similar names, refused, joined or left apart as `similar` says."""
    for column in ("patient", "group"):
        places: dict[str, str] = {}
        for item in candidates:
            if item.named and (name := getattr(item.photo, column)):
                places.setdefault(name, item.place)
        try:
            settled = canonical_names(places, similar, column)
        except UserError as error:
            raise UserError(f"{place}: {error}") from None
        for name, first in settled.items():
            notes.add(f"{column} {name} is read as {column} {first} (data.similar_patients)")
        candidates = [_renamed(item, column, settled) for item in candidates]
    return candidates


def _renamed(item: Candidate, column: str, settled: Mapping[str, str]) -> Candidate:
    name = getattr(item.photo, column)
    if not item.named or name not in settled:
        return item
    changes: dict[str, Any] = {column: settled[name]}
    return replace(item, photo=replace(item.photo, **changes))


def _checked(root: Path, photo: Photo, max_pixels: int, notes: Notes) -> tuple[Photo, Scene]:
    """The photo with its file's hash, a box inside the picture, and a group; PhotoError if it can not be read."""
    path = root / photo.path
    if path.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
        raise PhotoError(f"{path}: a link that leaves the data set's folder; put the picture itself there")
    reading = open_photo(path, notes, max_pixels=max_pixels)
    height, width = reading.pixels.shape[:2]
    box = photo.box
    if box is not None:
        box = (max(box[0], 0), max(box[1], 0), min(box[2], width), min(box[3], height))
        if box[2] - box[0] < 2 or box[3] - box[1] < 2:
            raise PhotoError(f"{path}: its box {photo.box} lies outside the picture of {width} x {height} px")
        if reading.turned:
            notes.add(TURNED, photo.path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    photo = replace(photo, box=box, sha256=digest, group=photo.group or photo.patient)
    return photo, Scene.of(reading.pixels, box)


def _text(value: object) -> str:
    return value.as_posix() if isinstance(value, Path) else str(value)
