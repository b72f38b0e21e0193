"""`woundray augment`: gain of a phase classifier's kappa from synthetic pictures, on unseen patients."""

import logging
from typing import Any

from woundray.cli.command import Command, parse
from woundray.cli.terminal import ProgressBars, run
from woundray.errors import UserError
from woundray.ray_cluster.connection import preload_workers
from woundray.ray_cluster.settings import configure_environment
from woundray.search import preflight
from woundray.search.study_folders import already_exists

log = logging.getLogger(__name__)


class Augment(Command):
    """Measure the gain of a phase classifier from synthetic pictures, with an interval and a verdict.

    For each fold of patients, adapters are trained on the training patients alone. Classifiers are trained with and
    without their pictures and tested on the fold's other patients. The study.name of an unfinished measurement
    continues it.
    """

    phases: str | None = None
    """Phases that the classifier distinguishes, such as I,R; short for --effect.phases."""
    ratios: str | None = None
    """Synthetic pictures per photograph, such as 0.25,0.5,1,2; short for --effect.ratios."""
    seeds: int | None = None
    """Classifiers of each arm and fold; short for --effect.seeds."""
    folds: int | None = None
    """Folds of patients; short for --effect.folds."""
    search: int | None = None
    """Trials of a study for each fold and phase, whose best adapter is used; short for --effect.search."""

    def shortcuts(self) -> dict[str, Any]:
        """Return settings that have a short flag."""
        return super().shortcuts() | {
            "effect.phases": _listed(self.phases),
            "effect.ratios": _listed(self.ratios),
            "effect.seeds": self.seeds,
            "effect.folds": self.folds,
            "effect.search": self.search,
        }


def main() -> None:
    """Entry point of `woundray augment`."""
    run(_augment)


def _augment() -> None:
    command = parse(Augment)
    _check(command)
    preflight.refuse_mistakes(command.settings, preflight.MEASUREMENT_CHECKS)
    if not already_exists(command.settings):
        command.log_profile()
    configure_environment()  # before the imports below, of Ray among others
    preload_workers()
    with ProgressBars() as progress:
        progress("starting", 0, 1)
        from woundray.cli.tables import print_whole
        from woundray.downstream.measurement import measure_effect

        progress("starting", 1, 1)
        shown, folder = measure_effect(command.settings, progress, typed=command.typed)
    print_whole(shown)
    print(f"as a page: {folder / 'result.html'}\nall figures: {folder / 'result.json'}")


def _check(command: Augment) -> None:
    """Warn of flags without effect, and refuse contradicting ones."""
    if "phase" in command.typed:
        phases = ", ".join(command.settings.effect.phases)
        log.warning("phase %s has no effect: augment measures effect.phases, %s", command.settings.phase, phases)
    search = command.settings.effect.search
    trials = command.typed.get("study.trials", search)
    if search and trials != search:
        raise UserError(f"--search: {search} trials, but study.trials is {trials}; leave one of them out")


def _listed(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",")]


if __name__ == "__main__":
    main()
