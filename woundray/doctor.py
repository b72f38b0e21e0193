"""`woundray doctor`: check this machine, and forecast a study on it."""

import json
import sys
from typing import Annotated

import tyro

from woundray.cli.command import parse
from woundray.cli.study_command import StudyCommand
from woundray.cli.terminal import ProgressBars, run


class Doctor(StudyCommand):
    """Check this machine, and forecast what `tune` would do with the same flags; nothing is changed.

    Exit code 0: a study would run; 1: a problem keeps it from running, and its mend is named.
    """

    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print everything as JSON, for a program."""
    quick: bool = False
    """Skip the short training that measures the study's time and memory."""
    check_weights: bool = False
    """Read all staged weights and compare their sha256: seconds a gigabyte."""


def main() -> None:
    """Entry point of `woundray doctor`."""
    run(_doctor)


def _doctor() -> None:
    command = parse(Doctor)
    from woundray.cli.tables import print_whole
    from woundray.diagnosis.diagnosis import diagnose, report_table

    with ProgressBars() as progress:
        found = diagnose(command, check_weights=command.check_weights, measured=not command.quick, progress=progress)
    if command.as_json:
        print(json.dumps(found.values(), indent=1, default=str))
    else:
        print_whole(report_table(found))
    sys.exit(1 if found.problems else 0)


if __name__ == "__main__":
    main()
