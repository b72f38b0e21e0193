"""Folder of a base model on this machine, by short name or path."""

from pathlib import Path

from woundray.errors import UserError
from woundray.weights import diffusers_layout
from woundray.weights.repositories import REPOSITORIES, hub_cache, weights_home

TINY_FOLDER = Path(__file__).parents[1] / "models" / "tiny"
STAGED_JSON = "staged.json"
"""File in the folder of a staged base model: source, commit, licence, and the sha256 of each file."""


def staged_folder(name: str) -> Path | None:
    """Return the folder of a base model that is complete on this machine, else None.

    Args:
        name: `tiny` (packaged), a short name (staged, or in the cache of huggingface_hub), or a folder.
    """
    if name == "tiny":
        return TINY_FOLDER
    if name not in REPOSITORIES:
        folder = Path(name).expanduser()
        return folder if (folder / "model_index.json").is_file() else None
    snapshots = [
        path
        for hub_id in REPOSITORIES[name].hub_ids
        for path in sorted((hub_cache() / f"models--{hub_id.replace('/', '--')}").glob("snapshots/*"), reverse=True)
    ]
    complete = (folder for folder in (weights_home() / name, *snapshots) if not diffusers_layout.missing_files(folder))
    return next(complete, None)


def recorded_sha256(folder: Path) -> dict[str, str] | None:
    """Return relative path -> sha256 of the files of a staged base model.

    None: woundray did not stage the folder, so no hashes are known. It is the user's, or of the hub's cache.
    """
    if not (folder / STAGED_JSON).is_file():
        return None
    sha256: dict[str, str] = diffusers_layout.read_json(folder / STAGED_JSON)["sha256"]
    return sha256


def base_model_folder(name: str) -> Path:
    """Return the folder of a base model, in diffusers' layout; download it from the model hub if necessary.

    Args:
        name: short name or path.

    Raises:
        UserError: neither a short name nor a model folder; no copy and no connection to the hub; or the folder of a
            short name holds another model.
    """
    folder = staged_folder(name)
    if folder is None and name not in REPOSITORIES:
        raise UserError(
            f"model.base: {name} is neither one of tiny, {', '.join(REPOSITORIES)} nor a folder with a "
            "model_index.json; give a folder in diffusers' layout"
        )
    if folder is None:
        from woundray.weights.hub import fetch_base  # imports huggingface_hub, which is slow

        folder = fetch_base(name)
    found = diffusers_layout.prediction_type(folder)
    if name in REPOSITORIES and found != REPOSITORIES[name].prediction_type:
        raise UserError(
            f"model.base: {folder} predicts {found}, but {name} predicts {REPOSITORIES[name].prediction_type}: it is "
            f"another model; give its folder as model.base, or delete it and run `python -m woundray.fetch {name}`"
        )
    return folder
