"""`woundray generate`: draw pictures with adapters, filter them, and record the provenance of each."""

import sys
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field

from woundray.checkpoints.find import check_references
from woundray.cli.command import read_flags, refuse_combined
from woundray.cli.terminal import ProgressBars, run
from woundray.config.section import Section
from woundray.errors import UserError


class Generate(Section):
    """Draw pictures with checkpoints, one seed for each, into a folder with the layout of a data set."""

    sources: Annotated[tuple[str, ...], tyro.conf.arg(name="from", metavar="REF ...")] = ()
    """Folders of checkpoints, runs or studies (their best), `best` (of the newest study), runs:/ID, models:/NAME@ALIAS;
    several are used one after another."""
    n: Annotated[int, tyro.conf.arg(aliases=["-n"]), Field(ge=1)] = 16
    """Pictures of each checkpoint."""
    out: Path | None = None
    """Folder of the pictures; new ones are added to those in it. Empty: `generated` in the checkpoint's folder."""
    filter: bool = False
    """Draw until n pictures pass the filter (quality.filtering of the run); refused ones go to rejected/."""
    balance: Annotated[int, Field(ge=0)] | None = None
    """Instead of n: fill each phase up to this number, its photographs in --data included; 0: to the size of the
    largest phase. Give one --from of each phase."""
    again: Path | None = None
    """Draw the pictures of this manifest.csv again, and count those with the same pixels."""
    data: Path | None = None
    """Present folder of the photographs, for --filter and --balance; without it: the folder at training time."""
    grid: bool = False
    """Also write grid.png with the first 100."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the first picture; the next ones have the next seeds."""
    prompt: str | None = None
    """Prompt; without it, that of the run's training. An empty prompt is used as it is."""
    steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Sampling steps; without it, those of the run's epochs."""
    guidance_scale: Annotated[float, Field(ge=0)] | None = None
    """Guidance scale; without it, that of the run's epochs."""
    batch_size: Annotated[int, Field(ge=1)] | None = None
    """Pictures in a batch on a GPU; without it, as in the run, fewer if its memory is small. A CPU draws one at a
    time."""
    tries: Annotated[int, Field(ge=1)] = 20
    """Limit of --filter: pictures drawn for each one needed. It ends sooner when too few can be expected to pass."""
    keep_rejected: Annotated[int, Field(ge=0)] = 50
    """Refused pictures that are kept for inspection; rejected.csv lists all."""
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
    refuse_combined(command, "again", but=("out", "runs", "tracking_uri"))
    if command.balance is not None and "n" in command.model_fields_set:
        raise UserError("--balance: sets the number of pictures, as -n does; leave one of them out")
    for flag in ("keep_rejected", "tries"):
        if flag in command.model_fields_set and not command.filter:
            raise UserError(f"--{flag}: has no effect without --filter; give both")
    if len(command.sources) > 1 and command.out is None:
        raise UserError("--out: give a folder for the pictures of several checkpoints")
    check_references(command.sources, command.runs, command.tracking_uri)
    if command.again and not command.again.is_file():
        raise UserError(f"--again: there is no file {command.again}; give the manifest.csv of drawn pictures")
    if command.data and not command.data.is_dir():
        raise UserError(f"--data: {command.data} is no folder; give the one that `woundray prepare` wrote")
    sys.exit(_draw_again(command, command.again) if command.again else _draw(command))


def _draw(command: Generate) -> int:
    with ProgressBars() as progress:
        progress("starting", 0, 1)
        from woundray.checkpoints.generate import SamplingOptions
        from woundray.cli.tables import print_whole
        from woundray.generation.fill_folder import fill_folder, find_sources
        from woundray.generation.generate_until_enough import FilterOptions, GenerationRequest
        from woundray.generation.picture_folder import PictureFolder

        progress("starting", 1, 1)
        sources = find_sources(command.sources, command.runs, command.tracking_uri)
        out = command.out or sources[0].checkpoint / "generated"
        options = SamplingOptions(
            command.n, command.seed, command.steps, command.guidance_scale, command.prompt, command.batch_size
        )
        filter_options = FilterOptions(command.tries, command.keep_rejected) if command.filter else None
        request = GenerationRequest(options, filter_options, command.data)
        pass_rates = fill_folder(out, sources, request, balance=command.balance, progress=progress)
    print_whole("\n".join(map(str, pass_rates)))
    print(f"pictures and manifest.csv in {out}")
    if command.grid:
        print(f"grid of the first {PictureFolder(out).write_grid()}")
    return 1 if any(pass_rate.missing for pass_rate in pass_rates) else 0


def _draw_again(command: Generate, manifest: Path) -> int:
    from woundray.generation.regenerate import regenerate

    out = command.out or manifest.parent / "again"
    with ProgressBars() as progress:
        total, same = regenerate(manifest, out, command.runs, command.tracking_uri, progress)
    print(f"{same} of {total} pictures have the same pixels; they are in {out}")
    return 0 if same == total else 1


if __name__ == "__main__":
    main()
