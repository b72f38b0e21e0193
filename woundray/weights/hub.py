"""Base models from the model hub into the folder of staged weights, each file checked by its sha256."""

from pathlib import Path

import huggingface_hub
from huggingface_hub import errors
from huggingface_hub.hf_api import RepoFile

from woundray.errors import UserError
from woundray.system.atomic_files import write_json
from woundray.system.checksums import FACTS_NAME, ProgressCallback, file_sha256, damaged_files
from woundray.weights import diffusers_layout
from woundray.weights.download import download
from woundray.weights.repositories import REPOSITORIES, hub_cache, offline, weights_home


def fetch_base(
    name: str, *, half: bool = False, endpoint: str | None = None, progress: ProgressCallback | None = None
) -> Path:
    """Stages a base model in `weights_home() / name`; goes on where an earlier try stopped, and mends damaged files.

    What is there and right is not fetched again, and then nothing is asked of the network.

    Args:
        name: a short name of the registry.
        half: fetch fp16 weights where there are any.
        endpoint: address of the hub; None: $HF_ENDPOINT or the hub itself.

    Raises:
        UserError: each repository that was tried with its reason, HF_HUB_OFFLINE, a file that broke off, or one of
            another sha256 than the hub declares or the registry knows.
    """
    folder = weights_home() / name
    again = f"`python -m woundray.fetch {name}`"
    if (folder / FACTS_NAME).is_file() and not diffusers_layout.missing_files(folder):
        facts = diffusers_layout.read_json(folder / FACTS_NAME)
        damaged = damaged_files(folder, facts["sha256"], progress)
        if not damaged and (half or not facts["half"]):
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
            return _fetch(name, hub_id, folder, half, endpoint, progress)
        except (OSError, errors.HTTPError) as error:  # type: ignore[attr-defined]  # httpx or httpx2, by version
            tried.append(f"{hub_id} {_reason(error)}")
    raise UserError(
        f"model.base: no copy of {name} in {folder} or {hub_cache()}, and the hub gave none: {'; '.join(tried)}; "
        f"run {again} on a machine with internet and bring it by --export and --import, or use --profile demo"
    )


def _fetch(
    name: str, hub_id: str, folder: Path, half: bool, endpoint: str | None, progress: ProgressCallback | None
) -> Path:
    repository = REPOSITORIES[name]
    api = huggingface_hub.HfApi(endpoint=endpoint)
    commit = api.model_info(hub_id, revision=repository.revisions.get(hub_id, "main")).sha
    tree = api.list_repo_tree(hub_id, recursive=True, revision=commit)
    files = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}
    wanted = diffusers_layout.needed_files(files, half=half)
    known = {path: lfs.sha256 for path in wanted if (lfs := files[path].lfs) is not None}
    known |= {path: digest for path, digest in repository.sha256.items() if path in wanted}
    settings = [path for path in wanted if path not in known]
    huggingface_hub.snapshot_download(
        hub_id, revision=commit, local_dir=folder, allow_patterns=settings, endpoint=endpoint
    )
    # huggingface_hub begins a file of gigabytes anew where it was stopped
    for path, digest in known.items():
        url = huggingface_hub.hf_hub_url(hub_id, path, revision=commit, endpoint=endpoint)
        download(url, folder / path, digest, token=huggingface_hub.get_token(), progress=progress)
    lacking = diffusers_layout.missing_files(folder)
    if lacking:
        raise FileNotFoundError(2, f"has no {', '.join(lacking)}", hub_id)
    facts = {
        "source": hub_id,
        "revision": commit,
        "licence": repository.licence,
        "half": half,
        "sha256": {path: known.get(path) or file_sha256(folder / path) for path in wanted},
    }
    write_json(facts, folder / FACTS_NAME)
    return folder


_REASONS = {  # the first that fits: a gated repository is to huggingface_hub one that was not found, too
    errors.GatedRepoError: "is gated (accept its licence on the hub, then `hf auth login`)",
    errors.DisabledRepoError: "is disabled",
    errors.RepositoryNotFoundError: "is deleted or private",
    errors.RevisionNotFoundError: "lacks the revision",
}


def _reason(error: Exception) -> str:
    """Why a repository gave nothing, in a few words."""
    for kind, reason in _REASONS.items():
        if isinstance(error, kind):
            return reason
    if isinstance(error, errors.HfHubHTTPError):
        return f"answered {error.response.status_code}"
    if isinstance(error, OSError) and error.errno is not None:
        return error.strerror or str(error)  # no space left, and the like
    return f"is unreachable ({type(error).__name__})"
