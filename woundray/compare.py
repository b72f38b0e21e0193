"""Compare several adapters on pictures of the same seeds."""

from pathlib import Path
from typing import Annotated

import tyro

from woundray.cli import Stages, read_flags, run
from woundray.config.base import Section
from woundray.errors import UserError


class Compare(Section):
    """Draws pictures of the same seeds from several checkpoints; differences of their scores to the first's."""

    sources: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="REF REF ...")]
    """Checkpoint folders, runs' or studies' folders, or `best`."""
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 100
    """Pictures of each."""
    data: Path | None = None
    """Where the runs' photographs are now; empty: where they were."""
    out: Path = Path("comparison")
    """Folder of compare.png: a row a checkpoint, a column a seed."""
    seed: int = 100_000
    """Seed of the first picture; by default none that a run was steered by."""
    runs: Path = Path("woundray-runs")
    """Folder of all studies and runs, where `best` is looked up."""


def main() -> None:
    """Entry point of `woundray compare`."""
    run(_compare)


def _compare() -> None:
    command = read_flags(Compare, prog="python -m woundray.compare")
    if command.n < 4 or len(command.sources) < 2:
        raise UserError(f"compare: {len(command.sources)} REFs, -n {command.n}; give 2 REFs or more and 4 pictures")
    from rich.console import Console

    from woundray.evaluation.table import difference_table
    from woundray.training.appraisal import compare
    from woundray.training.generation import Wish, find_checkpoint

    checkpoints = [find_checkpoint(source, command.runs) for source in command.sources]
    with Stages() as stages:
        found = compare(checkpoints, Wish(command.n, command.seed), data=command.data, out=command.out, stage=stages)
    Console().print(difference_table(found, [str(checkpoint) for checkpoint in command.sources]))
    print(f"bold: the interval of the difference to {command.sources[0]} leaves 0 out")
    print(f"pictures, a row each in this order: {command.out / 'compare.png'}")


if __name__ == "__main__":
    main()
