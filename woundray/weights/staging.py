"""Known weights: which are on this machine, their sizes and licences, and the download of the others."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from woundray.config.error_messages import nearest
from woundray.errors import UserError
from woundray.system.checksums import damaged_files, has_sha256
from woundray.system.progress import ProgressCallback
from woundray.weights.base_models import recorded_sha256, staged_folder
from woundray.weights.download import download
from woundray.weights.feature_weights import ALIASES, WEIGHTS, checkpoints_home, staging_path, without_alias
from woundray.weights.repositories import REPOSITORIES, weights_home

NAMES = (*REPOSITORIES, *WEIGHTS, *ALIASES)
"""All names that `fetch` accepts: base models, weights of feature extractors, and aliases of the latter."""


@dataclass(frozen=True)
class WeightsEntry:
    """Known weights.

    Attributes:
        size_mb: 10^6 bytes on this disk, else as published; None if it is not known.
        place: folder or file on this machine, or None.
    """

    name: str
    licence: str
    size_mb: float | None
    place: Path | None


def inventory() -> list[WeightsEntry]:
    """Return all known weights, base models first."""
    base_models = [
        _entry(name, repository.licence, 1000 * repository.size_gb, staged_folder(name))
        for name, repository in REPOSITORIES.items()
    ]
    return base_models + [
        _entry(name, weights.licence, weights.size_mb, weights_file(name)) for name, weights in WEIGHTS.items()
    ]


def _entry(name: str, licence: str, published_mb: float | None, path: Path | None) -> WeightsEntry:
    """Return an entry with the size on this disk, or the published one if the weights are not here or empty."""
    files: Iterable[Path] = () if path is None else [path] if path.is_file() else path.rglob("*")
    size_mb = sum(file.stat().st_size for file in files if file.is_file()) / 1e6
    return WeightsEntry(name, licence, size_mb or published_mb, path)


def weights_file(name: str) -> Path | None:
    """Return the file of a feature extractor's weights on this machine, by name or alias; None if it is not here."""
    return staged_file(staging_path(name).name)


def staged_file(file_name: str) -> Path | None:
    """Return a weights file on this machine: in torch's folder, in woundray's folder of weights, or one level below."""
    folders = (checkpoints_home(), weights_home(), *(path for path in weights_home().glob("*") if path.is_dir()))
    return next((folder / file_name for folder in folders if (folder / file_name).is_file()), None)


def damaged_weights(entry: WeightsEntry) -> list[Path] | None:
    """Return the files of staged weights that are missing or whose sha256 differs; None: no sha256 is known.

    Reads all files: seconds per gigabyte.
    """
    path = entry.place
    assert path is not None
    if entry.name in WEIGHTS:
        return [] if has_sha256(path, WEIGHTS[entry.name].sha256) else [path]
    sha256 = recorded_sha256(path)
    return None if sha256 is None else [path / name for name in damaged_files(path, sha256)]


def check_names(names: Iterable[str]) -> None:
    """Raise UserError for an unknown name, with the nearest known one."""
    for name in names:
        if name not in NAMES:
            raise UserError(f"fetch: {name} is not one of {', '.join(NAMES)}{nearest(name, NAMES)}")


def licence_of(name: str) -> str:
    """Return the name of the licence of weights."""
    repository = REPOSITORIES.get(name)
    return repository.licence if repository else WEIGHTS[without_alias(name)].licence


def fetch(name: str, *, half: bool = False, progress: ProgressCallback | None = None) -> Path:
    """Stage a base model or a weights file; files that are here and intact are not downloaded again.

    Args:
        half: fp16 instead of fp32 weights of a base model.

    Raises:
        UserError: an unknown name, no connection, or another sha256.
    """
    check_names([name])
    if name in REPOSITORIES:
        from woundray.weights.hub import fetch_base  # imports huggingface_hub, which is slow

        return fetch_base(name, half=half, progress=progress)
    weights = WEIGHTS[without_alias(name)]
    download(weights.url, staging_path(name), weights.sha256, progress=progress)
    return staging_path(name)
