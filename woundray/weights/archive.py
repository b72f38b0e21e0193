"""Export and import of staged weights as a tar file, for machines without internet.

The first member is `SHA256SUMS`, with a line `hash  name` per file; then `base/NAME/...` of base models in diffusers'
layout and `checkpoints/FILE` of feature extractors. The file is not trusted: nothing is written outside the two folders
of weights, links are refused, and pickles are accepted only with a known sha256.
"""

import hashlib
import io
import tarfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from woundray.errors import UserError
from woundray.system.atomic_files import atomic_path
from woundray.system.checksums import damaged_files, file_sha256, has_sha256
from woundray.system.progress import ProgressCallback
from woundray.weights import diffusers_layout
from woundray.weights.base_models import STAGED_JSON, recorded_sha256, staged_folder
from woundray.weights.feature_weights import WEIGHTS, checkpoints_home, staging_path, without_alias
from woundray.weights.repositories import REPOSITORIES, weights_home
from woundray.weights.staging import check_names, inventory, weights_file

_SUMS = "SHA256SUMS"
_MAX_SUMS_BYTES = 1 << 20
_CHUNK = 1 << 20


def export_archive(names: Sequence[str], file: Path, *, progress: ProgressCallback | None = None) -> list[str]:
    """Write weights of this machine into a tar file, and return their names.

    Args:
        names: names or aliases; empty: all weights that are on this machine.

    Raises:
        UserError: a name is unknown, or its weights are not here or damaged.
    """
    check_names(names)
    chosen = list(dict.fromkeys(map(without_alias, names)))
    chosen = chosen or [entry.name for entry in inventory() if entry.place is not None]
    if not chosen:
        raise UserError(f"--export: no weights in {weights_home()}; run `python -m woundray.fetch sd21` first")
    members = {member: path for name in chosen for member, path in _files_by_member(name).items()}
    sums = {}
    for index, (member, path) in enumerate(members.items()):
        sums[member] = file_sha256(path)
        _report(progress, "sha256", index + 1, len(members))

    text = "".join(f"{digest}  {member}\n" for member, digest in sums.items()).encode()
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(file) as temporary, tarfile.open(temporary, "w") as archive:
        _add(archive, _SUMS, len(text), io.BytesIO(text))
        for index, (member, path) in enumerate(members.items()):
            with path.open("rb") as stream:
                _add(archive, member, path.stat().st_size, stream)
            _report(progress, f"into {file.name}", index + 1, len(members))
    return chosen


def import_archive(file: Path, *, progress: ProgressCallback | None = None) -> list[str]:
    """Extract the weights of a tar file that `export_archive` wrote into the folders of weights; return their names.

    Files are extracted to temporary names, and renamed when all of them are checked.

    Raises:
        UserError: no such file, a member that is not allowed, or a member with another sha256.
    """
    parts: dict[Path, Path] = {}  # destination -> temporary file in the same folder
    try:
        with tarfile.open(file, "r:") as archive:
            sums = _read_sums(archive, file)
            for member in archive:
                if member.name == _SUMS:
                    continue
                destination = _destination(member, sums, file)
                if destination in parts:
                    raise UserError(f"{file}: {member.name} comes twice; give an archive that `fetch --export` wrote")
                parts[destination] = destination.with_name(f".{destination.name}.part")
                destination.parent.mkdir(parents=True, exist_ok=True)
                _extract(archive, member, parts[destination], sums[member.name], file)
                _report(progress, f"out of {file.name}", len(parts), len(sums))
        if len(parts) != len(sums):
            raise UserError(f"{file}: {len(sums) - len(parts)} of {len(sums)} files are missing; copy the file again")
        for destination, part in sorted(parts.items(), key=lambda item: item[0].name == STAGED_JSON):  # that one last
            part.replace(destination)
    except (OSError, tarfile.TarError) as error:
        raise UserError(f"{file}: not an archive of weights ({error}); give one that `fetch --export` wrote") from None
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)
    return list(dict.fromkeys(map(_weights_name, sums)))


def _files_by_member(name: str) -> dict[str, Path]:
    """Return member name -> file, of the weights of one name. Raises UserError if they are not here or damaged."""
    if name in WEIGHTS:
        path = weights_file(name) or staging_path(name)
        if not has_sha256(path, WEIGHTS[name].sha256):
            raise UserError(f"--export: {path} is missing or damaged; run `python -m woundray.fetch {name}`")
        return {f"checkpoints/{path.name}": path}
    folder = staged_folder(name)
    if folder is None:
        raise UserError(f"--export: {name} is not on this machine; run `python -m woundray.fetch {name}`")
    sha256 = recorded_sha256(folder)
    if sha256 is not None:
        damaged = damaged_files(folder, sha256)
        if damaged:
            raise UserError(f"--export: {folder / damaged[0]} is damaged; run `python -m woundray.fetch {name}`")
        files = [*sha256, STAGED_JSON]
    else:
        names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
        files = diffusers_layout.needed_files(names, half=False)
    return {f"base/{name}/{path}": folder / path for path in files}


def _add(archive: tarfile.TarFile, name: str, size: int, stream: io.BufferedIOBase) -> None:
    """Add a regular file without owner and time."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    archive.addfile(member, stream)


def _read_sums(archive: tarfile.TarFile, file: Path) -> dict[str, str]:
    """Read the first member: member name -> sha256."""
    first = archive.next()
    if first is None or first.name != _SUMS or not first.isreg() or first.size > _MAX_SUMS_BYTES:
        raise UserError(f"{file}: does not begin with {_SUMS}; give a file of `woundray fetch --export`")
    stream = archive.extractfile(first)
    assert stream is not None
    lines = [line.split("  ", 1) for line in stream.read().decode("utf-8", errors="replace").splitlines()]
    if not all(len(line) == 2 for line in lines):
        raise UserError(f"{file}: {_SUMS} is damaged; copy the file again")
    return {name: digest for digest, name in lines}


def _destination(member: tarfile.TarInfo, sums: dict[str, str], file: Path) -> Path:
    """Return the path of a member on this machine. Raises UserError for a member that is not allowed."""
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
            if path == STAGED_JSON or path in diffusers_layout.needed_files([path], half=False):
                return weights_home() / name / path
    raise UserError(f"{file}: {member.name} is no known file of weights; give an archive that `fetch --export` wrote")


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, part: Path, sha256: str, file: Path) -> None:
    """Extract a member to `part`. Raises UserError if it has another sha256."""
    stream, digest = archive.extractfile(member), hashlib.sha256()
    assert stream is not None
    with part.open("wb") as target:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            target.write(chunk)
    if digest.hexdigest() != sha256:
        raise UserError(f"{file}: {member.name} has another sha256 than {_SUMS} says; copy the file again")


def _weights_name(member: str) -> str:
    """Return the name of the weights that a member belongs to."""
    folder, name, *_ = member.split("/")
    return name if folder == "base" else next(key for key, weights in WEIGHTS.items() if weights.file_name == name)


def _report(progress: ProgressCallback | None, task: str, done: int, total: int) -> None:
    """Call the progress callback, if there is one."""
    if progress is not None:
        progress(task, done, total)
