"""Free ports of the loopback device, and a claim on one until a server listens on it."""

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from woundray.errors import UserError

LOOPBACK = "127.0.0.1"
_MAX_PORTS_TRIED = 50


@contextmanager
def claimed_port(first: int) -> Iterator[int]:
    """Yield the first free port from `first` on; no other woundray process of this machine gets it during the block.

    The claim is needed because a server may take seconds until it listens, and until then its port looks free.

    Raises:
        UserError: `first` and the 49 ports after it are in use.
    """
    for port in range(first, min(first + _MAX_PORTS_TRIED, 65536)):
        with socket.socket(socket.AF_UNIX) as claim:
            if _claim(claim, port) and is_free(port):
                yield port
                return
    raise UserError(
        f"study.dashboard_port: {first} and the {_MAX_PORTS_TRIED - 1} ports after it are in use; give another"
    )


def next_free_port(first: int) -> int:
    """Return the port that `claimed_port` would yield now.

    Raises:
        UserError: as `claimed_port`.
    """
    with claimed_port(first) as port:
        return port


def _claim(claimer: socket.socket, port: int) -> bool:
    """Claim a port for this process; False if another process has it.

    The claim is a name in Linux' abstract socket namespace, which is unique and freed when the process ends. Other
    systems have no claims.
    """
    if sys.platform != "linux":
        return True
    try:
        claimer.bind(f"\0woundray-port-{port}")
    except OSError:
        return False
    return True


def is_free(port: int) -> bool:
    """Return whether a server could listen on a port of the loopback device now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers set it, to follow one that just ended
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True
