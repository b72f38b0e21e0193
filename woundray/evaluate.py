"""`woundray evaluate`: scores of an adapter's pictures, beside the scores of real photographs."""

import sys
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field

from woundray.checkpoints.find import EVALUATION, check_references, evaluation_file, find_checkpoint
from woundray.cli.command import read_flags
from woundray.cli.terminal import ProgressBars, run
from woundray.config.section import Section
from woundray.errors import UserError


class Evaluate(Section):
    """Draw pictures with a checkpoint and score them against photographs of held-out patients."""

    source: Annotated[str, tyro.conf.arg(name="from")]
    """A checkpoint folder, a run's or study's folder (its best checkpoint), or `best`: that of the newest study."""
    n: Annotated[int, tyro.conf.arg(aliases=["-n"]), Field(ge=4)] = 100
    """Number of pictures."""
    data: Path | None = None
    """Present folder of the run's photographs; without it: the folder at training time."""
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None
    """File of all figures, with the pictures in its folder; without it: report.json in a new folder, in evaluations/
    of the checkpoint's folder."""
    seed: Annotated[int, Field(ge=0)] = 100_000
    """Seed of the first picture; the default differs from all seeds that a run uses to choose epochs."""
    fail_below_thresholds: bool = False
    """Exit code 1 if a score misses a threshold that real photographs reach."""
    runs: Path = Path("woundray-runs")
    """Folder of all studies and runs, where `best` is looked up."""


def main() -> None:
    """Entry point of `woundray evaluate`."""
    run(_evaluate)


def _evaluate() -> None:
    command = read_flags(Evaluate, prog="python -m woundray.evaluate")
    check_references([command.source], command.runs)
    with ProgressBars() as progress:
        progress("starting", 0, 1)
        from woundray.checkpoints.evaluate import evaluate_checkpoint
        from woundray.checkpoints.generate import SamplingOptions
        from woundray.cli.tables import print_whole
        from woundray.evaluation.score_tables import score_table
        from woundray.reporting.score_descriptions import missed_lines

        progress("starting", 1, 1)
        checkpoint, options = find_checkpoint(command.source, command.runs), SamplingOptions(command.n, command.seed)
        file = command.json_file or evaluation_file(checkpoint, command.n, command.seed)
        if file.resolve().parent == (checkpoint / EVALUATION).resolve().parent:
            raise UserError(f"--json: {file} is in the folder of the study's own evaluation; give another folder")
        report = evaluate_checkpoint(checkpoint, options, data=command.data, file=file, progress=progress)
    print_whole(score_table(report.scores))
    print_whole("\n".join([*missed_lines(report.scores), *report.notes, f"all figures: {file}"]))
    sys.exit(1 if command.fail_below_thresholds and report.failed else 0)


if __name__ == "__main__":
    main()
