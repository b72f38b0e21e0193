"""`woundray COMMAND ...` is `python -m woundray.COMMAND ...`."""

import importlib
import sys

from woundray import __version__
from woundray.cli.terminal import run
from woundray.config.error_messages import nearest
from woundray.errors import UserError

COMMANDS = {
    "doctor": "check this machine, and forecast a study on it",
    "tune": "search the hyperparameters of an adapter: the main job",
    "train": "train one adapter with one configuration",
    "generate": "draw pictures with an adapter",
    "export": "write an adapter for WebUI, ComfyUI or diffusers",
    "fetch": "download weights, and copy them to machines without internet",
    "evaluate": "score an adapter's pictures against real photographs",
    "compare": "score several adapters on the same seeds",
    "augment": "measure whether synthetic pictures help a phase classifier",
    "report": "write the report of a study again",
    "sync": "send MLflow the events that it missed",
    "prepare": "make a checked data set from raw photographs",
    "completion": "print a shell completion script",
}


def main() -> None:
    """Entry point of `woundray`."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in COMMANDS:
        sys.argv = [f"woundray {name}", *sys.argv[2:]]
        importlib.import_module(f"woundray.{name}").main()
    else:
        run(_show_commands)


def _show_commands() -> None:
    """List the commands, or refuse an unknown one."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name == "--version":
        sys.stdout.write(f"woundray {__version__}\n")
        return
    if name in ("-h", "--help"):
        lines = [f"  {command:10} {what}" for command, what in COMMANDS.items()]
        text = ["usage: woundray COMMAND [--help] ...", "", *lines, "", "woundray --version: the version", ""]
        sys.stdout.write("\n".join(text))
        return
    raise UserError(f"{name} is not one of {', '.join(COMMANDS)}{nearest(name, COMMANDS)}")


if __name__ == "__main__":
    main()
