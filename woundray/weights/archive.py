"""Staged weights in one tar file, for machines without internet.

Its first member is `SHA256SUMS`, a line `hash  name` a file; then `base/NAME/...` of base models in diffusers' layout
and `checkpoints/FILE` of feature extractors. Neither end trusts the file: nothing is written outside the two folders of
weights, no links, no pickles but those of known sha256.
"""

import hashlib
import io
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from woundray.errors import UserError
from woundray.system.checksums import FACTS_NAME, ProgressCallback, file_sha256, damaged_files
from woundray.weights import diffusers_layout
from woundray.weights.base_models import staged_folder
from woundray.weights.feature_weights import ALIASES, WEIGHTS, checkpoints_home, path_of
from woundray.weights.repositories import REPOSITORIES, weights_home
from woundray.weights.staging import check_names, inventory, weights_file

_SUMS = "SHA256SUMS"
_SUMS_LIMIT = 1 << 20  # bytes
_CHUNK = 1 << 20


def export(names: Sequence[str], file: Path, *, progress: ProgressCallback | None = None) -> list[str]:
    """Writes weights of this machine into a tar file, all that there are where no names are given; gives their names.

    Raises:
        UserError: a name that is not known, not here or damaged.
    """
    check_names(names)
    chosen = list(dict.fromkeys(ALIASES.get(name, name) for name in names))
    chosen = chosen or [entry.name for entry in inventory() if entry.place is not None]
    if not chosen:
        raise UserError(f"--export: no weights in {weights_home()}; run `python -m woundray.fetch sd21` first")
    members = {member: path for name in chosen for member, path in _members(name).items()}
    sums = {}
    for index, (member, path) in enumerate(members.items()):
        sums[member] = file_sha256(path)
        _tell(progress, "sha256", index + 1, len(members))

    text = "".join(f"{digest}  {member}\n" for member, digest in sums.items()).encode()
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.part")
    with tarfile.open(beside, "w") as archive:
        _add(archive, _SUMS, len(text), io.BytesIO(text))
        for index, (member, path) in enumerate(members.items()):
            with path.open("rb") as stream:
                _add(archive, member, path.stat().st_size, stream)
            _tell(progress, f"into {file.name}", index + 1, len(members))
    beside.replace(file)
    return chosen


def import_archive(file: Path, *, progress: ProgressCallback | None = None) -> list[str]:
    """Puts the weights of a tar file that `export` wrote where they are looked for; gives their names.

    Nothing is put in its place before all of it was checked.

    Raises:
        UserError: no such file, a member that has no business there, or other bytes than its sha256 says.
    """
    parts: dict[Path, Path] = {}  # destination -> what was read, beside it
    try:
        with tarfile.open(file, "r:") as archive:
            sums = _read_sums(archive, file)
            for member in archive:
                if member.name == _SUMS:
                    continue
                place = _place(member, sums, file)
                if place in parts:
                    raise UserError(f"{file}: {member.name} comes twice; give an archive that `fetch --export` wrote")
                parts[place] = place.with_name(f".{place.name}.part")
                place.parent.mkdir(parents=True, exist_ok=True)
                _extract(archive, member, parts[place], sums[member.name], file)
                _tell(progress, f"out of {file.name}", len(parts), len(sums))
        if len(parts) != len(sums):
            raise UserError(f"{file}: {len(sums) - len(parts)} of {len(sums)} files are missing; copy the file again")
        for place, part in sorted(parts.items(), key=lambda item: item[0].name == FACTS_NAME):  # that one last
            part.replace(place)
    except (OSError, tarfile.TarError) as error:
        raise UserError(f"{file}: not an archive of weights ({error}); give one that `fetch --export` wrote") from None
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)
    return list(dict.fromkeys(_name_of(member) for member in sums))


def _members(name: str) -> dict[str, Path]:
    """Name in the archive -> file, of one name."""
    if name in WEIGHTS:
        path = weights_file(name) or path_of(name)
        if not path.is_file() or file_sha256(path) != WEIGHTS[name].sha256:
            raise UserError(f"--export: {path} is missing or damaged; run `python -m woundray.fetch {name}`")
        return {f"checkpoints/{path.name}": path}
    folder = staged_folder(name)
    if folder is None:
        raise UserError(f"--export: {name} is not on this machine; run `python -m woundray.fetch {name}`")
    if (folder / FACTS_NAME).is_file():
        sha256 = diffusers_layout.read_json(folder / FACTS_NAME)["sha256"]
        damaged = damaged_files(folder, sha256)
        if damaged:
            raise UserError(f"--export: {folder / damaged[0]} is damaged; run `python -m woundray.fetch {name}`")
        files: Iterable[str] = [*sha256, FACTS_NAME]
    else:  # a copy of the user's own, or of the hub's cache
        names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
        files = diffusers_layout.needed_files(names, half=False)
    return {f"base/{name}/{path}": folder / path for path in files}


def _add(archive: tarfile.TarFile, name: str, size: int, stream: io.BufferedIOBase) -> None:
    """A regular file without owner, time and links."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    archive.addfile(member, stream)


def _read_sums(archive: tarfile.TarFile, file: Path) -> dict[str, str]:
    """Name in the archive -> sha256, of its first member."""
    first = archive.next()
    if first is None or first.name != _SUMS or not first.isreg() or first.size > _SUMS_LIMIT:
        raise UserError(f"{file}: does not begin with {_SUMS}; give a file of `woundray fetch --export`")
    stream = archive.extractfile(first)
    assert stream is not None
    lines = [line.split("  ", 1) for line in stream.read().decode("utf-8", errors="replace").splitlines()]
    if not all(len(line) == 2 for line in lines):
        raise UserError(f"{file}: {_SUMS} is damaged; copy the file again")
    return {name: digest for digest, name in lines}


def _place(member: tarfile.TarInfo, sums: dict[str, str], file: Path) -> Path:
    """Path of a member on this machine. Raises UserError for one that belongs nowhere."""
    if not member.isreg() or member.issparse():
        raise UserError(f"{file}: {member.name} is no plain file; give an archive that `fetch --export` wrote")
    if member.name not in sums:
        raise UserError(f"{file}: {member.name} is not in {_SUMS}")
    parts = PurePosixPath(member.name).parts
    match parts:
        case ("checkpoints", name):
            known = {weights.file_name: weights.sha256 for weights in WEIGHTS.values()}
            if known.get(name) == sums[member.name]:
                return checkpoints_home() / name
        case ("base", name, *inside) if name in REPOSITORIES and inside and ".." not in inside:
            path = "/".join(inside)
            if path == FACTS_NAME or path in diffusers_layout.needed_files([path], half=False):
                return weights_home() / name / path
    raise UserError(f"{file}: {member.name} is no known file of weights; give an archive that `fetch --export` wrote")


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, part: Path, sha256: str, file: Path) -> None:
    stream, digest = archive.extractfile(member), hashlib.sha256()
    assert stream is not None
    with part.open("wb") as target:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            target.write(chunk)
    if digest.hexdigest() != sha256:
        raise UserError(f"{file}: {member.name} has another sha256 than {_SUMS} says; copy the file again")


def _name_of(member: str) -> str:
    folder, name, *_ = member.split("/")
    return name if folder == "base" else next(key for key, weights in WEIGHTS.items() if weights.file_name == name)


def _tell(progress: ProgressCallback | None, what: str, done: int, total: int) -> None:
    if progress is not None:
        progress(what, done, total)
