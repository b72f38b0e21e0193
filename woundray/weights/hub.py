"""Download of base models from the model hub into the folder of weights; the SHA-256 of each file is checked."""

from pathlib import Path

import huggingface_hub
from huggingface_hub import errors
from huggingface_hub.hf_api import RepoFile

from woundray.errors import UserError
from woundray.system.atomic_files import write_json
from woundray.system.checksums import damaged_files, file_sha256
from woundray.system.progress import ProgressCallback
from woundray.weights import diffusers_layout
from woundray.weights.base_models import STAGED_JSON
from woundray.weights.download import download
from woundray.weights.repositories import REPOSITORIES, hub_cache, offline, weights_home


def fetch_base(
    name: str, *, half: bool = False, endpoint: str | None = None, progress: ProgressCallback | None = None
) -> Path:
    """Stage a base model in `weights_home() / name`; resume an earlier download and replace damaged files.

    Files that are here and intact are not downloaded again. If all are, the network is not used.

    Args:
        name: short name in `REPOSITORIES`.
        half: download fp16 weights, if the repository has them.
        endpoint: address of the hub; None: $HF_ENDPOINT, or the hub's own.

    Raises:
        UserError: lists each repository that was tried with its reason; HF_HUB_OFFLINE is set; a broken connection; or
            a file has another sha256 than the hub or the registry declares.
    """
    folder = weights_home() / name
    again = f"`python -m woundray.fetch {name}`"
    if (folder / STAGED_JSON).is_file() and not diffusers_layout.missing_files(folder):
        staged = diffusers_layout.read_json(folder / STAGED_JSON)
        damaged = damaged_files(folder, staged["sha256"], progress)
        if not damaged and (half or not staged["half"]):
            return folder
        for path in damaged:
            (folder / path).unlink(missing_ok=True)
    if offline():
        raise UserError(
            f"model.base: no copy of {name} in {folder} or {hub_cache()}, and HF_HUB_OFFLINE is set, so no repository "
            f"was tried; run {again} on a machine with internet and bring it by --export and --import"
        )
    tried = []
    for hub_id in REPOSITORIES[name].hub_ids:
        try:
            return _fetch_repository(name, hub_id, half, endpoint, progress)
        except (OSError, errors.HTTPError) as error:  # type: ignore[attr-defined]  # httpx or httpx2, by version
            tried.append(f"{hub_id} {_reason(error)}")
    raise UserError(
        f"model.base: no copy of {name} in {folder} or {hub_cache()}, and the hub gave none: {'; '.join(tried)}; "
        f"run {again} on a machine with internet and bring it by --export and --import, or use --profile demo"
    )


def _fetch_repository(
    name: str, hub_id: str, half: bool, endpoint: str | None, progress: ProgressCallback | None
) -> Path:
    """Download the needed files of one repository into the staged folder of `name`, and write its `staged.json`."""
    repository, folder = REPOSITORIES[name], weights_home() / name
    api = huggingface_hub.HfApi(endpoint=endpoint)
    commit = api.model_info(hub_id, revision=repository.revisions.get(hub_id, "main")).sha
    tree = api.list_repo_tree(hub_id, recursive=True, revision=commit)
    files = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}
    needed = diffusers_layout.needed_files(files, half=half)
    known = {path: lfs.sha256 for path in needed if (lfs := files[path].lfs) is not None}
    known |= {path: digest for path, digest in repository.sha256.items() if path in needed}
    small = [path for path in needed if path not in known]
    huggingface_hub.snapshot_download(
        hub_id, revision=commit, local_dir=folder, allow_patterns=small, endpoint=endpoint
    )
    # huggingface_hub starts an interrupted file of gigabytes from the beginning; `download` resumes it
    for path, digest in known.items():
        url = huggingface_hub.hf_hub_url(hub_id, path, revision=commit, endpoint=endpoint)
        download(url, folder / path, digest, token=huggingface_hub.get_token(), progress=progress)
    missing = diffusers_layout.missing_files(folder)
    if missing:
        raise FileNotFoundError(2, f"has no {', '.join(missing)}", hub_id)
    staged = {
        "source": hub_id,
        "revision": commit,
        "licence": repository.licence,
        "half": half,
        "sha256": {path: known.get(path) or file_sha256(folder / path) for path in needed},
    }
    write_json(staged, folder / STAGED_JSON)
    return folder


_REASONS = {  # the first match; GatedRepoError is a subclass of RepositoryNotFoundError
    errors.GatedRepoError: "is gated (accept its licence on the hub, then `hf auth login`)",
    errors.DisabledRepoError: "is disabled",
    errors.RepositoryNotFoundError: "is deleted or private",
    errors.RevisionNotFoundError: "lacks the revision",
}


def _reason(error: Exception) -> str:
    """Return in a few words why a repository could not be downloaded."""
    for kind, reason in _REASONS.items():
        if isinstance(error, kind):
            return reason
    if isinstance(error, errors.HfHubHTTPError):
        return f"answered {error.response.status_code}"
    if isinstance(error, OSError) and error.errno is not None:
        return error.strerror or str(error)  # e.g. no space left on the disk
    return f"is unreachable ({type(error).__name__})"
