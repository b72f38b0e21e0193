"""Stands for the Python interpreter of a Ray worker: asks the zygote for a fork. See woundray/zygote.py.

It runs once for each worker, as a script without site-packages: the standard library's lightest parts only.
"""

import json
import os
import socket
import sys
from contextlib import suppress

ADDRESS = "WOUNDRAY_ZYGOTE"
"""Environment variable: path of the zygote's socket."""

FORKED = b"."
"""What the zygote answers when the fork is there; the connection then stays open until the fork ends."""


def ask(address: str, arguments: list[str]) -> bool:
    """Asks for a fork and waits for its end; False where no zygote made one."""
    with socket.socket(socket.AF_UNIX) as zygote:
        try:
            zygote.connect(address)
            niceness = os.getpriority(os.PRIO_PROCESS, 0)  # Ray gives its workers one
            request = json.dumps([arguments, dict(os.environ), os.getcwd(), niceness]) + "\n"
            socket.send_fds(zygote, [request.encode()], [0, 1, 2])
            if zygote.recv(1) != FORKED:
                return False
        except OSError:
            return False
        with suppress(OSError):
            zygote.recv(1)
        return True


def main() -> None:
    """Takes the arguments of a Python interpreter: a script and its arguments."""
    address, arguments = os.environ[ADDRESS], sys.argv[1:]
    if not ask(address, arguments):
        os.execv(sys.executable, [sys.executable, *arguments])


if __name__ == "__main__":
    main()
