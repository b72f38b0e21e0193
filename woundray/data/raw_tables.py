"""Read the two tables of a raw folder: healing phase by patient, visit and ulcer, and boxes of wounds by file."""

import re
from collections import defaultdict
from pathlib import Path, PureWindowsPath

from woundray.data.dataset import PHASES, Box, LeftOut
from woundray.data.notes import Notes
from woundray.data.table_cells import CellError, is_missing, phase_of, pixels, plain, whole_number
from woundray.data.tables import Row, RowError, Table, read_table
from woundray.errors import UserError

PHASE_CSV = "DataMaster_Processed_V12_WithMissing.csv"
BOX_CSV = "bounding_box_depth.csv"
_SUFFIXES = {".csv", ".tsv", ".txt"}
_WORKBOOKS = {".xlsx", ".xls", ".ods", ".numbers"}
_PHASE = "Healing Phase Abs"
_VISIT = ("Patient#", "Appt#", "DFU#")
_CORNERS = ("Xmin", "Ymin", "Xmax", "Ymax")
_PREFIX = re.compile(r"^(?:patient|pat|pt|p)[\s_#-]*(?=\d)", re.IGNORECASE)

Visit = tuple[int, int, int]  # patient, visit, ulcer
Phases = dict[Visit, set[str]]
Boxes = dict[str, list[Box]]  # by `file_key` of the picture


def file_key(name: str) -> str:
    """Return a key that is equal for spellings of one file: without folders, suffix and case."""
    return PureWindowsPath(plain(name)).stem.casefold()


def read_phases(raw: Path, notes: Notes) -> tuple[Phases, list[LeftOut]]:
    """Return the phases of each visit, and the rows that can not be used. Rows without a phase are skipped."""

    def visit_and_phase(row: Row) -> tuple[Visit, str] | None:
        label = row[_PHASE]
        if is_missing(label):
            return None
        phase = phase_of(label)
        if phase is None:
            raise RowError(f"{_PHASE} {label} is not one of {', '.join(PHASES)}")
        patient, visit, ulcer = (_identifier(row, name) for name in _VISIT)
        if phase != label:
            notes.add(f"phase {label} read as {phase}", f"line {row.line}")
        return (patient, visit, ulcer), phase

    found, left_out = _table(raw, PHASE_CSV, (*_VISIT, _PHASE), notes).parse(visit_and_phase)
    phases: Phases = defaultdict(set)
    for item in found:
        if item is not None:
            phases[item[0]].add(item[1])
    return phases, left_out


def read_boxes(raw: Path, notes: Notes) -> tuple[Boxes, list[LeftOut]]:
    """Return the boxes of each image, and the rows that can not be used.

    Rows without a box are skipped. Without a table there are no boxes, and a note.
    """
    table = _find_table(raw, BOX_CSV, ("Filename", *_CORNERS), notes)
    if table is None:
        notes.add(
            f"no table of wound boxes ({BOX_CSV}): the middle square of each whole picture is used, "
            "in which a wound may be small"
        )
        return {}, []
    found, left_out = table.parse(_file_and_box)
    boxes: Boxes = defaultdict(list)
    for item in found:
        if item is not None:
            boxes[item[0]].append(item[1])
    return boxes, left_out


def _file_and_box(row: Row) -> tuple[str, Box] | None:
    """Return file key and box of a row; None if it has no box. Raises RowError if it can not be used."""
    if all(is_missing(row[name]) for name in _CORNERS):
        return None
    if is_missing(row["Filename"]):
        raise RowError("Filename is empty")
    left, top, right, bottom = (_pixels(row, name) for name in _CORNERS)
    return file_key(row["Filename"]), (left, top, right, bottom)


def _identifier(row: Row, name: str) -> int:
    """Return the number of a patient, visit or ulcer. Raises RowError."""
    text = _PREFIX.sub("", row[name]) if name == "Patient#" else row[name]
    try:
        return whole_number(text)
    except CellError as error:
        raise RowError(f"{name} {error}") from None


def _pixels(row: Row, name: str) -> int:
    """Return a coordinate in whole pixels. Raises RowError."""
    try:
        return pixels(row[name])
    except CellError as error:
        raise RowError(f"{name} {error}") from None


def _table(raw: Path, usual: str, columns: tuple[str, ...], notes: Notes) -> Table:
    """Return the table with these columns. Raises UserError if there is none."""
    table = _find_table(raw, usual, columns, notes)
    if table is None:
        raise UserError(
            f"--raw: {raw} should hold one CSV with the columns {', '.join(columns)}; found none: put it there"
        )
    return table


def _find_table(raw: Path, usual: str, columns: tuple[str, ...], notes: Notes) -> Table | None:
    """Return the table of the usual name, else the only one with these columns; None if no file has them.

    The usual name comes first as there may be a table of the thermal camera's boxes with the same columns.

    Raises:
        UserError: several files have them, there is a workbook instead, or the file of the usual name lacks columns.
    """
    files = sorted(path for path in raw.iterdir() if path.is_file() and not path.name.startswith((".", "~$")))
    found = [path for path in files if path.suffix.lower() in _SUFFIXES and _has_columns(path, columns)]
    named = [path for path in found if path.name.casefold() == usual.casefold()]
    workbooks = [path.name for path in files if path.suffix.lower() in _WORKBOOKS]
    lacking = [path.name for path in files if path.name.casefold() == usual.casefold() and path not in found]
    if not found and not workbooks and not lacking:
        return None
    if len(named or found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        mend = f"; {workbooks[0]} is a workbook: save its table as CSV UTF-8" if workbooks and not found else ""
        raise UserError(f"--raw: {raw} should hold one CSV with the columns {', '.join(columns)}; found {names}{mend}")
    table = read_table((named or found)[0], columns, notes)
    assert table is not None  # see _has_columns
    return table


def _has_columns(path: Path, columns: tuple[str, ...]) -> bool:
    """Return whether a file is a table with these columns; other files are allowed in the folder."""
    try:
        return read_table(path, columns, Notes()) is not None
    except UserError:
        return False
