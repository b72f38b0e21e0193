"""Write to MLflow what a study or run could not write while the server was away."""

from pathlib import Path

import tyro

from woundray.cli import read_flags, run
from woundray.config.base import Section
from woundray.errors import UserError


class Sync(Section):
    """Writes to MLflow what a study or run could not write while the server was away; a second time changes nothing.

    MLFLOW_TRACKING_URI names the server.
    """

    study: tyro.conf.Positional[Path]
    """Its folder, or its name in woundray-runs."""
    output: Path = Path("woundray-runs")
    """Folder of all studies and runs."""


def main() -> None:
    """Entry point of `woundray sync`."""
    run(_sync)


def _sync() -> None:
    command = read_flags(Sync, prog="python -m woundray.sync")
    from woundray.storage import alone_in
    from woundray.tracking import catch_up

    places = [place for place in (command.study, command.output / command.study) if (place / "events.jsonl").is_file()]
    if not places:
        raise UserError(f"sync: neither {command.study} nor {command.output / command.study} is a study or run")
    with alone_in(places[0]):  # a study that goes on writes its events itself
        written, left = catch_up(places[0].absolute())
    if left:
        raise UserError(f"sync: MLflow took {written} of {written + left} events; run it again when it answers")
    print(f"{written} events written; MLflow has all of {places[0]}")


if __name__ == "__main__":
    main()
