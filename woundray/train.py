"""Train one adapter by one configuration: the loop of a study's trial, on the same workers."""

from typing import Any

from woundray.cli import Command, Stages, parse, run
from woundray.cluster import prepare_workers


class Train(Command):
    """Trains one adapter by one configuration.

    With study.name of an earlier run it goes on where that stopped, by that run's settings; others are refused, but
    for more training.epochs.
    """

    resume: str | None = None
    """Go on from a checkpoint of another run, with its optimizer and history: a folder, its `latest` or `best`, or
    runs:/ID of MLflow. Set training.epochs above its epoch."""
    workers: int | None = None
    """Processes that train in parallel; short for --hardware.workers."""

    def shortcuts(self) -> dict[str, Any]:
        """Settings that have a flag of their own."""
        return super().shortcuts() | {"hardware.workers": self.workers}


def main() -> None:
    """Entry point of `woundray train`."""
    run(_train)


def _train() -> None:
    command = parse(Train)
    prepare_workers()  # before the imports below
    from woundray.search.conduct_run import conduct_run

    with Stages() as stages:
        output, best = conduct_run(command.settings, stages, start=command.resume, typed=command.typed)
    scores = "  ".join(f"{name} {value:.4g}" for name, value in best.items())
    print(f"best epoch   {scores}")
    print(f"adapter      {output / 'best'}")
    print(f"draw more    python -m woundray.generate --from {output / 'best'} -n 100 --grid")


if __name__ == "__main__":
    main()
