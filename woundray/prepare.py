"""`woundray prepare`: a checked data set from raw photographs, or raw photographs of drawn wounds."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from woundray.cli.command import read_flags, refuse_combined
from woundray.cli.terminal import ProgressBars, run
from woundray.config.section import Section
from woundray.errors import UserError


class Prepare(Section):
    """Read raw photographs, CSVs of phases and wound boxes; write pictures, manifest.csv and summary.txt."""

    out: Path
    """Folder of the checked data set."""
    raw: Path | None = None
    """Folder with Depth_RGB/, the phase CSV and the bounding-box CSV."""
    phantoms: Annotated[int, Field(ge=1)] | None = None
    """Instead of raw: write drawn wounds of this number of patients, in the raw layout."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of drawn wounds."""
    max_side: Annotated[int, Field(ge=1)] = 1024
    """Longest side, px; larger pictures are shrunk to it."""
    duplicate_correlation: float = 0.91
    """Correlation from which two pictures are near-duplicates, as data.duplicate_correlation."""


def main() -> None:
    """Entry point of `woundray prepare`."""
    run(_prepare)


def _prepare() -> None:
    command = read_flags(Prepare, prog="python -m woundray.prepare")
    if (command.raw is None) == (command.phantoms is None):
        raise UserError("prepare: give one of --raw DIR and --phantoms N")
    refuse_combined(command, "raw", but=("out", "max_side"))
    refuse_combined(command, "phantoms", but=("out", "seed"))
    if command.phantoms is not None:
        from woundray.data.phantoms.render import write_raw

        write_raw(command.out, command.phantoms, seed=command.seed)
        print(f"drawn wounds of {command.phantoms} patients, as raw photographs, in {command.out}")
    if command.raw is not None:
        from woundray.data.prepare import prepare

        with ProgressBars() as progress:
            prepare(
                command.raw,
                command.out,
                max_side_px=command.max_side,
                duplicate_correlation=command.duplicate_correlation,
                progress=lambda done, total: progress("photographs", done, total),
            )
        print((command.out / "summary.txt").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
