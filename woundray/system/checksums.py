"""SHA-256 of files, and comparison with known values."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from woundray.system.progress import ProgressCallback

_END_BYTES = 2**20


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def has_sha256(path: Path, sha256: str) -> bool:
    """Return whether a file exists and has this SHA-256."""
    return path.is_file() and file_sha256(path) == sha256


def fingerprint(path: Path) -> str:
    """Return size and SHA-256 of the first and last MiB: a quick check, in milliseconds, that a file is complete."""
    with path.open("rb") as stream:
        digest, size = hashlib.sha256(stream.read(_END_BYTES)), os.fstat(stream.fileno()).st_size
        stream.seek(max(0, size - _END_BYTES))
        digest.update(stream.read())
    return f"{size} {digest.hexdigest()}"


def damaged_files(folder: Path, sha256: Mapping[str, str], progress: ProgressCallback | None = None) -> list[str]:
    """Return the paths, relative to the folder, of files that are missing or whose sha256 differs.

    Args:
        sha256: relative path -> expected hash.
    """
    damaged = []
    for index, (path, expected) in enumerate(sorted(sha256.items())):
        if not has_sha256(folder / path, expected):
            damaged.append(path)
        if progress is not None:
            progress(f"sha256 of {folder.name}", index + 1, len(sha256))
    return damaged
