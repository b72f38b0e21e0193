"""Large files by HTTP: a broken download goes on where it stopped, and only the right bytes take their place."""

import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path

from woundray.errors import UserError
from woundray.system.checksums import ProgressCallback, file_sha256

_CHUNK = 1 << 20
_TIMEOUT_S = 60.0


def download(
    url: str, path: Path, sha256: str, *, token: str | None = None, progress: ProgressCallback | None = None
) -> None:
    """One file; goes on where an earlier try stopped, and takes its place only with the right sha256.

    Args:
        token: bearer token for the host of `url`; it is not sent on to where that redirects.

    Raises:
        UserError: no answer, a broken connection (what has arrived is kept), or another file.
    """
    if path.is_file() and file_sha256(path) == sha256:
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
    """Appends to `part` what it lacks, or all of it where the server gives no ranges."""
    here = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "woundray"})
    if here:
        request.add_header("Range", f"bytes={here}-")
    if token:
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if here and error.code == 416:  # nothing lies after what is here: its sha256 decides
            return
        raise
    with response:
        goes_on = response.status == 206
        size = here if goes_on else 0
        length = response.headers.get("Content-Length")
        total = size + int(length) if length else None
        with part.open("ab" if goes_on else "wb") as file:
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                size += len(chunk)
                if progress is not None and total:
                    progress(part.name.removeprefix(".").removesuffix(".part"), size, total)
    if total is not None and size < total:  # http.client says nothing of that when it reads by chunks
        raise ConnectionError(f"{size} of {total} bytes came")
