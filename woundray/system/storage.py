"""Storage of studies: writability, free space, loss of the disk, and the lock of a study's folder."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from woundray.errors import UserError

MIN_FREE_BYTES = 256 * 2**20  # enough for the first latents, features and checkpoints of a study of adapters
_PROBE_BYTES = 2**20  # more than a full disk's last block
_LOST_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


def check_storage(folder: Path) -> None:
    """Make the folder, and check that files can be written, renamed and linked there.

    Raises:
        UserError: it is a URL, can not be written, or has less than MIN_FREE_BYTES of free space.
    """
    if re.match(r"^\w{2,}:/", str(folder)):
        raise UserError(f"study.output: {folder} is an address; mount the store, and give the folder where it is")
    folder = folder.absolute()
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.with_suffix(".part").write_bytes(b"woundray")
        probe.with_suffix(".part").replace(probe)
        probe.with_suffix(".link").symlink_to(probe.name)
        probe.with_suffix(".link").unlink()
        probe.unlink()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(f"study.output: {folder} can not be written ({reason}); give another folder") from None
    if free < MIN_FREE_BYTES:
        raise UserError(
            f"study.output: {folder} has {free / 2**20:.0f} MiB left; "
            f"a study needs {MIN_FREE_BYTES / 2**20:.0f} MiB to start: make room, or give another folder"
        )


@contextmanager
def exclusive_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a study's folder. The operating system frees it when the process ends, in any way.

    Raises:
        UserError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(f"{folder}: another process works on this study; wait for its end, or stop it") from None
    try:
        yield
    finally:
        lock.release()


def check_not_lost(folder: Path) -> None:
    """Raise OSError if a folder can no longer be written: disk full, read-only, or folder removed."""
    probe = folder / f".probe-{os.getpid()}"
    probe.write_bytes(bytes(_PROBE_BYTES))
    probe.unlink()


def storage_loss(error: BaseException | None, folder: Path) -> str:
    """Return why the storage was lost (full, read-only, removed), if an error comes from that; else an empty string."""
    if not folder.is_dir():
        return f"{folder}: the folder was removed"
    while error is not None:
        if isinstance(error, OSError) and error.errno in _LOST_ERRORS:
            return f"{folder}: {error.strerror}"
        error = error.__cause__ or error.__context__
    return ""
