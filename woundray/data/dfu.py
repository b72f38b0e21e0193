"""The user's raw layout -> a checked data set.

Raw: `Depth_RGB/{n}_P{patient:3}{visit:2}{ulcer:1}{B|A}{D|T}{M|L|R}{W|Z}.png` (before or after debridement, depth or
thermal camera, angle, wide or zoomed view), a CSV of the healing phase of each patient, visit and ulcer, and a CSV of
the wounds' boxes.
"""

import csv
import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from woundray.data.duplicates import group_patients, near_duplicate_pairs, thumbnail
from woundray.data.manifest import MANIFEST, PHASES, Box, Dataset, LeftOut, Photo, write_manifest
from woundray.data.photos import MIN_SIDE_PX, SUFFIXES, PhotoError, read_photo, write_photo
from woundray.errors import UserError

PICTURES = "Depth_RGB"
PHASE_CSV = "DataMaster_Processed_V12_WithMissing.csv"
BOX_CSV = "bounding_box_depth.csv"
CONTEXT = 0.5  # surroundings that are kept on each side of a box, share of the box
_NAME = re.compile(r"^\d+_P(\d{3})(\d{2})(\d)([BA])([DT])([MLR])([WZ])$")
_PHASE_COLUMNS = ("Patient#", "Appt#", "DFU#", "Healing Phase Abs")
_BOX_COLUMNS = ("Filename", "Xmin", "Ymin", "Xmax", "Ymax")

Visit = tuple[int, int, int]  # patient, visit, ulcer


@dataclass(frozen=True)
class _Tables:
    phases: dict[Visit, set[str]]
    boxes: dict[str, list[Box]]  # by file name without suffix


def prepare(
    raw: Path, out: Path, *, max_side_px: int = 1024, progress: Callable[[int, int], None] | None = None
) -> Dataset:
    """Writes `out/rgb/{phase}/*.png`, `out/manifest.csv` and `out/summary.txt`; it can be run again after a stop.

    A picture is cut to its box and 50 % of the box around it, made smaller where its longer side is over
    max_side_px, and written without metadata. Several boxes of one picture count as their union.

    Raises:
        UserError: no raw layout, a CSV without its columns, or `out` inside `raw`.
    """
    if not (raw / PICTURES).is_dir():
        raise UserError(f"--raw: {raw} has no folder {PICTURES}")
    if out.resolve() == raw.resolve() or raw.resolve() in out.resolve().parents:
        raise UserError(f"--out: {out} is inside --raw {raw}; name another folder, raw photographs are never changed")
    tables = _Tables(_read_phases(raw), _read_boxes(raw))
    files = sorted(path for path in (raw / PICTURES).iterdir() if path.suffix.lower() in SUFFIXES)
    if not files:
        raise UserError(f"--raw: no pictures in {raw / PICTURES}")
    for path, following in pairwise(files):
        if path.stem == following.stem:
            raise UserError(f"--raw: {path} and {following.name} have one name; keep one of them")

    photos, thumbnails, left_out = [], [], []
    for index, path in enumerate(files):
        try:
            photo, small = _prepare_one(path, out, tables, max_side_px)
        except PhotoError as error:
            left_out.append(LeftOut(path.relative_to(raw), str(error).removeprefix(f"{path}: ")))
        else:
            photos.append(photo)
            thumbnails.append(small)
        if progress is not None:
            progress(index + 1, len(files))
    if not photos:
        raise UserError(
            f"--raw: none of {len(files)} pictures can be used, such as {left_out[0].path}: {left_out[0].reason}"
        )

    pairs = near_duplicate_pairs(np.stack(thumbnails))
    groups = group_patients([photo.patient for photo in photos], pairs)
    photos = [replace(photo, group=group) for photo, group in zip(photos, groups, strict=True)]
    across = [(i, j) for i, j in pairs if photos[i].patient != photos[j].patient]
    dataset = Dataset(out, tuple(photos), tuple(left_out))
    write_manifest(dataset)
    _write_text(summary(dataset, across), out / "summary.txt")
    return dataset


def summary(dataset: Dataset, across: list[tuple[int, int]]) -> str:
    """Readable counts: pictures and patients of each phase, near-duplicates across patients, what was left out."""
    photos = dataset.photos
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
    lines += [f"  {photos[i].path}  {photos[j].path}" for i, j in across]
    lines += ["", f"{len(dataset.left_out)} pictures left out"]
    kinds = Counter(item.reason.split(":")[0] for item in dataset.left_out)
    lines += [f"  {count:>5}  {kind}" for kind, count in kinds.most_common()]
    lines += [f"{item.path}: {item.reason}" for item in dataset.left_out]
    return "\n".join([*lines, "", f"one row a picture: {MANIFEST}", ""])


