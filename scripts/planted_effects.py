"""The protocol of `woundray augment` on generators whose worth is known: its verdict on each, in one table.

python scripts/planted_effects.py --patients 30 --out FOLDER
"""

import sys
from pathlib import Path

import tyro
from rich.console import Console

from woundray.config import EffectConfig
from woundray.config.section import Section
from woundray.downstream.classifiers import make_classifier
from woundray.downstream.generators import Generator
from woundray.downstream.outcome import conclude
from woundray.downstream.planted_generators import Copies, DrawnStudy, Renderer
from woundray.downstream.protocol import MeasurementSetup, measure
from woundray.downstream.result_files import write_outcome
from woundray.downstream.tables import as_tables

PLANTED: dict[str, Generator] = {
    "useful: the renderer": Renderer(),
    "useless: training pictures again": Copies(),
    "harmful: phases swapped": Renderer(swapped=True),
}


class Options(Section):
    """What is measured."""

    out: Path
    """Folder of everything that was drawn and predicted; a second call goes on there."""
    patients: int = 30
    """Drawn patients of each phase."""
    seed: int = 0
    """Seed of patients and folds."""
    effect: EffectConfig = EffectConfig()
    """Settings of the protocol."""


def main() -> None:
    """Measures the three and prints their tables."""
    options = tyro.cli(Options, description=__doc__)
    for name, generator in PLANTED.items():
        folder = options.out / name.partition(":")[0]
        classifier = make_classifier(options.effect, options.out / "features")
        study = DrawnStudy(options.patients, options.seed)
        bench = MeasurementSetup(options.effect, study, generator, classifier, folder, options.seed)
        measurement = measure(bench, progress=_tell)
        outcome = conclude(measurement, options.effect, seed=options.seed)
        write_outcome(outcome, measurement, options.effect, folder, title=name, generator=generator.key)
        Console(highlight=False).print(as_tables(outcome, measurement, options.effect, title=name), "\n")


def _tell(progress: str, done: int, total: int) -> None:
    if done in (0, total):
        sys.stderr.write(f"{progress} {done} of {total}\n")


if __name__ == "__main__":
    main()
