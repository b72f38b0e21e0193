"""Address of a Ray cluster that others started: its spelling, and whether Ray answers there."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from woundray.errors import UserError

_CLIENT_PORT = 10001  # of `ray://HOST` without one
_LISTENS_WITHIN_S = 5.0
_ANSWERS_WITHIN_S = 20.0  # Ray itself waits minutes; importing it takes seconds


def refuse_dead(address: str) -> None:
    """Raises UserError where no Ray answers at an address of a cluster: in seconds, Ray itself takes minutes to say so.

    Args:
        address: HOST:PORT, ray://HOST:PORT, or auto for the cluster that was started last on this machine.
    """
    place = _last_started() if address == "auto" else address
    if place is None:
        return  # Ray looks for processes, and says at once that there are none
    host, _, port = place.removeprefix("ray://").rpartition(":")
    if place.startswith("ray://") and not host:
        host, port = port, str(_CLIENT_PORT)
    if not host or not port.isdecimal() or int(port) > 65535:
        raise UserError(
            f"RAY_ADDRESS: {address} is no address of a Ray cluster; give HOST:PORT, ray://HOST:PORT or auto"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_LISTENS_WITHIN_S).close()
    except OSError as error:
        raise no_answer(address, error.strerror or str(error)) from None
    if not place.startswith("ray://") and not _is_ray(place):
        raise no_answer(address, "what listens there is no Ray, or wants another token")


def _is_ray(place: str) -> bool:
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", place]
    try:
        return not subprocess.run(command, capture_output=True, timeout=_ANSWERS_WITHIN_S, check=False).returncode
    except subprocess.TimeoutExpired:
        return False


def _last_started() -> str | None:
    """Address that `ray start` leaves for RAY_ADDRESS=auto; None: it left none."""
    file = Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp") / "ray/ray_current_cluster"
    try:
        return file.read_text(encoding="ascii").strip() or None
    except OSError:
        return None


def no_answer(address: str, reason: str) -> UserError:
    """Error of a cluster that does not answer, with the mend."""
    return UserError(
        f"RAY_ADDRESS: no Ray cluster answers at {address} ({reason}); "
        "start one with `ray start --head`, or unset RAY_ADDRESS"
    )
