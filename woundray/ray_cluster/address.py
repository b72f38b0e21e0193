"""Address of a running Ray cluster: check its spelling, and whether Ray answers there."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from woundray.errors import UserError

_CLIENT_PORT = 10001  # default port of `ray://HOST`
_CONNECT_TIMEOUT_S = 5.0
_HEALTH_CHECK_TIMEOUT_S = 20.0  # Ray itself waits minutes; importing it takes seconds


def check_address(address: str) -> None:
    """Check within seconds that Ray answers at an address; Ray itself waits minutes.

    Args:
        address: HOST:PORT, ray://HOST:PORT, or auto for the cluster that was started last on this machine.

    Raises:
        UserError: it is no address, or no Ray answers there.
    """
    target = _read_last_address() if address == "auto" else address
    if target is None:
        return  # Ray searches for its processes, and fails at once
    host, _, port = target.removeprefix("ray://").rpartition(":")
    if target.startswith("ray://") and not host:
        host, port = port, str(_CLIENT_PORT)
    if not host or not port.isdecimal() or int(port) > 65535:
        raise UserError(
            f"RAY_ADDRESS: {address} is no address of a Ray cluster; give HOST:PORT, ray://HOST:PORT or auto"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise no_answer_error(address, error.strerror or str(error)) from None
    if not target.startswith("ray://") and not _is_ray(target):
        raise no_answer_error(address, "the server there is not Ray, or it needs another token")


def _is_ray(address: str) -> bool:
    """Return whether Ray's own health check passes."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        return not subprocess.run(command, capture_output=True, timeout=_HEALTH_CHECK_TIMEOUT_S, check=False).returncode
    except subprocess.TimeoutExpired:
        return False


def _read_last_address() -> str | None:
    """Read the address that `ray start` writes for RAY_ADDRESS=auto; None: there is none."""
    file = Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp") / "ray/ray_current_cluster"
    try:
        return file.read_text(encoding="ascii").strip() or None
    except OSError:
        return None


def no_answer_error(address: str, reason: str) -> UserError:
    """Return the error for a cluster that does not answer."""
    return UserError(
        f"RAY_ADDRESS: no Ray cluster answers at {address} ({reason}); "
        "start one with `ray start --head`, or unset RAY_ADDRESS"
    )
