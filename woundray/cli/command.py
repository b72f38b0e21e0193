"""Command line -> command with settings. Flags override all other layers (see `woundray.config.layers`).

Nothing slow is imported here.
"""

import logging
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

import tyro
from pydantic import PrivateAttr

from woundray import __version__
from woundray.cli.flags import Flag, SectionType, flags_of, read_words
from woundray.cli.help import requested_help, show_help
from woundray.config import Config
from woundray.config.error_messages import fields
from woundray.config.layers import PROFILE, load, profile_path, read_settings
from woundray.config.section import Section
from woundray.errors import UserError
from woundray.system.hardware import gpus
from woundray.weights.base_models import staged_folder
from woundray.weights.repositories import offline

CommandType = TypeVar("CommandType", bound="Command")

log = logging.getLogger(__name__)


class Command(Section):
    """Flags of every command that trains or measures."""

    data: Path | None = None
    """Photographs: a folder that `woundray prepare` wrote, or one with a folder a phase; short for --data.root. Without
    it: drawn phantoms."""
    profile: str | None = None
    """Settings for a base model and machine: demo, sd15, sd21, sd21-v, sdxl; auto, or not given: chosen for this
    machine. A line `profile: sd15` in --config FILE names one, too."""
    config: Path | None = None
    """YAML file with settings of your own; it overrides profile and phase, and flags override it."""
    settings: Annotated[Config, tyro.conf.FlagConversionOff, tyro.conf.arg(name="")] = Config()
    _typed: dict[str, Any] = PrivateAttr(default_factory=dict)
    _profile_reason: str = PrivateAttr("")

    def log_profile(self) -> None:
        """Log which profile the settings come from, and why. (A resumed study has settings in its own file.)"""
        log.info("%s", self._profile_reason)

    @property
    def typed(self) -> dict[str, Any]:
        """Settings that the user gave, by dotted name: by flags, --config FILE, or a profile's name."""
        return self._typed

    def shortcuts(self) -> dict[str, Any]:
        """Return settings that have a short flag, by dotted name; None for a flag that was not given."""
        return {"data.root": self.data}

    def with_settings(self, settings: Config, typed: Iterable[str] = ()) -> Self:
        """Return the command with other settings; `typed` are names of the settings that the user gave."""
        command = self.model_copy(update={"settings": settings})
        values = settings.flat()
        command._typed = {name: values[name] for name in typed}
        return command


def parse(command_type: type[CommandType], arguments: list[str] | None = None) -> CommandType:
    """Parse a command line into a command with its layered settings.

    Raises:
        UserError: an unknown flag, a value out of range, or two for one setting; with the mend.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    _handle_help(command_type, arguments, _program())
    settings = {name: Flag.of(name, info, is_setting=True) for name, info in fields(Config).items()}
    words = read_words(arguments, [*flags_of(command_type), *settings.values()])
    command = command_type(**{name: value for name, value in words.items() if name not in settings})
    flags = {name: value for name, value in words.items() if name in settings}
    for name, value in command.shortcuts().items():
        if value is not None:
            typed = settings[name].checked(value)
            if flags.setdefault(name, typed) != typed:
                raise UserError(f"command line: {name} is given twice: {typed} by its short flag, and {flags[name]}")

    written = read_settings(command.config) if command.config else {}
    profile_name = written.pop(PROFILE, None) or "auto"
    source = f"{command.config}: profile"
    if command.profile is not None:
        profile_name, source = command.profile, "--profile"
    named = [] if profile_name == "auto" else list(read_settings(profile_path(profile_name, source)))
    profile, reason = profile_name, "asked for"
    if profile_name == "auto":
        profile, reason = choose_profile(_root(flags.get("data.root", written.get("data.root"))))
    config = load(profile=profile, file=command.config, flags=flags)
    overridden = [name for name in flags if name in written and settings[name].checked(written[name]) != flags[name]]
    if overridden:
        log.info("flags go over %s: %s", command.config, ", ".join(overridden))
    command = command.model_copy(update={"profile": profile_name}).with_settings(config, [*named, *written, *flags])
    command._profile_reason = f"profile {profile}: {reason}"
    return command


def read_flags(command_type: type[SectionType], arguments: list[str] | None = None, *, prog: str) -> SectionType:
    """Parse the command line of a command without settings; `model_fields_set` has the fields that were given.

    Raises:
        UserError: a flag or value that is wrong, or one that is missing, in one line.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    _handle_help(command_type, arguments, prog)
    flags = flags_of(command_type)
    values = read_words(arguments, flags)
    missing = [flag.shown for flag in flags if flag.info.is_required() and flag.field not in values]
    if missing:
        raise UserError(f"command line: {missing[0]} is missing; see {prog} --help")
    return command_type(**values)


def refuse_combined(command: Section, field: str, but: Iterable[str] = ()) -> None:
    """Refuse flags that have no effect beside a field's flag, except those of `but`; raise UserError."""
    if field not in command.model_fields_set:
        return
    shown = {flag.field: flag.shown for flag in flags_of(type(command))}
    idle = [name for name in shown if name in command.model_fields_set - {field, *but}]
    if idle:
        raise UserError(f"command line: {shown[idle[0]]} has no effect with {shown[field]}; leave one of them out")


def choose_profile(data: Path | None, *, has_gpu: bool | None = None) -> tuple[str, str]:
    """Return the name of the profile for this machine, and the reason. `has_gpu` None: look for a GPU."""
    if data is None:
        return "demo", "no --data: drawn phantoms and the packaged tiny model"
    if not (bool(gpus()) if has_gpu is None else has_gpu):
        return "demo", "no GPU here: the packaged tiny model on CPU cores"
    for name in ("sd21", "sd15"):
        if staged_folder(name):
            return name, f"a GPU, and the weights of {name} are on this machine"
    if not offline():
        return "sd21", "a GPU; the weights of sd21 are fetched from the model hub"
    return "demo", "a GPU, but no weights on this machine and HF_HUB_OFFLINE is set: the packaged tiny model"


def _root(value: Any) -> Path | None:
    """Return the given folder of the photographs, not yet checked."""
    return None if value is None else Path(str(value))


def _handle_help(command_type: type[Section], arguments: list[str], prog: str) -> None:
    """Handle `--version`, `--help` and shell completion of a single command, and exit."""
    if any(argument.startswith(("--tyro-", "--tyro_")) for argument in arguments):
        tyro.cli(command_type, args=arguments, prog=prog, use_underscores=True, config=(tyro.conf.FlagCreatePairsOff,))
    if arguments[:1] == ["--version"]:
        sys.stdout.write(f"woundray {__version__}\n")
        sys.exit()
    sections_asked = requested_help(arguments)
    if sections_asked is not None:
        show_help(command_type, sections_asked, prog)
        sys.exit()


def _program() -> str:
    return sys.argv[0] if "woundray " in sys.argv[0] else f"python -m woundray.{Path(sys.argv[0]).stem}"
