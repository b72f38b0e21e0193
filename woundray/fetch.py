"""`woundray fetch`: download weights to this machine, and copy them to machines without internet."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import tyro

from woundray.cli.command import read_flags
from woundray.cli.terminal import ProgressBars, run
from woundray.config.section import Section
from woundray.errors import UserError
from woundray.weights import archive, staging


class Fetch(Section):
    """Download base models (sd15, sd21, sd21-v, sdxl) and metric weights (inception, lpips, vgg16, ...)."""

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Names of weights to fetch or to export; `--list` shows all names."""
    half: bool = False
    """Fetch base models in fp16: half the size, and enough for bf16 and fp16 training."""
    list: bool = False
    """Show names, licences, sizes, and what is on this machine."""
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """With --list: print it as JSON, for a program."""
    export_to: Annotated[Path | None, tyro.conf.arg(name="export")] = None
    """Write the named weights, or all that are on this machine, into this tar file; nothing is fetched."""
    import_from: Annotated[Path | None, tyro.conf.arg(name="import")] = None
    """Unpack the weights of such a tar file on this machine."""


def main() -> None:
    """Entry point of `woundray fetch`."""
    run(_fetch)


def _fetch() -> None:
    command = read_flags(Fetch, prog="python -m woundray.fetch")
    if not (command.names or command.list or command.export_to or command.import_from):
        raise UserError("fetch: give names such as sd21 inception lpips, or --list, --export FILE or --import FILE")
    if command.as_json and not command.list:
        raise UserError("--json: has no effect without --list; give both")
    if command.half and (command.export_to or not command.names):
        raise UserError("--half: has no effect unless weights are fetched; give names, without --export")
    staging.check_names(command.names)
    with ProgressBars() as progress:
        if command.import_from is not None:
            print("brought in:", *archive.import_archive(command.import_from, progress=progress))
        if command.export_to is not None:
            print("exported:", *archive.export_archive(command.names, command.export_to, progress=progress))
        for name in command.names if command.export_to is None else ():
            print(f"{name}: licence {staging.licence_of(name)}", flush=True)
            print(f"{name}: {staging.fetch(name, half=command.half, progress=progress)}")
    if command.list and command.as_json:
        print(json.dumps([asdict(entry) for entry in staging.inventory()], indent=1, default=str))
        return
    for entry in staging.inventory() if command.list else ():
        size = "?" if entry.size_mb is None else f"{entry.size_mb:,.0f} MB"
        print(f"{entry.name:10}  {entry.licence:24}  {size:>9}  {entry.place or 'not on this machine'}")


if __name__ == "__main__":
    main()
