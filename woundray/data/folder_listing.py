"""List the files below a folder: images, unreadable images, and others, so that nothing is ignored silently."""

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from woundray.data.dataset import LeftOut
from woundray.data.image_files import SUFFIXES
from woundray.data.notes import Notes
from woundray.errors import UserError

# files of macOS, Windows, Synology, QNAP and Office; names that begin with a dot are hidden on all systems
_SYSTEM = re.compile(
    r"\..*|__macosx|@eadir|@tmp|@recycle|@recently-snapshot|#recycle|#snapshot|\$recycle\.bin|"
    r"system volume information|lost\+found|e?h?thumbs\.db|desktop\.ini|icon\r|~\$.*|synofile_thumb.*",
    re.IGNORECASE,
)
_MAGIC_BYTES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"II*\0", b"MM\0*", b"8BPS")
_RAW_AND_FILMS = {
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".raw", ".dcm", ".psd", ".svg", ".pdf"),
    *(".mov", ".mp4", ".avi", ".heics", ".jxl", ".zip", ".rar", ".7z"),
}


@dataclass(frozen=True)
class Listing:
    """Files below a folder; sorted paths relative to it.

    Attributes:
        pictures: images of a supported format.
        left_out: images of other formats, films, archives, broken links, and folders that can not be opened.
        others: all other files, such as tables and texts.
    """

    folder: Path
    pictures: tuple[Path, ...]
    left_out: tuple[LeftOut, ...]
    others: tuple[Path, ...]


def list_folder(folder: Path, notes: Notes) -> Listing:
    """List all files below a folder.

    Links to folders are followed, each folder once. System folders and files are skipped. Both are noted.
    """
    walk = _Walk(folder, notes)
    files = sorted(walk.files())
    pictures = [path for path in files if path.suffix.lower() in SUFFIXES]
    for path in files:
        if path.suffix.lower() not in SUFFIXES and (reason := _why_not_read(folder / path)):
            walk.left_out.append(LeftOut(path, reason))
    refused = {item.path for item in walk.left_out}
    others = tuple(path for path in files if path not in refused and path.suffix.lower() not in SUFFIXES)
    return Listing(folder, tuple(pictures), tuple(sorted(walk.left_out, key=lambda item: item.path)), others)


def refuse_pictures(folder: Path, *, why: str, ours: Callable[[Path], bool] = lambda path: False) -> None:
    """Raise UserError if an output folder holds images already.

    Args:
        why: what would happen to these images.
        ours: whether an image was written by an earlier call, and is accepted.
    """
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        if path.suffix.lower() in SUFFIXES and path.is_file() and not ours(path):
            raise UserError(
                f"--out: {folder} holds pictures, such as {path.relative_to(folder)}: {why}; give a new folder"
            )


def kinds_of(paths: Iterable[Path]) -> str:
    """Return the number of files by suffix: `.txt 3, .xlsx 1`."""
    counts = Counter(path.suffix.lower() or "no ending" for path in paths)
    return ", ".join(f"{suffix} {count}" for suffix, count in sorted(counts.items()))


class PathLookup:
    """Look-up of paths as tables write them: any case, slashes, Unicode form, and drive letter or network path."""

    def __init__(self, paths: Collection[Path]) -> None:
        self.paths = tuple(paths)
        self._paths: dict[str, list[Path]] = defaultdict(list)
        for path in paths:
            self._paths[_key(path.as_posix())].append(path)

    def find(self, name: str) -> list[Path]:
        """Return the paths that a name can stand for: one if it is unique, none if there is no such file."""
        parts = PurePosixPath(_key(name.replace("\\", "/"))).parts
        drive = re.match(r"[a-z]:", parts[0]) if parts else None
        network = name.startswith(("\\\\", "//"))
        if not drive and not network:
            return self._paths.get("/".join(parts), [])
        # the name begins with a drive or a network path: try all of its ends
        found: dict[Path, None] = {}
        for start in range(1, len(parts)):
            found |= dict.fromkeys(self._paths.get("/".join(parts[start:]), []))
        return list(found)


def _key(name: str) -> str:
    """Return a name that is equal for any case and Unicode form."""
    return unicodedata.normalize("NFC", name).casefold()


class _Walk:
    """Recursive walk through a folder; collects what is left out."""

    def __init__(self, folder: Path, notes: Notes) -> None:
        self.left_out: list[LeftOut] = []
        self._folder, self._notes = folder, notes
        self._links: list[Path] = []
        self._seen: set[str] = set()

    def files(self) -> Iterator[Path]:
        """Yield all files but those of the system. Links to folders come last: a folder keeps its own path."""
        yield from self._below(Path())
        while self._links:
            link = self._links.pop(0)
            target = os.path.realpath(self._folder / link)
            if target in self._seen:
                self._notes.add("link to a folder that is read already, not followed", link.as_posix())
            else:
                self._notes.add("link to a folder followed", f"{link.as_posix()} -> {target}")
                yield from self._below(link)

    def _below(self, folder: Path) -> Iterator[Path]:
        """Yield the files below a folder; put links to folders aside."""
        self._seen.add(os.path.realpath(self._folder / folder))
        try:
            entries = sorted(os.scandir(self._folder / folder), key=lambda entry: entry.name)
        except OSError as error:
            self.left_out.append(LeftOut(folder, f"folder can not be opened: {error.strerror}"))
            return
        for entry in entries:
            path = folder / entry.name
            if _SYSTEM.fullmatch(entry.name):
                kind = "folder" if entry.is_dir(follow_symlinks=False) else "file"
                self._notes.add(f"hidden or system {kind} skipped", path.as_posix())
            elif entry.is_symlink() and not Path(entry).exists():
                self.left_out.append(LeftOut(path, "a link to nothing"))
            elif entry.is_dir():
                if entry.is_symlink():
                    self._links.append(path)
                else:
                    yield from self._below(path)
            else:
                yield path


def _why_not_read(path: Path) -> str:
    """Return why a file without an image suffix is reported as left out; empty if it is no image, film or archive."""
    if path.suffix.lower() in _RAW_AND_FILMS:
        return f"{path.suffix.lower()} is not read; save it as PNG or JPEG"
    try:
        with path.open("rb") as file:
            start = file.read(12)
    except OSError as error:
        return f"can not be opened: {error.strerror}"
    if start.startswith(_MAGIC_BYTES) or start[4:8] == b"ftyp" or (start[:4], start[8:]) == (b"RIFF", b"WEBP"):
        return "a picture by its content, and not by its ending; give it the ending of its format, such as .jpg"
    return ""
