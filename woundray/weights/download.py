"""Resumable download of large files by HTTP, with a check of their SHA-256."""

import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path

from woundray.errors import UserError
from woundray.system.checksums import file_sha256, has_sha256
from woundray.system.progress import ProgressCallback

_CHUNK = 1 << 20
_TIMEOUT_S = 60.0


def download(
    url: str, path: Path, sha256: str, *, token: str | None = None, progress: ProgressCallback | None = None
) -> None:
    """Download a file unless it is there; resume an earlier download. It is renamed to `path` if its sha256 is right.

    Args:
        token: bearer token for the host of `url`; it is not sent to a host that the url redirects to.

    Raises:
        UserError: no response, a broken connection (received bytes are kept), or another sha256.
    """
    if has_sha256(path, sha256):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        _receive(url, part, token, progress)
    except urllib.error.HTTPError as error:
        raise UserError(f"{url}: answered {error.code} {error.reason}; put the file in {path} by hand") from None
    except (OSError, HTTPException) as error:
        kept = part.stat().st_size if part.is_file() else 0
        raise UserError(f"{url}: broke off ({error}); run it again to go on after {kept / 1e6:.1f} MB") from None
    found = file_sha256(part)
    if found != sha256:
        part.unlink()
        raise UserError(
            f"{url}: another file than is known: its sha256 is {found[:12]}..., not {sha256[:12]}...; deleted, "
            "run it again to fetch all of it"
        )
    part.replace(path)


def _receive(url: str, part: Path, token: str | None, progress: ProgressCallback | None) -> None:
    """Append the missing bytes to `part`, or download all of them if the server does not support ranges."""
    received = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "woundray"})
    if received:
        request.add_header("Range", f"bytes={received}-")
    if token:
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if received and error.code == 416:  # the file has no more bytes; its sha256 is checked next
            return
        raise
    with response:
        resumed = response.status == 206
        size = received if resumed else 0
        length = response.headers.get("Content-Length")
        total = size + int(length) if length else None
        with part.open("ab" if resumed else "wb") as file:
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                size += len(chunk)
                if progress is not None and total:
                    progress(part.name.removeprefix(".").removesuffix(".part"), size, total)
    if total is not None and size < total:  # http.client raises no error for that when it reads by chunks
        raise ConnectionError(f"{size} of {total} bytes received")
