"""The command line: defaults < profile < phase < --config FILE < flags. Nothing slow is imported here."""

import contextlib
import io
import itertools
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, Self, TypeVar

import tyro
import yaml

from woundray.config import Config
from woundray.config.base import Section
from woundray.config.explain import names, nearest
from woundray.config.layers import load, read_yaml
from woundray.errors import UserError
from woundray.machine import gpus
from woundray.model.registry import offline, staged
from woundray.redaction import redact
from woundray.runtime import provide_home

if TYPE_CHECKING:
    from rich.progress import TaskID

SectionType = TypeVar("SectionType", bound=Section)
CommandType = TypeVar("CommandType", bound="Command")


class Command(Section):
    """What every command that trains or draws understands."""

    data: Path | None = None
    """Photographs: a folder that `woundray prepare` wrote, or one with a folder a phase. Empty: drawn phantoms."""
    profile: str = "auto"
    """Settings for a base model and machine: demo, sd15, sd21, sd21-v, sdxl; auto: by what this machine has."""
    config: Path | None = None
    """YAML file with settings of your own; it goes over profile and phase."""
    settings: Annotated[Config, tyro.conf.FlagConversionOff, tyro.conf.arg(name="")] = Config()

    def shortcuts(self) -> dict[str, Any]:
        """Settings that have a flag of their own, by their dotted names."""
        return {"data.root": self.data}

    def with_settings(self, settings: Config) -> Self:
        """The same command with other settings."""
        return self.model_copy(update={"settings": settings})


def parse(command_type: type[CommandType], arguments: list[str] | None = None) -> CommandType:
    """The command with its layered settings.

    Raises:
        UserError: an unknown flag or a value out of range, with the nearest right one.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    flags, rest = _split_dotted(arguments)
    _refuse_unknown(rest, command_type)
    command = read_flags(command_type, rest, prog=_program())
    for name in flags:
        if name not in names(Config):
            raise UserError(f"command line: --{name} is not a setting{nearest(name, names(Config))}")
    shortcuts = {name: value for name, value in command.shortcuts().items() if value is not None}
    flags = {**shortcuts, **flags}
    profile, reason = command.profile, "asked for"
    if profile == "auto":
        profile, reason = choose_profile(_data_root(command, flags))
    logging.getLogger("woundray").info("profile %s: %s", profile, reason)
    settings = load(command.settings.phase, profile=profile, file=command.config, flags=flags)
    return command.with_settings(settings)


def read_flags(
    command_type: type[SectionType],
    arguments: list[str] | None = None,
    *,
    prog: str,
    config: tuple[Any, ...] = (tyro.conf.FlagCreatePairsOff,),
) -> SectionType:
    """A command out of its flags by tyro. Raises UserError for a wrong one: tyro's own words, in one line."""
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            return tyro.cli(
                command_type,
                args=arguments,
                prog=prog,
                description=command_type.__doc__,
                use_underscores=True,
                config=config,
            )
    except SystemExit as ended:
        if not ended.code:  # --help
            raise
    raise UserError(f"command line: {_first_words(told.getvalue())}; see {prog} --help")


def _first_words(box: str) -> str:
    """What tyro says above the line that it draws before its help; where it can't draw frames, a title stands first."""
    lines = [line.strip("│| ") for line in box.splitlines() if not line.startswith(("╭", "╰", "+"))]
    parts = [
        " ".join(group) for ruled, group in itertools.groupby(lines, lambda line: not line.strip("─-")) if not ruled
    ]
    return parts[0 if "╭" in box else 1].split(" Got errors:")[0].split(" (required)")[0].rstrip(". ")


def choose_profile(data: Path | None, *, has_gpu: bool | None = None) -> tuple[str, str]:
    """Name of the profile that suits this machine, and why; it is looked at where `has_gpu` is None."""
    if data is None:
        return "demo", "no --data: drawn phantoms and the packaged tiny model"
    if not (bool(gpus()) if has_gpu is None else has_gpu):
        return "demo", "no GPU here: the packaged tiny model on CPU cores"
    for name in ("sd21", "sd15"):
        if staged(name):
            return name, f"a GPU, and the weights of {name} are on this machine"
    if not offline():
        return "sd21", "a GPU; the weights of sd21 are fetched from the model hub"
    return "demo", "a GPU, but no weights on this machine and HF_HUB_OFFLINE is set: the packaged tiny model"


