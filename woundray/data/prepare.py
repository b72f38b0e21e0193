"""Prepare a checked data set from the user's raw folder.

Raw: `Depth_RGB/{n}_P{patient:3}{visit:2}{ulcer:1}{B|A}{D|T}{M|L|R}{W|Z}.png` (before or after debridement, depth or
thermal camera, angle, wide or zoomed view), a CSV of the healing phase of each patient, visit and ulcer, and a CSV of
the wounds' boxes.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from woundray.data.dataset import MANIFEST, PHASES, PREPARED_FROM, Box, Dataset, LeftOut, Photo
from woundray.data.deduplicate import Scene, context_square, copy_reason, deduplicate, note_contradictions
from woundray.data.duplicates import DUPLICATE_CORRELATION
from woundray.data.folder_listing import Listing, kinds_of, list_folder, refuse_pictures
from woundray.data.image_files import TURNED, PhotoError, open_photo, write_photo
from woundray.data.manifest import write_manifest
from woundray.data.notes import Notes
from woundray.data.raw_tables import BOX_CSV, PHASE_CSV, Boxes, Phases, file_key, read_boxes, read_phases
from woundray.errors import UserError
from woundray.system.atomic_files import write_text

__all__ = ["BOX_CSV", "PHASE_CSV", "PICTURES", "prepare"]

PICTURES = "Depth_RGB"
_NAME = re.compile(r"^\d+_P(\d{3})(\d{2})(\d)([BA])([DT])([MLR])([WZ])$", re.IGNORECASE)
_FOLDER = re.compile(r"(?:patient|pat|p)[\s_-]*(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class _Raw:
    """Folder of the raw images, and the tables."""

    pictures: Path
    phases: Phases
    boxes: Boxes


def prepare(
    raw: Path,
    out: Path,
    *,
    max_side_px: int = 1024,
    duplicate_correlation: float = DUPLICATE_CORRELATION,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Write `out/rgb/{phase}/*.png`, `out/manifest.csv` and `out/summary.txt`. It can be run again after a stop.

    An image is cropped to its box with a margin of 50 %, downscaled if its longer side exceeds max_side_px, and written
    in sRGB without metadata. Several boxes of one image are merged. Files that are not used are listed in the summary.

    Args:
        duplicate_correlation: threshold of near-duplicates (see `woundray.data.duplicates`).

    Raises:
        UserError: not the raw layout; a CSV without its columns, or without a usable row; `out` is inside `raw`, or
            holds other photographs.
    """
    folder = _pictures_folder(raw)
    if out.resolve() == raw.resolve() or raw.resolve() in out.resolve().parents:
        raise UserError(f"--out: {out} is inside --raw {raw}; name another folder, raw photographs are never changed")
    notes = Notes()
    phases, rows = read_phases(raw, notes)
    boxes, rows_of_boxes = read_boxes(raw, notes)
    source, rows = _Raw(folder, phases, boxes), [*rows, *rows_of_boxes]
    listing = list_folder(folder, notes)
    if not listing.pictures:
        raise UserError(f"--raw: no pictures in {folder}; put them there{_example(listing.left_out)}")
    _mark_folder(raw, out)
    files, left_out = _unique_names(folder, listing.pictures)
    left_out += [LeftOut(folder.name / item.path, item.reason) for item in listing.left_out]

    used: dict[Path, Path] = {}  # image of the data set -> raw image
    photos, scenes = [], []
    for index, path in enumerate(files):
        try:
            photo, scene = _prepare_one(path, out, source, max_side_px, notes)
        except PhotoError as error:
            left_out.append(LeftOut(folder.name / path, str(error).removeprefix(f"{folder / path}: ")))
        else:
            photos.append(photo)
            scenes.append(scene)
            used[photo.path] = folder.name / path
        if progress is not None:
            progress(index + 1, len(files))
    if not photos:
        first = left_out[0]
        raise UserError(
            f"--raw: none of {len(files)} pictures can be used, such as {first.path}: {first.reason}{_example(rows)}"
        )

    result = deduplicate(photos, scenes, duplicate_correlation=duplicate_correlation)
    for copy, original in result.copies:
        left_out.append(LeftOut(used[copy.path], copy_reason(copy, original, used[original.path])))
        (out / copy.path).unlink()
    note_contradictions(result, notes)
    _note_unused(raw, listing, source, files, notes)
    dataset = Dataset(out, result.photos, (*left_out, *rows), notes.lines())
    write_manifest(dataset)
    write_text(summary(dataset, result.across), out / "summary.txt")
    return dataset


