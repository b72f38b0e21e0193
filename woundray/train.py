"""`woundray train`: train one adapter with one configuration, as a trial of a study does."""

import shlex
from typing import Any

from woundray.checkpoints.find import check_references
from woundray.cli.command import Command, parse
from woundray.cli.terminal import ProgressBars, run
from woundray.ray_cluster.connection import preload_workers
from woundray.ray_cluster.settings import configure_environment
from woundray.search import preflight
from woundray.search.study_folders import already_exists


class Train(Command):
    """Train one adapter with one configuration.

    The study.name of an earlier run continues it with its own settings; other values are refused, except more
    training.epochs.
    """

    resume: str | None = None
    """Continue from a checkpoint of another run, with its optimizer and history: a folder, its `latest` or `best`, or
    runs:/ID of MLflow. Set training.epochs above its epoch."""
    workers: int | None = None
    """Processes that train in parallel; short for --hardware.workers."""

    def shortcuts(self) -> dict[str, Any]:
        """Return settings that have a short flag."""
        return super().shortcuts() | {"hardware.workers": self.workers}


def main() -> None:
    """Entry point of `woundray train`."""
    run(_train)


def _train() -> None:
    command = parse(Train)
    settings = command.settings
    if command.resume:
        check_references([command.resume], settings.study.output, flag="--resume")
    preflight.refuse_mistakes(settings, preflight.RUN_CHECKS)
    if not already_exists(settings):
        command.log_profile()
    configure_environment()  # before the imports below, of Ray among others
    preload_workers()
    with ProgressBars() as progress:
        progress("starting", 0, 1)
        from woundray.search.training_run import train_adapter

        progress("starting", 1, 1)
        output, best = train_adapter(settings, progress, start=command.resume, typed=command.typed)
    scores = "  ".join(f"{name} {value:.4g}" for name, value in best.items())
    print(f"best epoch   {scores}")
    print(f"adapter      {output / 'best'}")
    print(f"draw more    python -m woundray.generate --from {shlex.quote(str(output / 'best'))} -n 100 --grid")


if __name__ == "__main__":
    main()
