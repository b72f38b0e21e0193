"""The folder of studies: that it can be written, has room, and that one process alone works in a study."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from woundray.errors import UserError

MIN_FREE_BYTES = 256 * 2**20  # a study of adapters starts with less than that of latents, features and checkpoints
_PROBE_BYTES = 2**20  # more than a full disk's last block
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


def check_storage(folder: Path) -> None:
    """Makes the folder, and tries there what a study does: write, rename into place, link.

    Raises:
        UserError: it is an address, can not be written, or has less than MIN_FREE_BYTES left.
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
def alone_in(folder: Path) -> Iterator[None]:
    """Within the context no other process works in a study's folder. The lock goes with the process, however it ends.

    Raises:
        UserError: another one does.
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


def refuse_lost(folder: Path) -> None:
    """Raises OSError where a folder that was there can no longer be written: full, read-only or removed."""
    beside = folder / f".probe-{os.getpid()}"
    beside.write_bytes(bytes(_PROBE_BYTES))
    beside.unlink()


def lost_storage(error: BaseException | None, folder: Path) -> str:
    """What became of the storage, if that is what an error comes from: full, read-only or gone; empty: it is not."""
    if not folder.is_dir():
        return f"{folder}: the folder was removed"
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            return f"{folder}: {error.strerror}"
        error = error.__cause__ or error.__context__
    return ""