def _prepare_one(path: Path, out: Path, tables: _Tables, max_side_px: int) -> tuple[Photo, np.ndarray]:
    """Writes one picture, cut and small enough; PhotoError says why it can not be used."""
    found = _NAME.match(path.stem)
    if found is None:
        raise PhotoError(f"{path}: file name carries no patient, visit and ulcer")
    patient, visit, ulcer = int(found[1]), int(found[2]), int(found[3])
    phases = tables.phases.get((patient, visit, ulcer), set())
    if len(phases) != 1:
        what = f"phases disagree: {', '.join(sorted(phases))}" if phases else "no phase in the CSV"
        raise PhotoError(f"{path}: {what}")
    picture = read_photo(path)
    boxes = tables.boxes.get(path.stem)
    box = _union(path, boxes, picture.shape[1], picture.shape[0]) if boxes else None

    # the box and its surroundings
    left, top, right, bottom = _with_context(box, picture.shape[1], picture.shape[0])
    cut = Image.fromarray(picture[top:bottom, left:right])
    factor = min(1.0, max_side_px / max(cut.size))
    if factor < 1:
        size = (max(1, round(cut.width * factor)), max(1, round(cut.height * factor)))
        cut = cut.resize(size, Image.Resampling.LANCZOS)
    if box is not None:
        box = _scaled(box, left, top, factor)

    (phase,) = phases
    target = out / "rgb" / phase / f"{path.stem}.png"
    pixels = np.asarray(cut, dtype=np.uint8)
    write_photo(pixels, target)
    photo = Photo(
        path=target.relative_to(out),
        phase=phase,
        patient=found[1],
        visit=visit,
        ulcer=ulcer,
        box=box,
        sha256=hashlib.sha256(target.read_bytes()).hexdigest(),
        debridement=found[4],
        camera=found[5],
        angle=found[6],
        view=found[7],
    )
    return photo, thumbnail(pixels)


def _union(path: Path, boxes: list[Box], width: int, height: int) -> Box:
    """The smallest box around all of them, inside the picture."""
    inside = [(max(0, box[0]), max(0, box[1]), min(width, box[2]), min(height, box[3])) for box in boxes]
    for box, (left, top, right, bottom) in zip(boxes, inside, strict=True):
        if right - left < 2 or bottom - top < 2:
            raise PhotoError(f"{path}: box outside the picture: {box} in {width} x {height} px")
    lefts, tops, rights, bottoms = zip(*inside, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def _with_context(box: Box | None, width: int, height: int) -> Box:
    """A square around the box with CONTEXT on each side, as far as the picture goes; without a box all of it.

    Around a small box there is more, so that no side gets under MIN_SIDE_PX.
    """
    if box is None:
        return 0, 0, width, height
    half = max(max(box[2] - box[0], box[3] - box[1]) * (0.5 + CONTEXT), MIN_SIDE_PX)
    middle_x, middle_y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return (
        max(0, round(middle_x - half)),
        max(0, round(middle_y - half)),
        min(width, round(middle_x + half)),
        min(height, round(middle_y + half)),
    )


def _scaled(box: Box, left: int, top: int, factor: float) -> Box:
    xmin, ymin, xmax, ymax = box
    return (
        round((xmin - left) * factor),
        round((ymin - top) * factor),
        round((xmax - left) * factor),
        round((ymax - top) * factor),
    )


def _read_phases(raw: Path) -> dict[Visit, set[str]]:
    path = _table(raw, PHASE_CSV, _PHASE_COLUMNS)
    phases: dict[Visit, set[str]] = defaultdict(set)
    for line, row in _rows(path):
        phase = row["Healing Phase Abs"].strip()
        if phase in PHASES:
            patient, visit, ulcer = (_whole(row[name], path, line, name) for name in ("Patient#", "Appt#", "DFU#"))
            phases[patient, visit, ulcer].add(phase)
    return phases


def _read_boxes(raw: Path) -> dict[str, list[Box]]:
    path = _table(raw, BOX_CSV, _BOX_COLUMNS)
    boxes: dict[str, list[Box]] = defaultdict(list)
    for line, row in _rows(path):
        if all(row[name].strip() for name in _BOX_COLUMNS):
            left, top, right, bottom = (_whole(row[name], path, line, name) for name in _BOX_COLUMNS[1:])
            boxes[Path(row["Filename"].strip()).stem].append((left, top, right, bottom))
    return boxes


def _table(raw: Path, usual: str, columns: tuple[str, ...]) -> Path:
    """The CSV of the usual name (the thermal camera's boxes lie beside), else the only one with these columns."""
    found = []
    for path in sorted(raw.glob("*.csv")):
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            header = next(csv.reader(file), [])
        if set(columns) <= {name.strip() for name in header}:
            found.append(path)
    if raw / usual in found:
        return raw / usual
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise UserError(f"--raw: {raw} should hold one CSV with the columns {', '.join(columns)}; found {names}")
    return found[0]


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    # columns that are not read may hold notes in any encoding
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.DictReader(file)
        for row in reader:
            yield reader.line_num, {str(name).strip(): str(value or "") for name, value in row.items()}


def _whole(text: str, path: Path, line: int, name: str) -> int:
    try:
        return round(float(text))
    except (ValueError, OverflowError):
        raise UserError(f"{path}: line {line}: {name} {text!r} is no number") from None


def _write_text(text: str, path: Path) -> None:
    beside = path.with_name(f".{path.name}.part")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)
