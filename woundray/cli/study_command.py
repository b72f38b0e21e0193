"""Flags of a study, shared by `tune` and `doctor`."""

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
    """Number of configurations to try; short for --study.trials."""
    resume: Path | None = None
    """Continue a study that was stopped or killed: its folder, or its name in study.output. Finished trials stay,
    others continue from their last epoch; its own settings are used, and other values are refused."""
    refit: bool = False
    """Afterwards train the winner's settings on all photographs, the held-out ones too, for as many epochs: more
    patients to learn from, and none left to score it with."""
    workers: int | None = None
    """Processes for one trial; short for --hardware.workers."""

    def shortcuts(self) -> dict[str, Any]:
        """Return settings that have a short flag."""
        return super().shortcuts() | {
            "study.space": self.space,
            "study.trials": self.trials,
            "hardware.workers": self.workers,
        }

    def find_mistakes(self) -> Iterator[str]:
        """Yield mistakes that keep the study from running, as far as they show at once; a line each, with its mend."""
        try:
            if self.resume is not None:
                find_study_folder(self.resume, self.settings.study.output)
            else:
                yield from preflight.find_mistakes(self.settings, preflight.STUDY_CHECKS)
        except UserError as error:
            yield str(error)