def run(main: Callable[[], None]) -> None:
    """Runs a command's body: a user's mistake is one line and exit code 2; Ctrl-C is exit code 130."""
    configure_logging()
    if os.environ.get("NO_COLOR"):  # rich knows it by itself
        tyro._experimental_options["ansi_codes"] = False
    try:
        provide_home()
        main()
    except UserError as error:
        fail(str(error))
    except KeyboardInterrupt as error:
        sys.stderr.write(f"\n{error or 'stopped'}\n")
        sys.exit(130)


class Stages:
    """Progress bars with rate and time left, one a stage of slow work, on a terminal; plain lines elsewhere."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._live = self._progress.console.is_terminal
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Told what is being done, how much of it is done, and how much there is."""
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total, rate="")
            if not self._live:
                self._progress.console.print(f"{stage} ...")
        task = self._tasks[stage]
        self._progress.update(task, completed=done, total=total)
        self._progress.update(task, rate=rate(self._progress.tasks[task].speed, total))
        if self._live and done < total:
            self._progress.start()
        elif all(task.finished for task in self._progress.tasks):
            self._stop()  # the next thing to draw may be a table of trials

    def _stop(self) -> None:
        if self._live:  # elsewhere rich would write an empty line
            self._progress.stop()


def rate(per_s: float | None, total: int) -> str:
    """`3.2/s`, or `41.3 MB/s` where so many are counted that they are bytes; empty while it is not known."""
    if per_s is None:
        return ""
    return f"{per_s / 1e6:.1f} MB/s" if total > 10_000_000 else f"{per_s:.1f}/s"


def fail(message: str) -> NoReturn:
    """One line on stderr, without secrets, and exit code 2."""
    sys.stderr.write(f"woundray: {redact(' '.join(message.split()))}\n")
    sys.exit(2)


class Redacted(logging.Formatter):
    """Lines of a log, and tracebacks below them, without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def configure_logging() -> None:
    """Plain lines of woundray's own on stderr; other libraries only from warnings up."""
    logging.basicConfig(level=logging.WARNING)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(Redacted("%(message)s"))
    logging.getLogger("woundray").setLevel(logging.INFO)


def _data_root(command: Command, flags: dict[str, Any]) -> Path | None:
    """Where the photographs will come from, as far as it is known before a profile is chosen."""
    if "data.root" in flags:
        return Path(flags["data.root"])
    if command.config is None:
        return None
    values = read_yaml(command.config)
    section = values.get("data")
    root = section.get("root") if isinstance(section, dict) else values.get("data.root")
    return Path(root) if root else None


def _split_dotted(arguments: list[str]) -> tuple[dict[str, Any], list[str]]:
    """`--lora.rank 8` and `--lora.rank=8` -> {"lora.rank": 8}; several values make a list. The rest as it is."""
    flags: dict[str, Any] = {}
    rest: list[str] = []
    position = 0
    while position < len(arguments):
        argument = arguments[position]
        position += 1
        name, equals, value = argument.removeprefix("--").partition("=")
        name = name.replace("-", "_")
        if not argument.startswith("--") or "." not in name:
            rest.append(argument)
            continue
        values = [value] if equals else []
        while not equals and position < len(arguments) and not arguments[position].startswith("--"):
            values.append(arguments[position])
            position += 1
        if not values:
            raise UserError(f"command line: --{name} has no value")
        loaded = [yaml.safe_load(text) for text in values]
        flags[name] = loaded[0] if len(loaded) == 1 else loaded
    return flags, rest


def _refuse_unknown(rest: list[str], command_type: type[Command]) -> None:
    known = {"help", "phase", "tyro_print_completion", *_flags(command_type)}
    for argument in rest:
        name = argument.removeprefix("--").partition("=")[0].replace("-", "_")
        if argument.startswith("--") and name not in known:
            raise UserError(f"command line: {argument} is not a flag{nearest(name, [*known, *names(Config)])}")


def _flags(command_type: type[Command]) -> list[str]:
    """Names of a command's own flags; a field may be spelt otherwise, as `json` is, which pydantic has taken."""
    found = []
    for name, field in command_type.model_fields.items():
        spelt = [mark.name for mark in field.metadata if getattr(mark, "name", None)]
        found += [*spelt] or [name]
    return [name for name in found if name != "settings"]


def _program() -> str:
    return sys.argv[0] if "woundray " in sys.argv[0] else f"python -m woundray.{Path(sys.argv[0]).stem}"
