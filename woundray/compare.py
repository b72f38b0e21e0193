"""`woundray compare`: differences of scores between adapters, on pictures of the same seeds."""

from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field

from woundray.checkpoints.find import check_references
from woundray.cli.command import read_flags
from woundray.cli.terminal import ProgressBars, run
from woundray.config.section import Section
from woundray.errors import UserError
from woundray.search.study_folders import find_journal_folder


class Compare(Section):
    """Draw pictures of the same seeds with several checkpoints, and show differences of scores to the first one."""

    sources: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="REF REF ...")] = ()
    """Checkpoint folders, runs' or studies' folders, `best`, runs:/ID or models:/NAME@ALIAS."""
    study: Path | None = None
    """Instead of REFs: the best trials of this study, with its learning curves and settings as charts in --out."""
    top: Annotated[int, Field(ge=2)] = 3
    """Number of trials of --study."""
    n: Annotated[int, tyro.conf.arg(aliases=["-n"]), Field(ge=4)] = 100
    """Pictures of each checkpoint."""
    data: Path | None = None
    """Present folder of the runs' photographs; without it: the folder at training time."""
    out: Path = Path("comparison")
    """Folder of compare.png (a row a checkpoint, a column a seed, both labelled) and of the charts of --study."""
    seed: Annotated[int, Field(ge=0)] = 100_000
    """Seed of the first picture; the default differs from all seeds that a run uses to choose epochs."""
    runs: Path = Path("woundray-runs")
    """Folder of all studies and runs, where `best` is looked up."""


def main() -> None:
    """Entry point of `woundray compare`."""
    run(_compare)


def _compare() -> None:
    command = read_flags(Compare, prog="python -m woundray.compare")
    if bool(command.study) == bool(command.sources) or len(command.sources) == 1:
        raise UserError(f"compare: {len(command.sources)} REFs; give 2 REFs or more, or --study DIR alone")
    if command.sources and "top" in command.model_fields_set:
        raise UserError("--top: has no effect without --study; leave it out with REFs")
    check_references(command.sources, command.runs)
    study = command.study and find_journal_folder(command.study, command.runs)
    from woundray.checkpoints.compare import compare_checkpoints
    from woundray.checkpoints.find import find_checkpoint
    from woundray.checkpoints.generate import SamplingOptions
    from woundray.checkpoints.names import checkpoint_names
    from woundray.cli.tables import print_whole
    from woundray.evaluation.score_tables import difference_table

    if study:
        from woundray.reporting import best_checkpoints, write_charts

        checkpoints = best_checkpoints(study, command.top)
        write_charts(study, command.out)
    else:
        checkpoints = [find_checkpoint(source, command.runs) for source in command.sources]
    if len(checkpoints) < 2:
        raise UserError(
            f"compare: {command.study} has {len(checkpoints)} trial to compare; give a study with 2 or more"
        )
    names, options = checkpoint_names(checkpoints), SamplingOptions(command.n, command.seed)
    with ProgressBars() as progress:
        found = compare_checkpoints(
            list(zip(names, checkpoints, strict=True)), options, data=command.data, out=command.out, progress=progress
        )
    print_whole(difference_table(found, names))
    print(f"bold: the interval of the difference to {names[0]} does not contain 0")
    print(f"pictures: {command.out / 'compare.png'}")


if __name__ == "__main__":
    main()
