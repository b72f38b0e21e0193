"""Authentication token of Ray's cluster and dashboard, in a file that only its owner can read."""

import os
import secrets
from pathlib import Path

from woundray.errors import UserError
from woundray.system.private_folder import runtime_folder, write_once


def create_private_token() -> None:
    """Create Ray's token file with mode 0600; Ray itself would write it with mode 0644.

    Where the user's home can not be written, the file is in the private folder of this machine.

    Raises:
        UserError: the file that RAY_AUTH_TOKEN_PATH names can not be written.
    """
    if "RAY_AUTH_TOKEN" in os.environ:
        return
    given = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(given or "~/.ray/auth_token").expanduser()
    try:
        _create_token_file(path)
    except OSError as error:
        if given:
            reason = error.strerror or type(error).__name__
            raise UserError(f"RAY_AUTH_TOKEN_PATH: {path} can not be written ({reason}); name another file") from None
        path = runtime_folder() / "auth_token"
        _create_token_file(path)
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(path)


def _create_token_file(path: Path) -> None:
    """Create the file; an existing one keeps its token."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_once(path, secrets.token_hex(32), mode=0o600)
    if path.stat().st_uid == os.getuid():
        path.chmod(0o600)
