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
from woundray.downstream.outcome import EffectReport, compute_outcome
from woundray.downstream.planted_generators import Copies, PhantomStudy, Renderer
from woundray.downstream.protocol import MeasurementSetup, measure
from woundray.downstream.result_files import write_report
from woundray.downstream.tables import as_tables

PLANTED: dict[str, Generator] = {
    "useful: the renderer": Renderer(),
    "useless: training pictures again": Copies(),
    "harmful: phases swapped": Renderer(swapped=True),
}


class Options(Section):
    """Command-line options."""

    out: Path
    """Folder of all images and predictions; a second call continues there."""
    patients: int = 30
    """Drawn patients of each phase."""
    seed: int = 0
    """Seed of patients and folds."""
    effect: EffectConfig = EffectConfig()
    """Settings of the protocol."""


def main() -> None:
    """Measure the three generators and print their tables."""
    options = tyro.cli(Options, description=__doc__)
    for name, generator in PLANTED.items():
        folder = options.out / name.partition(":")[0]
        classifier = make_classifier(options.effect, options.out / "features")
        study = PhantomStudy(options.patients, options.seed)
        bench = MeasurementSetup(options.effect, study, generator, classifier, folder, options.seed)
        measurement = measure(bench, progress=_show_progress)
        outcome = compute_outcome(measurement, options.effect, seed=options.seed)
        report = EffectReport(outcome, measurement, options.effect, title=name, generator=generator.key)
        write_report(report, folder)
        Console(highlight=False).print(as_tables(report), "\n")


def _show_progress(stage: str, done: int, total: int) -> None:
    if done in (0, total):
        sys.stderr.write(f"{stage} {done} of {total}\n")


if __name__ == "__main__":
    main()
