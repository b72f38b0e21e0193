"""Flags of a study: those of the command that runs it, and of the one that says what would run."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from woundray.cli.command import Command
from woundray.errors import UserError
from woundray.search import preflight
from woundray.search.study_folders import find_study_folder


class StudyCommand(Command):
    """Flags of a study."""

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

    def mistakes(self) -> Iterator[str]:
        """Mistakes that keep the study from running, as far as they are seen at once; a line each, with its mend."""
        try:
            if self.resume is not None:
                find_study_folder(self.resume, self.settings.study.output)
            else:
                yield from preflight.find_mistakes(self.settings, preflight.STUDY_CHECKS)
        except UserError as error:
            yield str(error)
