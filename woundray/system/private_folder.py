"""Private folder of the user with a short path, for sockets and as a home directory, and files written only once."""

import os
import pwd
import secrets
import stat
from pathlib import Path

from woundray.errors import UserError

_MAX_SOCKET_PATH = 103  # bytes of a Unix socket's path: 107 on Linux, 103 on macOS
_LONGEST_RAY_SUFFIX = len("/session_2026-01-31_12-00-00_123456_1234567/sockets/plasma_store")


def runtime_folder() -> Path:
    """Return the user's folder for sockets and Ray sessions: readable only by the user, and with a short path.

    It is in $TMPDIR, or in /tmp if $TMPDIR is too long for the path of a socket, as in some batch systems.

    Raises:
        UserError: neither can be used.
    """
    parents = (os.environ.get("TMPDIR") or "/tmp", "/tmp")
    for folder in (Path(parent).absolute() / f"woundray-{os.getuid()}" for parent in parents):
        if fits_sockets(folder / "ray") and _make_private(folder):
            return folder
    raise UserError("TMPDIR: neither it nor /tmp can be used; set it to a folder of your own with a short path")


def fits_sockets(folder: Path) -> bool:
    """Return whether the path of a folder is short enough for Ray's sockets below it."""
    return len(os.fsencode(folder.absolute())) + _LONGEST_RAY_SUFFIX <= _MAX_SOCKET_PATH


def _make_private(folder: Path) -> bool:
    """Make a folder that only the user can read; False if it can not be made or written, or has another owner."""
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
    """Write an ASCII file atomically, unless it exists: the first of several processes wins.

    Args:
        mode: permissions of the file.
    """
    temporary = file.with_name(f".{secrets.token_hex(8)}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="ascii") as stream:
        stream.write(text)
    try:
        os.link(temporary, file)
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def provide_home() -> None:
    """Set $HOME, $MPLCONFIGDIR and $USER if the user has no home directory, or one that can not be written.

    Libraries then write into the private folder. Containers that run as an arbitrary user (`docker -u`) have neither
    home nor user name. Files in a read-only home, such as weights and passwords, are still found.
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
