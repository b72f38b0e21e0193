"""Weights on this machine: what is known, what is here, and how the rest is fetched from its public addresses."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from woundray.config.error_messages import nearest
from woundray.errors import UserError
from woundray.system.checksums import FACTS_NAME, ProgressCallback, file_sha256, damaged_files
from woundray.weights.base_models import staged_folder
from woundray.weights.diffusers_layout import read_json
from woundray.weights.download import download
from woundray.weights.feature_weights import ALIASES, WEIGHTS, checkpoints_home, path_of
from woundray.weights.repositories import REPOSITORIES, weights_home

NAMES = (*REPOSITORIES, *WEIGHTS, *ALIASES)
"""Everything that `fetch` understands: base models, weights files, and other names of the latter."""


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
        folder = staged_folder(name)
        entries.append(Entry(name, repository.licence, _size_mb(folder) or 1000 * repository.size_gb, folder))
    for name, weights in WEIGHTS.items():
        file = weights_file(name)
        entries.append(Entry(name, weights.licence, _size_mb(file) or weights.size_mb, file))
    return entries


def weights_file(name: str) -> Path | None:
    """File of a feature extractor's weights on this machine, by name or alias."""
    return staged_file(path_of(name).name)


def staged_file(file_name: str) -> Path | None:
    """A weights file that is on this machine: where torch looks, in woundray's folder of weights, or one below it."""
    homes = (checkpoints_home(), weights_home(), *(folder for folder in weights_home().glob("*") if folder.is_dir()))
    return next((home / file_name for home in homes if (home / file_name).is_file()), None)


def wrong_bytes(entry: Entry) -> list[Path] | None:
    """Files of staged weights that are missing or have other bytes than their sha256 says; None: no sha256 is known.

    Reads all of them: seconds a gigabyte.
    """
    place = entry.place
    assert place is not None
    if entry.name in WEIGHTS:
        return [] if file_sha256(place) == WEIGHTS[entry.name].sha256 else [place]
    if not (place / FACTS_NAME).is_file():  # a copy of the user's own, or of the hub's cache
        return None
    return [place / path for path in damaged_files(place, read_json(place / FACTS_NAME)["sha256"])]


def check_names(names: Iterable[str]) -> None:
    """Raises UserError for a name that is not known, with the nearest one that is."""
    for name in names:
        if name not in NAMES:
            raise UserError(f"fetch: {name} is not one of {', '.join(NAMES)}{nearest(name, NAMES)}")


def licence_of(name: str) -> str:
    """Name of the licence that weights come under."""
    base, name = REPOSITORIES.get(name), ALIASES.get(name, name)
    return base.licence if base else WEIGHTS[name].licence


def fetch(name: str, *, half: bool = False, progress: ProgressCallback | None = None) -> Path:
    """Stages a base model or a weights file; what is here and right is not fetched again.

    Args:
        half: fp16 instead of fp32 weights of a base model.

    Raises:
        UserError: an unknown name, no way to it, or other bytes than its sha256 says.
    """
    check_names([name])
    if name in REPOSITORIES:
        from woundray.weights.hub import fetch_base  # imports huggingface_hub

        return fetch_base(name, half=half, progress=progress)
    weights = WEIGHTS[ALIASES.get(name, name)]
    download(weights.url, path_of(name), weights.sha256, progress=progress)
    return path_of(name)


def _size_mb(place: Path | None) -> float | None:
    if place is None:
        return None
    files = [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files) / 1e6
