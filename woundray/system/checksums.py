"""Files against the sha256 that is known of them."""

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

FACTS_NAME = "staged.json"
"""Beside the files of a staged base model: source, commit, licence and the sha256 of each file."""

_END_BYTES = 2**20

ProgressCallback = Callable[[str, int, int], None]  # what is being done, how much of it is done, how much there is


def file_sha256(path: Path) -> str:
    """Hash of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fingerprint(path: Path) -> str:
    """Size of a file, and the hash of its first and last MiB: tells in milliseconds whether it is all there."""
    with path.open("rb") as stream:
        digest, size = hashlib.sha256(stream.read(_END_BYTES)), os.fstat(stream.fileno()).st_size
        stream.seek(max(0, size - _END_BYTES))
        digest.update(stream.read())
    return f"{size} {digest.hexdigest()}"


def wrong_files(folder: Path, sha256: Mapping[str, str], progress: ProgressCallback | None = None) -> list[str]:
    """Paths in the folder of files that are missing or have other bytes than their sha256 says."""
    wrong = []
    for index, (path, expected) in enumerate(sorted(sha256.items())):
        if not (folder / path).is_file() or file_sha256(folder / path) != expected:
            wrong.append(path)
        if progress is not None:
            progress(f"sha256 of {folder.name}", index + 1, len(sha256))
    return wrong
