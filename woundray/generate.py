"""Draw pictures from adapters, filter them, and keep where each came from."""

import sys
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field

from woundray.checkpoints.find import check_references
from woundray.cli.command import read_flags, refuse_beside
from woundray.cli.terminal import ProgressBars, run
from woundray.config.section import Section
from woundray.errors import UserError


class Generate(Section):
    """Draws pictures from checkpoints, one seed a picture, into a folder that a data set can take in."""

    sources: Annotated[tuple[str, ...], tyro.conf.arg(name="from", metavar="REF ...")] = ()
    """Folders of checkpoints, runs or studies (their best), `best` (of the newest study), runs:/ID, models:/NAME@ALIAS;
    several are drawn from one after another."""
    n: Annotated[int, tyro.conf.arg(aliases=["-n"]), Field(ge=1)] = 16
    """Pictures of each."""
    out: Path | None = None
    """Folder of the pictures; new ones are added to those in it. Empty: `generated` in the checkpoint's folder."""
    filter: bool = False
    """Draw until n pictures pass the filter (quality.filtering of the run); refused ones go to rejected/."""
    balance: Annotated[int, Field(ge=0)] | None = None
    """Instead of n: so many that each phase has this number, its photographs in --data counted; 0: as many as the
    largest phase has. Give one --from of each phase."""
    again: Path | None = None
    """Draw the pictures of this manifest.csv anew, and say how many have the same pixels."""
    data: Path | None = None
    """Where the photographs are now, for --filter and --balance; empty: where they were."""
    grid: bool = False
    """Also write grid.png with the first 100."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the first picture; the next ones have the next seeds."""
    prompt: str | None = None
    """What to draw; without it, as the run was trained. An empty one is drawn as it is: from no words."""
    steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Sampling steps; without it, as the run's epochs were drawn."""
    guidance_scale: Annotated[float, Field(ge=0)] | None = None
    """Strength of guidance; without it, as the run's epochs were drawn."""
    batch_size: Annotated[int, Field(ge=1)] | None = None
    """Pictures at a time on a GPU; without it, as in the run, fewer where its memory is small. A CPU draws one at a
    time."""
    tries: Annotated[int, Field(ge=1)] = 20
    """Pictures that --filter draws at most for each one that is wanted. It ends sooner where it is clear that so many
    are not enough."""
    keep_rejected: Annotated[int, Field(ge=0)] = 50
    """Refused pictures that stay to be looked at; rejected.csv lists all."""
    runs: Path = Path("woundray-runs")
    """Folder of all studies and runs, where `best` is looked up."""
    tracking_uri: str = ""
    """Address of MLflow; empty: MLFLOW_TRACKING_URI, else mlflow.db in the working directory."""


def main() -> None:
    """Entry point of `woundray generate`."""
    run(_generate)


def _generate() -> None:
    command = read_flags(Generate, prog="python -m woundray.generate")
    if (command.again is None) == (not command.sources):
        raise UserError("generate: give --from REF, or --again manifest.csv")
    refuse_beside(command, "again", but=("out", "runs", "tracking_uri"))
    if command.balance is not None and "n" in command.model_fields_set:
        raise UserError("--balance: says how many pictures there shall be, as -n does; leave one of them out")
    for flag in ("keep_rejected", "tries"):
        if flag in command.model_fields_set and not command.filter:
            raise UserError(f"--{flag}: is of what --filter refuses; give both")
    if len(command.sources) > 1 and command.out is None:
        raise UserError("--out: give a folder for the pictures of several checkpoints")
    check_references(command.sources, command.runs, command.tracking_uri)
    if command.again and not command.again.is_file():
        raise UserError(f"--again: there is no file {command.again}; give the manifest.csv of drawn pictures")
    if command.data and not command.data.is_dir():
        raise UserError(f"--data: {command.data} is no folder; give the one that `woundray prepare` wrote")
    sys.exit(_draw_again(command, command.again) if command.again else _draw(command))


def _draw(command: Generate) -> int:
    with ProgressBars() as stages:
        stages("starting", 0, 1)
        from woundray.checkpoints.generate import SamplingOptions
        from woundray.cli.tables import print_whole
        from woundray.generation.fill_folder import fill_folder, find_sources
        from woundray.generation.generate_until_enough import FilterOptions, GenerationRequest
        from woundray.generation.picture_folder import PictureFolder

        stages("starting", 1, 1)
        sources = find_sources(command.sources, command.runs, command.tracking_uri)
        out = command.out or sources[0].checkpoint / "generated"
        options = SamplingOptions(
            command.n, command.seed, command.steps, command.guidance_scale, command.prompt, command.batch_size
        )
        filter_options = FilterOptions(command.tries, command.keep_rejected) if command.filter else None
        request = GenerationRequest(options, filter_options, command.data)
        pass_rates = fill_folder(out, sources, request, balance=command.balance, progress=stages)
    print_whole("\n".join(map(str, pass_rates)))
    print(f"pictures and manifest.csv in {out}")
    if command.grid:
        print(f"grid of the first {PictureFolder(out).write_grid()}")
    return 1 if any(pass_rate.missing for pass_rate in pass_rates) else 0


def _draw_again(command: Generate, manifest: Path) -> int:
    from woundray.generation.regenerate import regenerate

    out = command.out or manifest.parent / "again"
    with ProgressBars() as stages:
        total, same = regenerate(manifest, out, command.runs, command.tracking_uri, stages)
    print(f"{same} of {total} pictures have the same pixels; they are in {out}")
    return 0 if same == total else 1


if __name__ == "__main__":
    main()
