"""Say what this machine has, and what would run on it."""

import json
import sys
from typing import Annotated

import tyro

from woundray.cli.command import parse
from woundray.cli.study_command import StudyCommand
from woundray.cli.terminal import ProgressBars, run


class Doctor(StudyCommand):
    """Says what this machine has and what `tune` would do with the same flags; changes nothing.

    Exit code 0: a study would run; 1: something keeps it from running, and the answer names the mend.
    """

    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print everything as JSON, for a program."""
    quick: bool = False
    """Do not train for a moment: says nothing of the study's time and memory."""
    check_weights: bool = False
    """Read all staged weights and compare their sha256: seconds a gigabyte."""


def main() -> None:
    """Entry point of `woundray doctor`."""
    run(_doctor)


def _doctor() -> None:
    command = parse(Doctor)
    from woundray.cli.tables import print_whole
    from woundray.diagnosis.diagnosis import diagnose, report_table

    with ProgressBars() as stages:
        found = diagnose(command, check_weights=command.check_weights, measured=not command.quick, progress=stages)
    if command.as_json:
        print(json.dumps(found.values(), indent=1, default=str))
    else:
        print_whole(report_table(found))
    sys.exit(1 if found.problems else 0)


if __name__ == "__main__":
    main()
