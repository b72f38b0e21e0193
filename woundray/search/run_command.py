"""A single run from its configuration: materials, cluster, tracking, training."""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from woundray.checkpoints.find import find_checkpoint
from woundray.config import Config
from woundray.config.resume import RUN, extended
from woundray.config.saved import read_saved_config
from woundray.evaluation.checkpoint_selection import best_epoch
from woundray.ray_cluster.torch_trainer import resolve_gpus
from woundray.search.interruption import stopped_with
from woundray.search.session import open_session, resolve_config
from woundray.search.single_run import single_run
from woundray.search.study_folders import made_folder, refuse_taken
from woundray.system.storage import check_storage, exclusive_lock
from woundray.training.checkpoint import link, read_progress, start_from, write_config
from woundray.training.entry_point import train
from woundray.training.precompute import ProgressCallback

BEGUN_FROM = "begun_from.txt"
"""In the folder of a run's checkpoints: the checkpoint of another run that it began from."""


def conduct_run(
    config: Config, progress: ProgressCallback, *, start: str | None = None, typed: Mapping[str, Any] | None = None
) -> tuple[Path, dict[str, float]]:
    """Runs one configuration to its end; goes on where a run of the same study.name stopped, by that one's settings.

    Args:
        start: a checkpoint of another run to go on from, as `find_checkpoint` reads it.
        typed: settings of the configuration that were asked for, by dotted name, and that a run which goes on must
            have; None: all.

    Returns:
        The run's folder, and the metrics of its best epoch.

    Raises:
        UserError: data, base model or cluster can not be used, the run was begun with other settings, or training
            failed.
    """
    config = resolve_config(config)
    check_storage(config.study.output)
    with made_folder(config, "run") as folder, exclusive_lock(folder):
        refuse_taken(folder.name, folder.parent, run=True)
        if (folder / "run/config.yaml").is_file():
            config = begun(config, folder, config.flat() if typed is None else typed)
        return _run(config, folder, progress, start)


def begun(config: Config, folder: Path, typed: Mapping[str, Any]) -> Config:
    """Settings of a run that goes on: its own, which may become longer and then are written so.

    Folder and GPUs are those of the configuration of now.

    Raises:
        UserError: as `extended`, for settings that were asked for and are others.
    """
    output = folder / "run"
    own = read_saved_config(output / "config.yaml")
    longer = extended(own, typed, folder, free=RUN)
    if longer != own:
        write_config(longer, output)
    place = {"hardware.gpus_per_worker": config.hardware.gpus_per_worker, "study.output": config.study.output}
    return longer.with_values(place)


def _begin_from(checkpoint: Path, output: Path, config: Config) -> None:
    """Makes a checkpoint of another run the first of this one; the same command a second time goes on.

    Raises:
        UserError: the run has begun from another one.
    """
    output.mkdir(exist_ok=True)
    note = output / BEGUN_FROM
    if note.is_file() and note.read_text(encoding="utf-8") == str(checkpoint) and (output / "latest").exists():
        return
    start_from(checkpoint, output)
    if not (output / "config.yaml").is_file():
        write_config(config, output)  # its own, by which it goes on
    note.write_text(str(checkpoint), encoding="utf-8")


def _run(config: Config, folder: Path, progress: ProgressCallback, start: str | None) -> tuple[Path, dict[str, float]]:
    config = config.with_values({"study.name": folder.name})  # as who goes on with it names it
    output = folder / "run"
    checkpoint = None if start is None else find_checkpoint(start, config.study.output)
    go_on = f"stopped; the same command with --study.name {shlex.quote(folder.name)} goes on"
    with stopped_with(lambda: go_on), open_session(config, folder, progress, nested=False) as place:
        if checkpoint is not None:
            _begin_from(checkpoint, output, config)
        single_run(
            resolve_gpus(config, place.resources),
            loop=train,
            precomputed=place.precomputed.folder,
            output=output,
            folder=folder,
        )
    history = read_progress(output / "latest").history
    best = best_epoch(history, config.metrics.objective)
    link(folder / "best", "run/best")
    link(
        config.study.output.absolute() / "best",
        os.path.relpath(output / "best", config.study.output.absolute()),
    )
    return output, next(entry for entry in history if entry["epoch"] == best)
