"""Weights on this machine: what is known, what is here, and how the rest is fetched from its public addresses."""

import urllib.error
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from woundray.config.explain import nearest
from woundray.errors import UserError
from woundray.metrics.weights import ALIASES, WEIGHTS, path_of
from woundray.model.checksums import Stage, file_sha256
from woundray.model.registry import REPOSITORIES, staged

NAMES = (*REPOSITORIES, *WEIGHTS, *ALIASES)
"""Everything that `fetch` understands: base models, weights files, and other names of the latter."""

_CHUNK = 1 << 20
_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Entry:
    """One of the known weights.

    Attributes:
        size_mb: 10^6 bytes: on this disk, else as published; None where that is not known.
        place: folder or file on this machine, or None.
    """

    name: str
    licence: str
    size_mb: float | None
    place: Path | None


def inventory() -> list[Entry]:
    """All weights that are known, base models first."""
    entries = []
    for name, repository in REPOSITORIES.items():
        folder = staged(name)
        entries.append(Entry(name, repository.licence, _size_mb(folder) or 1000 * repository.size_gb, folder))
    for name, weights in WEIGHTS.items():
        file = path_of(name) if path_of(name).is_file() else None
        entries.append(Entry(name, weights.licence, _size_mb(file) or weights.size_mb, file))
    return entries


def check_names(names: Iterable[str]) -> None:
    """Raises UserError for a name that is not known, with the nearest one that is."""
    for name in names:
        if name not in NAMES:
            raise UserError(f"fetch: {name} is not one of {', '.join(NAMES)}{nearest(name, NAMES)}")


def licence_of(name: str) -> str:
    """Name of the licence that weights come under."""
    base, name = REPOSITORIES.get(name), ALIASES.get(name, name)
    return base.licence if base else WEIGHTS[name].licence


def fetch(name: str, *, half: bool = False, stage: Stage | None = None) -> Path:
    """Stages a base model or a weights file; what is here and right is not fetched again.

    Args:
        half: fp16 instead of fp32 weights of a base model.

    Raises:
        UserError: an unknown name, no way to it, or other bytes than its sha256 says.
    """
    check_names([name])
    if name in REPOSITORIES:
        from woundray.model.hub import fetch_base  # imports huggingface_hub

        return fetch_base(name, half=half, stage=stage)
    weights = WEIGHTS[ALIASES.get(name, name)]
    download(weights.url, path_of(name), weights.sha256, stage=stage)
    return path_of(name)


def download(url: str, path: Path, sha256: str, *, stage: Stage | None = None) -> None:
    """One file; goes on where an earlier try stopped, and takes its place only with the right sha256.

    Raises:
        UserError: no answer, a broken connection (what has arrived is kept), or another file.
    """
    if path.is_file() and file_sha256(path) == sha256:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        _receive(url, part, stage)
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


def _receive(url: str, part: Path, stage: Stage | None) -> None:
    """Appends to `part` what it lacks, or all of it where the server gives no ranges."""
    here = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={here}-"} if here else {})
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
                if stage is not None and total:
                    stage(part.name.removeprefix(".").removesuffix(".part"), size, total)
    if total is not None and size < total:  # http.client says nothing of that when it reads by chunks
        raise ConnectionError(f"{size} of {total} bytes came")


def _size_mb(place: Path | None) -> float | None:
    if place is None:
        return None
    files = [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files) / 1e6
