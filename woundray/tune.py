"""Search the hyperparameters of an adapter: Ray Tune, Optuna and ASHA; every trial in MLflow."""

from typing import Any

from woundray.cli import Command, Stages, parse, run


class Tune(Command):
    """Searches the hyperparameters of an adapter: the main job.

    Every trial trains one adapter; the one whose pictures are nearest to photographs of held-out patients wins.
    """

    space: str | None = None
    """Search space: a packaged name or a YAML file; short for --study.space."""
    trials: int | None = None
    """Configurations to try; short for --study.trials."""
    workers: int | None = None
    """Processes of one trial; short for --hardware.workers."""

    def shortcuts(self) -> dict[str, Any]:
        """Settings that have a flag of their own."""
        return super().shortcuts() | {
            "study.space": self.space,
            "study.trials": self.trials,
            "hardware.workers": self.workers,
        }


def main() -> None:
    """Entry point of `woundray tune`."""
    run(_tune)


def _tune() -> None:
    config = parse(Tune).settings
    from woundray.search.conduct import conduct

    with Stages() as stages:
        print(conduct(config, stages))


if __name__ == "__main__":
    main()
