"""`woundray sync`: send MLflow the events of a study that it missed while the server was unreachable."""

from pathlib import Path

import tyro

from woundray.cli.command import read_flags
from woundray.cli.terminal import run
from woundray.config.section import Section
from woundray.errors import UserError
from woundray.search.study_folders import find_journal_folder


class Sync(Section):
    """Send MLflow the events of a study or run that it missed while the server was unreachable; repeating is harmless.

    MLFLOW_TRACKING_URI names the server.
    """

    study: tyro.conf.Positional[Path]
    """Folder of the study or run, or its name in --output."""
    output: Path = Path("woundray-runs")
    """Folder of all studies and runs."""


def main() -> None:
    """Entry point of `woundray sync`."""
    run(_sync)


def _sync() -> None:
    command = read_flags(Sync, prog="python -m woundray.sync")
    from woundray.system.storage import exclusive_lock
    from woundray.tracking.mlflow_sync import sync_journal

    folder = find_journal_folder(command.study, command.output)
    with exclusive_lock(folder):  # a study that goes on writes its events itself
        written, left = sync_journal(folder.absolute())
    if left:
        raise UserError(f"sync: MLflow took {written} of {written + left} events; run it again when it answers")
    print(f"{written} events written; MLflow has all of {folder}")


if __name__ == "__main__":
    main()
