"""Ray's token, which opens cluster and dashboard, in a file that its owner alone can read."""

import os
import secrets
from pathlib import Path

from woundray.errors import UserError
from woundray.system.private_folder import runtime_folder, write_once


def make_token_private() -> None:
    """Makes Ray's token file, readable for its owner only: Ray itself writes it with mode 0644.

    Where the user's home can not be written it is in the private folder of this machine.
    """
    if "RAY_AUTH_TOKEN" in os.environ:
        return
    given = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(given or "~/.ray/auth_token").expanduser()
    try:
        _make_token(path)
    except OSError as error:
        if given:
            reason = error.strerror or type(error).__name__
            raise UserError(f"RAY_AUTH_TOKEN_PATH: {path} can not be written ({reason}); name another file") from None
        path = runtime_folder() / "auth_token"
        _make_token(path)
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(path)


def _make_token(path: Path) -> None:
    """Makes the file; one that is there keeps its token."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_once(path, secrets.token_hex(32), mode=0o600)
    if path.stat().st_uid == os.getuid():
        path.chmod(0o600)
