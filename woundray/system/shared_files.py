"""Wait for files that another machine wrote to a shared file system, such as NFS."""

import platform
import time
from pathlib import Path

from woundray.errors import UserError
from woundray.system.checksums import fingerprint

VISIBLE_WITHIN_S = 60.0
"""Longest wait, s: NFS caches the entries of a folder for up to a minute (acdirmax)."""
_POLL_S = 0.2


def wait_until_visible(path: Path, expected: str) -> None:
    """Wait until a file is visible on this machine with the content that another machine wrote.

    Args:
        expected: `woundray.system.checksums.fingerprint` of the file, computed by the machine that wrote it.

    Raises:
        UserError: it is not visible within VISIBLE_WITHIN_S.
    """
    deadline = time.monotonic() + VISIBLE_WITHIN_S
    while (reason := why_not_visible(path, expected)) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    if reason:
        raise UserError(
            f"{path}: not seen on {platform.node()} within {VISIBLE_WITHIN_S:.0f} s as another machine wrote it "
            f"({reason}); put study.output on a file system that all nodes share"
        )


def why_not_visible(path: Path, expected: str) -> str:
    """Return why a file with this fingerprint is not visible on this machine; empty if it is."""
    try:
        return "" if fingerprint(path) == expected else "its content is another"
    except OSError as error:
        return error.strerror or type(error).__name__
