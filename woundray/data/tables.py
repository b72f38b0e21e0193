"""Read CSV tables of any delimiter and encoding, as Excel and other programs write them in different countries."""

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from woundray.data.dataset import LeftOut
from woundray.data.notes import Notes
from woundray.data.table_cells import plain
from woundray.errors import UserError

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_BOMS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_UTF8_LETTER = re.compile(rb"[\xc3-\xdf][\x80-\xbf]|[\xe1-\xef][\x80-\xbf]{2}")
UNREADABLE = "\ufffd"


Parsed = TypeVar("Parsed")


class RowError(ValueError):
    """Row that can not be used: the reason, and in `path` its image, if it is known."""

    def __init__(self, message: str, path: Path | None = None) -> None:
        super().__init__(message)
        self.path = path


@dataclass(frozen=True)
class Row:
    """Row that is not blank: line in the file, and cells by column name in lower case."""

    line: int
    cells: dict[str, str]

    def __getitem__(self, column: str) -> str:
        text = plain(self.cells.get(column.casefold(), ""))
        if UNREADABLE in text:
            raise RowError(f"{column} {text} has letters that can not be read; save the table as CSV UTF-8")
        return text


@dataclass(frozen=True)
class Table:
    """Text of a table, its delimiter and columns (lower case).

    Attributes:
        lines_before: lines of the file above the header.
    """

    path: Path
    text: str
    delimiter: str
    columns: tuple[str, ...]
    lines_before: int

    def parse(self, row_of: Callable[[Row], Parsed]) -> tuple[list[Parsed], list[LeftOut]]:
        """Return the results of `row_of`, and the rows for which it raised RowError. Blank rows are skipped.

        Raises:
            UserError: no row can be used; or a quotation mark is not closed, so that the rest of the file can not be
                parsed.
        """
        found, left_out = [], []
        for line, cells in self._lines():
            try:
                if any(cell.strip() for cell in cells[len(self.columns) :]):
                    raise RowError(
                        f"{len(cells)} cells, and there are {len(self.columns)} columns; put text that holds "
                        f"{self.delimiter!r} in quotation marks"
                    )
                # Excel omits empty cells at the end of a row, or writes more of them than there are columns
                filled = [*cells, *[""] * len(self.columns)][: len(self.columns)]
                found.append(row_of(Row(line, dict(zip(self.columns, filled, strict=True)))))
            except RowError as error:
                row = Path(f"{self.path.name} line {line}")
                left_out.append(LeftOut(error.path or row, f"{self.path.name}: line {line}: {error}", is_row=True))
        if left_out and not found:
            first = left_out[0].reason.removeprefix(self.path.name)
            raise UserError(f"{self.path}{first}; none of {len(left_out)} rows can be used")
        return found, left_out

    def _lines(self) -> Iterator[tuple[int, list[str]]]:
        """Yield line number and cells of each row that is not blank."""
        reader = _reader(self.text, self.delimiter)
        try:
            next(reader, None)
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    yield reader.line_num + self.lines_before, cells
        except csv.Error as error:
            line = reader.line_num + self.lines_before
            raise UserError(f"{self.path}: line {line}: {error}; mend the quotation marks") from None


def read_table(path: Path, required: Sequence[str], notes: Notes, *, optional: Sequence[str] = ()) -> Table | None:
    """Read a table that has the required columns, in any case; None if it lacks one of them.

    The delimiter is a comma, semicolon or tab. The encoding is UTF-8 or UTF-16, with or without byte order mark, else
    Windows-1252. A note is added for anything but commas in UTF-8.

    Raises:
        UserError: not a text file, or a required or optional column occurs twice.
    """
    text, encoding = _decoded(path)
    lines_before = 0
    delimiters = list(DELIMITERS)
    first, _, rest = text.partition("\n")
    if named := re.fullmatch(r'"?sep=(.)"?\s*', first, re.IGNORECASE):
        text, lines_before, delimiters = rest, 1, [named[1]]
    for delimiter in delimiters:
        try:
            header: list[str] = next(_reader(text, delimiter), [])
        except csv.Error:
            continue
        columns = tuple(plain(name).casefold() for name in header)
        if not {name.casefold() for name in required} <= set(columns):
            continue
        for name in (*required, *optional):
            if columns.count(name.casefold()) > 1:
                raise UserError(f"{path}: column {name} comes twice; keep one of them")
        if encoding != "UTF-8":
            notes.add(f"{path.name} is not in UTF-8: read as {encoding}")
        if delimiter != ",":
            notes.add(f"{path.name} has {DELIMITERS.get(delimiter, repr(delimiter))} between its cells")
        return Table(path, text, delimiter, columns, lines_before)
    return None


def header_of(path: Path) -> list[str]:
    """Return the column names in lower case, with the delimiter that gives the most columns."""
    text, _ = _decoded(path)
    headers = [next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), []) for delimiter in DELIMITERS]
    return [plain(name).casefold() for name in max(headers, key=len)]


def _decoded(path: Path) -> tuple[str, str]:
    """Return text and name of its encoding; invalid bytes become UNREADABLE."""
    content = path.read_bytes()
    for mark, codec in _BOMS:
        if content.startswith(mark):
            text = content.decode(codec, errors="replace")
            return _checked(path, text), "UTF-8" if codec == "utf-8-sig" else "UTF-16"
    for codec, zeros in (("utf-16-le", content[1:400:2]), ("utf-16-be", content[:400:2])):
        if zeros.count(0) > len(zeros) // 2 > 2:
            return _checked(path, content.decode(codec, errors="replace")), "UTF-16"
    try:
        return _checked(path, content.decode("utf-8")), "UTF-8"
    except UnicodeDecodeError:
        pass
    if not _UTF8_LETTER.search(content):
        try:
            return _checked(path, content.decode("cp1252")), "Windows-1252"
        except UnicodeDecodeError:
            pass
    return _checked(path, content.decode("utf-8", errors="replace")), "UTF-8"


def _checked(path: Path, text: str) -> str:
    """Return the text. Raises UserError if it has null characters."""
    if "\0" in text:
        raise UserError(f"{path}: no text in UTF-8; save the table as CSV UTF-8")
    return text


def _reader(text: str, delimiter: str) -> Any:
    """Return a strict CSV reader."""
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