def _mark_folder(raw: Path, out: Path) -> None:
    """Write the raw folder's path into the output folder.

    Raises:
        UserError: the folder holds other photographs, which would be missing in the manifest.
    """
    marker, source = out / PREPARED_FROM, str(raw.resolve())
    before = marker.read_text(encoding="utf-8").strip() if marker.is_file() else ""
    if before not in ("", source):
        raise UserError(f"--out: {out} was prepared from {before}, not {source}; give a new folder")
    if not before and not ((out / MANIFEST).is_file() and (out / "summary.txt").is_file()):  # of an earlier version
        refuse_pictures(out, why="the new manifest would hide them")
    out.mkdir(parents=True, exist_ok=True)
    write_text(f"{source}\n", marker)


def summary(dataset: Dataset, across: Sequence[tuple[Photo, Photo]]) -> str:
    """Return a readable summary: counts by phase, near-duplicates across patients, and what was left out."""
    photos = dataset.photos
    rows = [item for item in dataset.left_out if item.is_row]
    pictures = [item for item in dataset.left_out if not item.is_row]
    lines = [f"{len(photos)} pictures of {len({photo.patient for photo in photos})} patients", ""]
    lines += [f"{'phase':<6}{'pictures':>9}{'patients':>9}"]
    for phase in PHASES:
        of_phase = [photo for photo in photos if photo.phase == phase]
        lines.append(f"{phase:<6}{len(of_phase):>9}{len({photo.patient for photo in of_phase}):>9}")
    lines += [
        "",
        f"{sum(photo.box is None for photo in photos)} pictures have no box: their middle square is used",
    ]
    lines += [f"{len(across)} pairs of pictures of different patients are near-duplicates; they stay on one side:"]
    lines += [f"  {first.path}  {second.path}" for first, second in across]
    lines += ["", f"{len(pictures)} pictures left out"]
    kinds = Counter(item.reason.split(":")[0] for item in pictures)
    lines += [f"  {count:>5}  {kind}" for kind, count in kinds.most_common()]
    lines += [f"{item.path}: {item.reason}" for item in pictures]
    if rows:
        lines += ["", f"{len(rows)} rows of tables left out", *(item.reason for item in rows)]
    if dataset.notes:
        lines += ["", "How it was read", *dataset.notes]
    return "\n".join([*lines, "", f"one row a picture: {MANIFEST}", ""])


def _pictures_folder(raw: Path) -> Path:
    """Return the folder `Depth_RGB`, in any case. Raises UserError if there is none."""
    if not raw.is_dir():
        raise UserError(f"--raw: {raw} is no folder; give the one that holds {PICTURES} and the tables")
    folders = sorted(path for path in raw.iterdir() if path.is_dir())
    found = [path for path in folders if path.name.casefold() == PICTURES.casefold()]
    if not found:
        raise UserError(f"--raw: {raw} has no folder {PICTURES}; give the one that holds it and the tables")
    return next((path for path in found if path.name == PICTURES), found[0])


def _unique_names(folder: Path, pictures: Sequence[Path]) -> tuple[list[Path], list[LeftOut]]:
    """Return images with different names, and what was left out: of several equal files of one name the first is kept.

    Raises:
        UserError: files of one name differ.
    """
    first: dict[str, Path] = {}
    files, copies = [], []
    for path in pictures:
        other = first.setdefault(file_key(path.name), path) if _NAME.match(path.stem) else path
        if other == path:
            files.append(path)
        elif (folder / path).read_bytes() == (folder / other).read_bytes():
            copies.append(LeftOut(folder.name / path, f"exact copy: {folder.name / other} is the same picture"))
        else:
            raise UserError(f"--raw: {folder / other} and {path} have one name; keep one of them")
    return files, copies


