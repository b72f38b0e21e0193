"""`woundray completion`: shell completion script."""

import importlib
from typing import Annotated, Any, Literal, Union

import tyro

from woundray.cli.command import read_flags
from woundray.cli.terminal import run
from woundray.config.section import Section


class Completion(Section):
    """Print a script with which a shell completes commands, flags and settings of `woundray`."""

    shell: Annotated[Literal["bash", "zsh", "tcsh"], tyro.conf.Positional] = "bash"
    """Shell of the script."""


def main() -> None:
    """Entry point of `woundray completion`."""
    run(_completion)


def _completion() -> None:
    from woundray.__main__ import COMMANDS

    command = read_flags(Completion, prog="python -m woundray.completion")
    described = {name: getattr(importlib.import_module(f"woundray.{name}"), name.capitalize()) for name in COMMANDS}
    parts = [Annotated[kind, tyro.conf.subcommand(name)] for name, kind in described.items()]
    program: Any = Union[tuple(parts)]  # noqa: UP007  made of a list
    options = (tyro.conf.FlagCreatePairsOff,)
    tyro.cli(
        program, prog="woundray", args=["--tyro-print-completion", command.shell], use_underscores=True, config=options
    )


if __name__ == "__main__":
    main()
