"""`woundray tune`: hyperparameter search with Ray Tune, Optuna and ASHA; every trial in MLflow."""

from woundray.cli.command import parse
from woundray.cli.study_command import StudyCommand
from woundray.cli.terminal import ProgressBars, run
from woundray.errors import UserError
from woundray.ray_cluster.connection import preload_workers
from woundray.ray_cluster.settings import configure_environment


class Tune(StudyCommand):
    """Search the hyperparameters of an adapter: the main job.

    Every trial trains one adapter; the one whose pictures are nearest to photographs of held-out patients wins.
    """


def main() -> None:
    """Entry point of `woundray tune`."""
    run(_tune)


def _tune() -> None:
    command = parse(Tune)
    settings = command.settings
    for mistake in command.find_mistakes():
        raise UserError(mistake)
    if not command.resume:
        command.log_profile()
    configure_environment()  # before the imports below, of Ray among others
    preload_workers()
    with ProgressBars() as progress:
        progress("starting", 0, 1)
        from woundray.cli.tables import print_whole
        from woundray.search.study import run_study

        progress("starting", 1, 1)
        message = run_study(settings, progress, resume=command.resume, typed=command.typed, refits=command.refit)
    print_whole(message)


if __name__ == "__main__":
    main()
