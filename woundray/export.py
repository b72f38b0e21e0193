"""`woundray export`: an adapter in the format of another program."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from woundray.checkpoints.find import check_references
from woundray.cli.command import read_flags
from woundray.cli.terminal import ProgressBars, run
from woundray.config.section import Section


class Export(Section):
    """Write the adapter of a checkpoint for other programs, load it again, and compare it with the trained one."""

    source: Annotated[str, tyro.conf.arg(name="from")]
    """Folder of a checkpoint, run or study (its best), `best` (of the newest study), runs:/ID, models:/NAME@ALIAS."""
    format: Literal["kohya", "diffusers", "merged"]
    """kohya: one .safetensors for WebUI and ComfyUI; diffusers: a folder for load_lora_weights; merged: a folder
    with the whole pipeline, the adapter merged into its UNet."""
    out: Path
    """File or folder to write; it must not exist yet."""
    runs: Path = Path("woundray-runs")
    """Folder of all studies and runs, where `best` is looked up."""
    tracking_uri: str = ""
    """Address of MLflow; empty: MLFLOW_TRACKING_URI, else mlflow.db in the working directory."""


def main() -> None:
    """Entry point of `woundray export`."""
    run(_export)


def _export() -> None:
    command = read_flags(Export, prog="python -m woundray.export")
    check_references([command.source], command.runs, command.tracking_uri)
    from woundray.checkpoints.export import export_checkpoint
    from woundray.checkpoints.find import find_checkpoint

    checkpoint = find_checkpoint(command.source, command.runs, command.tracking_uri)
    with ProgressBars() as progress:
        export_checkpoint(checkpoint, command.out, command.format, progress=progress)
    print(f"{command.out} draws the same pictures as {checkpoint}")


if __name__ == "__main__":
    main()
