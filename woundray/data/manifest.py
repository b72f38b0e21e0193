"""Read a data set from `manifest.csv`, one row per image, or from one folder per phase; write `manifest.csv`."""

import csv
import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from woundray.config.data import DataConfig, SimilarPatients
from woundray.data.dataset import MANIFEST, PHASES, PREPARED_FROM, Box, Candidate, Dataset, LeftOut, Photo
from woundray.data.deduplicate import Scene, copy_reason, deduplicate, note_contradictions
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

_MAX_LOGGED = 10

logger = logging.getLogger(__name__)


def write_manifest(dataset: Dataset) -> None:
    """Write `manifest.csv` into the folder of the data set, atomically."""
    names = [field.name for field in fields(Photo) if field.name != "box"]
    with atomic_path(dataset.root / MANIFEST) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
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
    """Read a folder with `manifest.csv` (at least columns path, phase, patient), or `I/`, `P/`, `R/`, or `rgb/I/` ...

    Images and rows that can not be used, and exact copies, are left out and logged. Patients of near-duplicates become
    one group.

    Args:
        similar_patients: handling of patients with similar names (see `woundray.data.patient_names`).
        duplicate_correlation: threshold of near-duplicates (see `woundray.data.duplicates`).

    Raises:
        UserError: no such folder, raw photographs, or no images; similar names that are refused; a manifest with a
            missing column, an unknown phase, an image twice, or no usable row.
    """
    if not root.is_dir():
        raise UserError(f"--data: {root} is no folder; give the one that `woundray prepare` wrote")
    notes = Notes()
    manifest = _find_manifest(root)
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
            photo, scene = _check_image(root, candidate.photo, max_pixels, notes)
        except PhotoError as error:
            left_out.append(LeftOut(candidate.photo.path, str(error)))
        else:
            photos.append(photo)
            scenes.append(scene)
    result = deduplicate(photos, scenes, duplicate_correlation=duplicate_correlation)
    for first, second in result.across:
        notes.add("near-duplicates of different patients, who stay on one side", f"{first.path} and {second.path}")
    note_contradictions(result, notes)
    left_out += [LeftOut(copy.path, f"{copy.path}: {copy_reason(copy, original)}") for copy, original in result.copies]
    _log_summary(root, left_out, len(result.photos) + len(left_out), notes)
    return Dataset(root, result.photos, tuple(left_out), notes.lines())


def _log_summary(root: Path, left_out: Sequence[LeftOut], total: int, notes: Notes) -> None:
    """Log the images that were left out, and the notes."""
    if left_out:
        logger.warning("%d of %d pictures left out, such as %s", len(left_out), total, left_out[0].reason)
    for item in left_out[1:_MAX_LOGGED]:
        logger.warning("left out, too: %s", item.reason)
    if len(left_out) > _MAX_LOGGED:
        logger.warning("all of them: `python -m woundray.doctor --data %s --json`", root)
    for line in notes.lines():
        logger.warning("%s: %s", root, line)


def read_configured_dataset(root: Path, data: DataConfig) -> Dataset:
    """Read a data set with the options of the configuration (see `read_dataset`)."""
    return read_dataset(
        root,
        max_pixels=data.max_pixels,
        similar_patients=data.similar_patients,
        duplicate_correlation=data.duplicate_correlation,
    )


def none_of_phase(dataset: Dataset, phase: str) -> str:
    """Return the message about a data set without photographs of a phase, with an example of what was left out."""
    why = (
        f"; left out was {dataset.left_out[0].reason}"
        if dataset.left_out
        else "; give photographs of it, or another --phase"
    )
    return f"{dataset.root}: no photograph of phase {phase}{why}"


def _find_manifest(root: Path) -> Path | None:
    """Return the path of `manifest.csv`, in any case, or None. Raises UserError for a workbook in its place."""
    files = {path.name: path for path in root.iterdir() if path.is_file()}
    for name in sorted(files, key=lambda name: (name != MANIFEST, name)):
        if name.casefold() == MANIFEST:
            return files[name]
    for name, path in files.items():
        if name.casefold() in ("manifest.xlsx", "manifest.xls", "manifest.ods", "manifest.numbers"):
            raise UserError(f"--data: {path} is a workbook; save the table as CSV UTF-8, {root / MANIFEST}")
    return None


def _with_canonical_names(
    candidates: list[Candidate], similar: SimilarPatients, source: Path, notes: Notes
) -> list[Candidate]:
    """Replace similar names of patients and groups, according to `similar`.

    Args:
        source: manifest or folder, for the message.
    """
    for column in ("patient", "group"):
        locations: dict[str, str] = {}
        for item in candidates:
            if item.has_patient and (name := getattr(item.photo, column)):
                locations.setdefault(name, item.location)
        try:
            canonical = canonical_names(locations, similar, column)
        except UserError as error:
            raise UserError(f"{source}: {error}") from None
        for name, first in canonical.items():
            notes.add(f"{column} {name} is read as {column} {first} (data.similar_patients)")
        candidates = [_renamed(item, column, canonical) for item in candidates]
    return candidates


def _renamed(item: Candidate, column: str, canonical: Mapping[str, str]) -> Candidate:
    """Return the candidate with the canonical name of its patient or group."""
    name = getattr(item.photo, column)
    if not item.has_patient or name not in canonical:
        return item
    changes: dict[str, Any] = {column: canonical[name]}
    return replace(item, photo=replace(item.photo, **changes))


def _check_image(root: Path, photo: Photo, max_pixels: int, notes: Notes) -> tuple[Photo, Scene]:
    """Open an image: return its record with file hash, clipped box and group, and its scene.

    Raises:
        PhotoError: it can not be used.
    """
    path = root / photo.path
    if path.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
        raise PhotoError(f"{path}: a link that leaves the data set's folder; put the picture itself there")
    loaded = open_photo(path, notes, max_pixels=max_pixels)
    height, width = loaded.pixels.shape[:2]
    box = photo.box
    if box is not None:
        box = (max(box[0], 0), max(box[1], 0), min(box[2], width), min(box[3], height))
        if box[2] - box[0] < 2 or box[3] - box[1] < 2:
            raise PhotoError(f"{path}: its box {photo.box} lies outside the picture of {width} x {height} px")
        if loaded.turned:
            notes.add(TURNED, photo.path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    photo = replace(photo, box=box, sha256=digest, group=photo.group or photo.patient)
    return photo, Scene.of(loaded.pixels, box)


def _text(value: object) -> str:
    """Return a cell of the manifest."""
    return value.as_posix() if isinstance(value, Path) else str(value)
