"""A single run from its configuration: materials, cluster, tracking, training."""

import os
from pathlib import Path

from woundray.config import Config
from woundray.evaluation import best_epoch
from woundray.search.single import single_run
from woundray.search.workplace import judged, new_folder, workplace
from woundray.storage import alone_in, check_storage
from woundray.training.checkpoint import link, read_progress, start_from
from woundray.training.entry import train
from woundray.training.generation import find_checkpoint
from woundray.training.launch import settle
from woundray.training.materials import Stage


def conduct_run(config: Config, stage: Stage, *, start: str | None = None) -> tuple[Path, dict[str, float]]:
    """Runs one configuration to its end; goes on where a run of the same study.name stopped.

    Args:
        start: a checkpoint of another run to go on from, as `find_checkpoint` reads it.

    Returns:
        The run's folder, and the metrics of its best epoch.

    Raises:
        UserError: data, base model or cluster can not be used, or training failed.
    """
    config = judged(config)
    check_storage(config.study.output)
    folder = new_folder(config, "run")
    with alone_in(folder):
        return _run(config, folder, stage, start)


def _run(config: Config, folder: Path, stage: Stage, start: str | None) -> tuple[Path, dict[str, float]]:
    config = config.with_values({"study.name": folder.name})  # as who goes on with it names it
    output = folder / "run"
    checkpoint = None if start is None else find_checkpoint(start, config.study.output)
    with workplace(config, folder, stage, nested=False) as place:
        if checkpoint is not None:
            output.mkdir(exist_ok=True)
            start_from(checkpoint, output)
        single_run(
            settle(config, place.resources),
            loop=train,
            materials=place.materials.folder,
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