def _note_unused(raw: Path, listing: Listing, source: _Raw, files: Sequence[Path], notes: Notes) -> None:
    """Add notes on boxes without image, and on files of the raw folder that are not used."""
    name = listing.folder.name
    unknown = sorted(source.boxes.keys() - {file_key(path.name) for path in files})
    if unknown:
        notes.add("boxes of pictures that are not here", *unknown)
    if listing.others:
        notes.add(f"{len(listing.others)} other files in {name} are no pictures: {kinds_of(listing.others)}")
    elsewhere = [path for path in list_folder(raw, Notes()).pictures if path.parts[0] != name]
    if elsewhere:
        notes.add(f"pictures outside {name} are not read", *elsewhere)


def _example(items: Sequence[LeftOut]) -> str:
    """Return the end of a message, with an example of what was left out."""
    return f"; left out was {items[0].path}: {items[0].reason}" if items else ""


def _prepare_one(name: Path, out: Path, source: _Raw, max_side_px: int, notes: Notes) -> tuple[Photo, Scene]:
    """Crop, downscale and write one image; return its record and scene. Raises PhotoError if it can not be used."""
    path = source.pictures / name
    found = _NAME.match(path.stem)
    if found is None:
        raise PhotoError(f"{path}: file name carries no patient, visit and ulcer")
    patient, visit, ulcer = int(found[1]), int(found[2]), int(found[3])
    phases = source.phases.get((patient, visit, ulcer), set())
    if len(phases) != 1:
        what = f"phases disagree: {', '.join(sorted(phases))}" if phases else "no phase in the CSV"
        raise PhotoError(f"{path}: {what}")
    _refuse_another_patient(path, name, patient)
    loaded = open_photo(path, notes)
    picture = loaded.pixels
    boxes = source.boxes.get(file_key(path.name))
    box = _union(path, boxes, picture.shape[1], picture.shape[0]) if boxes else None
    if box is not None and loaded.turned:
        notes.add(TURNED, name.as_posix())

    # crop to the box and its margin
    left, top, right, bottom = context_square(box, picture.shape[1], picture.shape[0])
    cropped = Image.fromarray(picture[top:bottom, left:right])
    factor = min(1.0, max_side_px / max(cropped.size))
    if factor < 1:
        size = (max(1, round(cropped.width * factor)), max(1, round(cropped.height * factor)))
        cropped = cropped.resize(size, Image.Resampling.LANCZOS)
    if box is not None:
        box = _scaled(box, left, top, factor)

    (phase,) = phases
    target = out / "rgb" / phase / f"{path.stem}.png"
    pixels = np.asarray(cropped, dtype=np.uint8)
    write_photo(pixels, target)
    photo = Photo(
        path=target.relative_to(out),
        phase=phase,
        patient=found[1],
        visit=visit,
        ulcer=ulcer,
        box=box,
        sha256=hashlib.sha256(target.read_bytes()).hexdigest(),
        group=found[1],
        debridement=found[4].upper(),
        camera=found[5].upper(),
        angle=found[6].upper(),
        view=found[7].upper(),
    )
    return photo, Scene.of(pixels, box, photograph=picture)


def _refuse_another_patient(path: Path, name: Path, patient: int) -> None:
    """Raise PhotoError if an image is in the folder of another patient than its name says."""
    for part in name.parts[:-1]:
        found = _FOLDER.fullmatch(part)
        if found is not None and int(found[1]) != patient:
            raise PhotoError(f"{path}: patients disagree: folder {part}, and {patient:03} in the file's name")


def _union(path: Path, boxes: list[Box], width: int, height: int) -> Box:
    """Return the smallest box around all boxes, clipped to the image. Raises PhotoError for a box outside."""
    inside = [(max(0, box[0]), max(0, box[1]), min(width, box[2]), min(height, box[3])) for box in boxes]
    for box, (left, top, right, bottom) in zip(boxes, inside, strict=True):
        if right - left < 2 or bottom - top < 2:
            raise PhotoError(f"{path}: box outside the picture: {box} in {width} x {height} px")
    lefts, tops, rights, bottoms = zip(*inside, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def _scaled(box: Box, left: int, top: int, factor: float) -> Box:
    """Return a box after cropping at (left, top) and scaling."""
    xmin, ymin, xmax, ymax = box
    return (
        round((xmin - left) * factor),
        round((ymin - top) * factor),
        round((xmax - left) * factor),
        round((ymax - top) * factor),
    )
