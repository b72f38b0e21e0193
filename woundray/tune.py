"""Search the hyperparameters of an adapter: Ray Tune, Optuna and ASHA; every trial in MLflow."""

from pathlib import Path
from typing import Any

from woundray.cli import Command, Stages, parse, run
from woundray.cluster import prepare_workers


class Tune(Command):
    """Searches the hyperparameters of an adapter: the main job.

    Every trial trains one adapter; the one whose pictures are nearest to photographs of held-out patients wins.
    """

    space: str | None = None
    """Search space: a packaged name or a YAML file; short for --study.space."""
    trials: int | None = None
    """Configurations to try; short for --study.trials."""
    resume: Path | None = None
    """Go on with a study that was stopped or killed: its folder, or its name in study.output. Finished trials stay,
    others go on from their last epoch; its own settings are used, and others are refused."""
    refit: bool = False
    """Afterwards train the winner's settings on all photographs, the held-out ones too, for as many epochs: more
    patients to learn from, and nobody left to judge by."""
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
    command = parse(Tune)
    prepare_workers()  # before the imports below
    from woundray.handover import hand_over
    from woundray.search.conduct import conduct, resume

    with Stages() as stages:
        if command.resume:
            output, typed = command.settings.study.output, command.typed
            print(resume(command.resume, output, stages, hand_over, refits=command.refit, typed=typed))
        else:
            print(conduct(command.settings, stages, hand_over, refits=command.refit))


if __name__ == "__main__":
    main()
