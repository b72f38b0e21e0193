"""Find the folder of a checkpoint by a reference: `best`, a folder, or an address of MLflow. It imports no torch."""

import json
from collections.abc import Iterable
from itertools import count
from pathlib import Path

from safetensors import SafetensorError, safe_open

from woundray.checkpoints.earlier_layout import upgrade_layout_of
from woundray.config import Config
from woundray.config.error_messages import nearest
from woundray.config.saved import read_config
from woundray.errors import UserError
from woundray.tracking.mlflow_checkpoints import SCHEMES, fetch_checkpoint, pin_reference
from woundray.weights.diffusers_layout import WEIGHTS_NAME, has_weights

EVALUATION = Path("evaluation/report.json")
"""File in the folder of a study's best checkpoint: the study's own evaluation, which later ones do not replace."""

EVALUATIONS = "evaluations"
"""Folder in the folder of a checkpoint: later evaluations, a folder each."""


def evaluation_file(checkpoint: Path, n: int, first_seed: int) -> Path:
    """Return a new path, `evaluations/100_pictures_seed_100000/report.json`; a number is added if the folder exists."""
    name = f"{n}_pictures_seed_{first_seed}"
    for number in count(1):
        folder = checkpoint / EVALUATIONS / (name if number == 1 else f"{name}_{number}")
        if not folder.exists():
            return folder / EVALUATION.name
    raise AssertionError


def find_checkpoint(reference: str, runs: Path, tracking_uri: str = "") -> Path:
    """Return the checkpoint folder of a reference: the folder itself, its `best`, or the `best` of the newest study.

    A relative folder is searched in `runs`, too. The checkpoint of `runs:/ID`, `models:/NAME@ALIAS` or
    `models:/NAME/VERSION` is copied from MLflow to `runs`/fetched.

    Raises:
        UserError: there is no checkpoint, or it is damaged or of another program.
    """
    if reference.startswith(SCHEMES):
        given = fetch_checkpoint(reference, runs.absolute() / "fetched", tracking_uri)
    else:
        given = runs / reference if reference == "best" or not Path(reference).exists() else Path(reference)
    for folder in (given, given / "best"):
        if has_weights(folder):
            if (folder / WEIGHTS_NAME).is_file():
                _check_adapter_metadata(folder / WEIGHTS_NAME)
            if not (folder / "config.yaml").is_file():
                raise UserError(
                    f"--from: {folder} is no checkpoint of woundray: it holds no config.yaml; give "
                    "one whose folder is whole"
                )
            upgrade_layout_of(folder.resolve())
            return folder.resolve()
    if (given / "trials").is_dir():
        newest = max(given.glob("trials/*/epoch_*"), default=given / "trials/NAME/epoch_0001")
        raise UserError(
            f"--from: {given} is a study that has not ended: go on with `tune --resume`, or give a "
            "checkpoint of a trial, "
            f"such as {newest}"
        )
    if given.exists():
        raise UserError(
            f"--from: {given} is no checkpoint: it holds neither weights nor best/ with weights; "
            "give the folder of a checkpoint, run or study"
        )
    known = nearest(reference, ("best", *(folder.name for folder in runs.glob("*/") if has_weights(folder / "best"))))
    absent = f"neither {reference} nor {given} is there" if str(given) != reference else f"{reference} is not there"
    raise UserError(f"--from: {absent}{known}")


def _check_adapter_metadata(path: Path) -> None:
    """Raise UserError unless the header of an adapter file has the metadata that woundray writes."""
    try:
        with safe_open(path, framework="numpy") as file:
            settings = json.loads((file.metadata() or {})["lora_adapter_metadata"])
            missing = [name for name in ("r", "lora_alpha", "target_modules") if f"unet.{name}" not in settings]
    except (OSError, SafetensorError) as error:
        raise UserError(f"--from: {path} is damaged ({error}); copy it again, or give another checkpoint") from None
    except (KeyError, ValueError):
        missing = ["lora_adapter_metadata"]
    if missing:
        raise UserError(
            f"--from: {path} is an adapter of another program: its metadata have no {missing[0]}; "
            "give one that woundray trained"
        )


def check_references(references: Iterable[str], runs: Path, tracking_uri: str = "", *, flag: str = "--from") -> None:
    """Raise UserError for a reference without a checkpoint; nothing is copied from MLflow.

    Args:
        flag: command-line flag of the references, for the message.
    """
    for reference in references:
        try:
            if reference.startswith(SCHEMES):
                pin_reference(reference, tracking_uri)
            else:
                find_checkpoint(reference, runs)
        except UserError as error:
            raise UserError(str(error).replace("--from", flag, 1)) from None


def config_of(checkpoint: Path) -> Config:
    """Read the configuration that a checkpoint was trained with."""
    return read_config(checkpoint)
