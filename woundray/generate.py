"""Draw pictures from an adapter."""

from pathlib import Path
from typing import Annotated

import tyro

from woundray.cli import Stages, read_flags, run
from woundray.config.base import Section
from woundray.errors import UserError


class Generate(Section):
    """Draws pictures from a checkpoint of any run or trial, one seed a picture."""

    source: Annotated[str, tyro.conf.arg(name="from")]
    """Folder of a checkpoint, run or study (its best), `best` (of the newest study), runs:/ID, models:/NAME@ALIAS."""
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 16
    """Pictures."""
    out: Path | None = None
    """Folder of the pictures; empty: `generated` in the checkpoint's folder."""
    grid: bool = False
    """Also write grid.png with all of them."""
    seed: int = 0
    """Seed of the first picture; the next ones have the next seeds."""
    steps: int | None = None
    """Sampling steps; empty: as the run's epochs were drawn."""
    guidance_scale: float | None = None
    """Strength of guidance; empty: as the run's epochs were drawn."""
    runs: Path = Path("woundray-runs")
    """Folder of all studies and runs, where `best` is looked up."""
    tracking_uri: str = ""
    """Address of MLflow; empty: MLFLOW_TRACKING_URI, else mlflow.db in the working directory."""


def main() -> None:
    """Entry point of `woundray generate`."""
    run(_generate)


def _generate() -> None:
    command = read_flags(Generate, prog="python -m woundray.generate")
    if command.n < 1:
        raise UserError(f"-n: {command.n} pictures; give at least 1")
    from woundray.training.generation import Wish, draw_from, find_checkpoint

    checkpoint = find_checkpoint(command.source, command.runs, command.tracking_uri)
    out = command.out or checkpoint / "generated"
    wish = Wish(command.n, command.seed, command.steps, command.guidance_scale)
    with Stages() as stages:
        draw_from(checkpoint, wish, out, with_grid=command.grid, stage=stages)
    print(f"{command.n} pictures of {checkpoint} in {out}")


if __name__ == "__main__":
    main()
