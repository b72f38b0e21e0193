"""`woundray tune`: hyperparameter search with Ray Tune, Optuna and ASHA; every trial in MLflow."""

from woundray.cli.command import parse
from woundray.cli.study_command import StudyCommand
from woundray.cli.terminal import ProgressBars, run
from woundray.errors import UserError
from woundray.ray_cluster.connection import prepare_workers


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
    prepare_workers()  # before the imports below
    with ProgressBars() as progress:
        progress("starting", 0, 1)
        from woundray.cli.tables import print_whole
        from woundray.search.finish_study import hand_over
        from woundray.search.study_command import conduct, resume

        progress("starting", 1, 1)
        if command.resume:
            output, typed = settings.study.output, command.typed
            closing = resume(command.resume, output, progress, hand_over, refits=command.refit, typed=typed)
        else:
            closing = conduct(settings, progress, hand_over, refits=command.refit)
    print_whole(str(closing))


if __name__ == "__main__":
    main()
