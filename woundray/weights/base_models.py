"""Short names of base models, and where their files lie on this machine."""

from pathlib import Path

from woundray.errors import UserError
from woundray.weights import diffusers_layout
from woundray.weights.repositories import REPOSITORIES, hub_cache, weights_home

TINY_FOLDER = Path(__file__).parents[1] / "models" / "tiny"


def staged_folder(name: str) -> Path | None:
    """Folder of a base model that is whole on this machine, or None: packaged, staged, or in the hub's cache."""
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
    whole = (folder for folder in (weights_home() / name, *snapshots) if not diffusers_layout.missing_files(folder))
    return next(whole, None)


def base_model_folder(name: str) -> Path:
    """Folder in diffusers' layout of a short name or path; fetched from the hub where it is not on this machine.

    Raises:
        UserError: neither a short name nor a model folder; no copy and no way to the hub; or another model under a
            short name.
    """
    folder = staged_folder(name)
    if folder is None and name not in REPOSITORIES:
        raise UserError(
            f"model.base: {name} is neither one of tiny, {', '.join(REPOSITORIES)} nor a folder with a "
            "model_index.json; give a folder in diffusers' layout"
        )
    if folder is None:
        from woundray.weights.hub import fetch_base  # huggingface_hub is slow to import, and seldom needed

        folder = fetch_base(name)
    found = diffusers_layout.prediction_type(folder)
    if name in REPOSITORIES and found != REPOSITORIES[name].prediction_type:
        raise UserError(
            f"model.base: {folder} predicts {found}, but {name} predicts {REPOSITORIES[name].prediction_type}: it is "
            f"another model; give its folder as model.base, or delete it and run `python -m woundray.fetch {name}`"
        )
    return folder
