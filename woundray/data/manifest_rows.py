"""Parse the rows of `manifest.csv` as people write them: spellings of paths and phases, boxes, missing cells."""

from pathlib import Path, PurePosixPath

from woundray.data.dataset import MANIFEST, PHASES, Box, Candidate, LeftOut, Photo
from woundray.data.folder_listing import PathLookup, list_folder
from woundray.data.notes import Notes
from woundray.data.table_cells import CellError, is_missing, phase_of, pixels, whole_number
from woundray.data.tables import Row, RowError, Table, header_of, read_table
from woundray.errors import UserError

_REQUIRED = ("path", "phase", "patient")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_MAX_NAME_BYTES = 255
_TEXTS = ("camera", "angle", "view", "debridement")
_OPTIONAL = ("visit", "ulcer", "group", *_TEXTS, *_CORNERS)


def read_manifest(root: Path, manifest: Path, notes: Notes) -> tuple[list[Candidate], list[LeftOut]]:
    """Return a candidate per row, and the rows that can not be used. Blank rows are skipped.

    Raises:
        UserError: a missing column, an unknown phase, an image twice, or no usable row.
    """
    table = read_table(manifest, _REQUIRED, notes, optional=_OPTIONAL)
    if table is None:
        header = header_of(manifest)
        missing = ", ".join(name for name in _REQUIRED if name not in header)
        raise UserError(f"{manifest}: no column {missing}; give it {', '.join(_REQUIRED)} at least")
    rows = _Rows(root, table, notes)
    try:
        candidates, left_out = table.parse(rows.candidate)
    except UserError as error:
        raise UserError("; ".join([str(error), *notes.lines()])) from None
    unnamed = [path for path in rows.lookup.paths if path not in rows.used]
    if unnamed:
        notes.add(f"picture is not in {manifest.name}, and not used", *unnamed)
    return candidates, left_out


class _Rows:
    """Converts rows to candidates; a row may give its path in any spelling that matches one file."""

    def __init__(self, root: Path, table: Table, notes: Notes) -> None:
        self.lookup = PathLookup(list_folder(root, Notes()).pictures)
        self.used: set[Path] = set()
        self._root, self._table, self._notes = root, table, notes

    def candidate(self, row: Row) -> Candidate:
        """Return the image of a row.

        Raises:
            RowError: the row can not be used.
            UserError: an unknown phase, or an image twice.
        """
        for name in _REQUIRED:
            if is_missing(row[name]):
                raise RowError(f"{name} is empty" if not row[name] else f"{name} is {row[name]}: nothing is known")
        location = f"{self._table.path}: line {row.line}"
        phase = phase_of(row["phase"])
        if phase is None:
            raise UserError(
                f"{location}: phase {row['phase']} is not one of {', '.join(PHASES)}; write one of them in each row"
            )
        if phase != row["phase"]:
            self._notes.add(f"phase {row['phase']} read as {phase}", f"line {row.line}")
        photo = Photo(
            path=self._path(row),
            phase=phase,
            patient=row["patient"],
            visit=_number(row, "visit"),
            ulcer=_number(row, "ulcer"),
            box=_box_of(row),
            group="" if is_missing(row["group"]) else row["group"],
            **{name: row[name] for name in _TEXTS},
        )
        if photo.path in self.used:
            raise UserError(f"{location}: path {photo.path} comes twice; keep one row a picture")
        self.used.add(photo.path)
        return Candidate(photo, f"line {row.line}")

    def _path(self, row: Row) -> Path:
        """Return the file of a row, relative to the folder of the data set. Raises RowError if it is not unique."""
        name = row["path"]
        if any(len(part.encode()) > _MAX_NAME_BYTES for part in name.split("/")):
            raise RowError(f"path {name[:40]}... is longer than a file's name can be")
        relative = PurePosixPath(name.replace("\\", "/"))
        if relative.is_absolute() and relative.is_relative_to(self._root.absolute().as_posix()):
            relative = relative.relative_to(self._root.absolute().as_posix())
        network = str(relative).startswith("//")
        if (relative.is_absolute() and not network) or ".." in relative.parts:
            raise RowError(f"path {relative} leaves the data set's folder; give one relative to it")
        if not network and (self._root / relative).is_file():
            return Path(relative)
        found = self.lookup.find(name)
        if len(found) > 1:
            raise RowError(f"path {name} can be {' or '.join(path.as_posix() for path in found)}; write one of them")
        if not found:
            raise RowError(f"{name}: no such file", Path(relative))
        self._notes.add(f"path in {MANIFEST} read as the file that it can be", f"{name} as {found[0].as_posix()}")
        return found[0]


def _number(row: Row, name: str) -> int:
    """Return a whole number; 1 for a missing cell."""
    if is_missing(row[name]):
        return 1
    try:
        return whole_number(row[name])
    except CellError:
        raise RowError(f"{name} {row[name]} is no whole number") from None


def _box_of(row: Row) -> Box | None:
    """Return the box of a row; None if all of its cells are missing."""
    corners = [row[name] for name in _CORNERS]
    if all(is_missing(corner) for corner in corners):
        return None
    try:
        xmin, ymin, xmax, ymax = (pixels(corner) for corner in corners)
    except CellError as error:
        raise RowError(f"box {', '.join(corners)} is not four numbers: {error}; give all of them or none") from None
    return xmin, ymin, xmax, ymax
