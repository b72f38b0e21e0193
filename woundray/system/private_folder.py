"""Private folder, home and port of a process, for as long as it runs."""

import os
import pwd
import secrets
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from woundray.errors import UserError

LOOPBACK = "127.0.0.1"

_LONGEST_SOCKET = 103  # bytes of a Unix socket's path: 107 on Linux, 103 on macOS
_DEEPEST = len("/session_2026-01-31_12-00-00_123456_1234567/sockets/plasma_store")  # of Ray, below its folder
_PORTS_TRIED = 50


def runtime_folder() -> Path:
    """The user's own folder for sockets, and for Ray's sessions: nobody else reads it, and its path is short.

    It is in $TMPDIR, or in /tmp where that is too deep: batch systems give long ones, and a socket's path may not be.

    Raises:
        UserError: neither can be used.
    """
    places = (os.environ.get("TMPDIR") or "/tmp", "/tmp")
    for folder in (Path(place).absolute() / f"woundray-{os.getuid()}" for place in places):
        if fits_sockets(folder / "ray") and _is_private(folder):
            return folder
    raise UserError("TMPDIR: it can't be used, and /tmp neither; name a folder of your own with a short path")


def fits_sockets(folder: Path) -> bool:
    """Whether the path of a folder leaves room for the names of Ray's sockets below it."""
    return len(os.fsencode(folder.absolute())) + _DEEPEST <= _LONGEST_SOCKET


def _is_private(folder: Path) -> bool:
    """Makes the folder; False where it can't be made or written, or belongs to somebody else."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            return False
        folder.chmod(0o700)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def write_once(file: Path, text: str, mode: int = 0o644) -> None:
    """Writes a file that is whole from its first moment; one that is there stays as it is."""
    beside = file.with_name(f".{secrets.token_hex(8)}")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="ascii") as stream:
        stream.write(text)
    try:
        os.link(beside, file)
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)


def provide_home() -> None:
    """Has libraries write into the private folder where the user has no home, or none that can be written.

    Containers run as any user (`docker -u`) have neither home nor name. What lies in a home that can only be read, such
    as weights and passwords, is still found there.
    """
    home = Path(os.path.expanduser("~"))  # Path.home() raises where there is none
    if os.access(home, os.W_OK | os.X_OK) and home.is_absolute():
        return
    if not home.is_absolute() or not home.is_dir() or home == Path("/"):
        os.environ["HOME"] = str(runtime_folder())
    else:
        os.environ.setdefault("MPLCONFIGDIR", str(runtime_folder() / "matplotlib"))
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        os.environ.setdefault("USER", str(os.getuid()))  # torch asks for it


@contextmanager
def held_port(first: int) -> Iterator[int]:
    """The first port from `first` on that is free, which no other woundray of this machine takes in the block.

    A server may take seconds from its start to listening, in which the port looks free.

    Raises:
        UserError: it and the 49 after it are taken.
    """
    for port in range(first, min(first + _PORTS_TRIED, 65536)):
        with socket.socket(socket.AF_UNIX) as claim:
            if _claims(claim, port) and is_free(port):
                yield port
                return
    raise UserError(f"study.dashboard_port: {first} and the {_PORTS_TRIED - 1} ports after it are in use; name another")


def next_port(first: int) -> int:
    """The port that `held_port` would give now.

    Raises:
        UserError: as it.
    """
    with held_port(first) as port:
        return port


def _claims(claim: socket.socket, port: int) -> bool:
    """Whether no other process has claimed a port: Linux gives a name without a file once, till its owner ends."""
    if sys.platform != "linux":  # there a port is looked at, and that is all
        return True
    try:
        claim.bind(f"\0woundray-port-{port}")
    except OSError:
        return False
    return True


def is_free(port: int) -> bool:
    """Whether a server could listen on a port of the loopback device now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: after one that just ended
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True
