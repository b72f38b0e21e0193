"""`woundray report`: the report of a study, written again."""

from pathlib import Path
from typing import Annotated

import tyro

from woundray.cli.command import read_flags
from woundray.cli.terminal import run
from woundray.config.section import Section
from woundray.search.study_folders import find_journal_folder


class Report(Section):
    """Write a study's report: one HTML file, and the same without photographs of patients."""

    study: Annotated[Path, tyro.conf.Positional]
    """Folder of the study, or its name in --runs."""
    runs: Path = Path("woundray-runs")
    """Folder of all studies and runs."""


def main() -> None:
    """Entry point of `woundray report`."""
    run(_report)


def _report() -> None:
    command = read_flags(Report, prog="python -m woundray.report")
    folder = find_journal_folder(command.study, command.runs)
    from woundray.reporting import write_report

    report, without_photographs = write_report(folder)
    print(f"{report}\n{without_photographs}: without photographs of patients, to pass on")


if __name__ == "__main__":
    main()
