"""Files that one machine writes and another reads at once, on a file system that both share."""

import platform
import time
from pathlib import Path

from woundray.errors import UserError
from woundray.system.checksums import fingerprint

SEEN_WITHIN_S = 60.0
"""Time that a shared file system has to show on one machine what was written on another: NFS keeps what it knows of a
folder for up to a minute (acdirmax)."""
_LOOK_AGAIN_S = 0.2


def wait_until_seen(path: Path, expected: str) -> None:
    """Waits until this machine sees a file as another one wrote it: shared file systems show a rename late.

    Args:
        expected: `woundray.system.checksums.fingerprint` of the file, by who wrote it.

    Raises:
        UserError: it does not within SEEN_WITHIN_S.
    """
    give_up = time.monotonic() + SEEN_WITHIN_S
    while (reason := why_not_seen(path, expected)) and time.monotonic() < give_up:
        time.sleep(_LOOK_AGAIN_S)
    if reason:
        raise UserError(
            f"{path}: not seen on {platform.node()} within {SEEN_WITHIN_S:.0f} s as another machine wrote it "
            f"({reason}); put study.output on a file system that all nodes share"
        )


def why_not_seen(path: Path, expected: str) -> str:
    """Why this machine does not see a file of this fingerprint; empty: it does."""
    try:
        return "" if fingerprint(path) == expected else "its content is another"
    except OSError as error:
        return error.strerror or type(error).__name__
