"""The job of `woundray train`: folder, session (data, cluster, tracker), and one run in it.

`single_run` trains on the cluster that the session has connected.
"""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from woundray.checkpoints.find import find_checkpoint
from woundray.config import Config
from woundray.config.resume import RUN, extended
from woundray.config.saved import read_config
from woundray.evaluation.checkpoint_selection import best_epoch
from woundray.ray_cluster.torch_trainer import resolve_gpus
from woundray.search.ctrl_c import resume_hint_on_interrupt
from woundray.search.session import open_session, resolve_config
from woundray.search.single_run import fit_single_run
from woundray.search.study_folders import create_folder, refuse_taken_name
from woundray.system.progress import ProgressCallback
from woundray.system.storage import check_storage, exclusive_lock
from woundray.training.checkpoint import link, read_progress, start_from, write_config
from woundray.training.entry_point import train

STARTED_FROM_FILE = "begun_from.txt"
"""File in the folder of a run's checkpoints: path of the checkpoint of another run from which it started."""


def train_adapter(
    config: Config, progress: ProgressCallback, *, start: str | None = None, typed: Mapping[str, Any] | None = None
) -> tuple[Path, dict[str, float]]:
    """Train one adapter by one configuration, or resume the run of that study.name with its own settings.

    Args:
        config: configuration.
        progress: progress callback.
        start: checkpoint of another run to start from, as `find_checkpoint` reads it.
        typed: settings from the command line, by dotted name, which a resumed run must have; None: all settings.

    Returns:
        The folder of the run's checkpoints, and the metrics of its best epoch.

    Raises:
        UserError: data, base model or cluster can not be used, the resumed run has other settings, or training failed.
    """
    config = resolve_config(config)
    check_storage(config.study.output)
    with create_folder(config, "run") as folder, exclusive_lock(folder):
        refuse_taken_name(folder.name, folder.parent, run=True)
        if (folder / "run/config.yaml").is_file():
            config = resume_config(config, folder, config.flat() if typed is None else typed)
        return _train_in_session(config, folder, progress, start)


def resume_config(config: Config, folder: Path, typed: Mapping[str, Any]) -> Config:
    """Return the configuration of a resumed run: its own, with more epochs if asked for, which are written.

    study.output and hardware.gpus_per_worker are those of the new configuration.

    Raises:
        UserError: as `extended`, for settings from the command line that differ.
    """
    output = folder / "run"
    own = read_config(output)
    longer = extended(own, typed, folder, free=RUN)
    if longer != own:
        write_config(longer, output)
    new = {"hardware.gpus_per_worker": config.hardware.gpus_per_worker, "study.output": config.study.output}
    return longer.with_values(new)


def _start_from_checkpoint(checkpoint: Path, output: Path, config: Config) -> None:
    """Copy a checkpoint of another run as the first of this run; change nothing if that was done before.

    Raises:
        UserError: the run has started already, from another checkpoint or none.
    """
    output.mkdir(exist_ok=True)
    note = output / STARTED_FROM_FILE
    if note.is_file() and note.read_text(encoding="utf-8") == str(checkpoint) and (output / "latest").exists():
        return
    start_from(checkpoint, output)
    if not (output / "config.yaml").is_file():
        write_config(config, output)  # the settings with which it is resumed
    note.write_text(str(checkpoint), encoding="utf-8")


def _train_in_session(
    config: Config, folder: Path, progress: ProgressCallback, start: str | None
) -> tuple[Path, dict[str, float]]:
    """Open the session, train, and link the best checkpoint."""
    config = config.with_values({"study.name": folder.name})  # the name by which the run is resumed
    output = folder / "run"
    checkpoint = None if start is None else find_checkpoint(start, config.study.output)
    hint = f"stopped; the same command with --study.name {shlex.quote(folder.name)} goes on"
    with resume_hint_on_interrupt(lambda: hint), open_session(config, folder, progress, nested=False) as session:
        if checkpoint is not None:
            _start_from_checkpoint(checkpoint, output, config)
        fit_single_run(
            resolve_gpus(config, session.resources),
            loop=train,
            precomputed=session.precomputed.folder,
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
