"""Merge the layers of the configuration: defaults < profile < file of the phase < --config FILE < command line."""

from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any

import yaml

from woundray.config import Config
from woundray.config.error_messages import nearest
from woundray.errors import UserError

_PACKAGE = Path(__file__).parents[1]

PROFILE = "profile"
"""Key in a --config FILE that selects a profile, as the flag does; it is not a setting of a run."""

PHASE_FILES = {"I": "phase_I", "P": "phase_P", "R": "phase_R", "all": "all_phases"}


def packaged(folder: str) -> Path:
    """Return the folder `configs` or `search_spaces`: in an installed package, or next to it in a checkout."""
    inside = _PACKAGE / folder
    return inside if inside.is_dir() else _PACKAGE.parent / folder


class _Loader(yaml.SafeLoader):
    """YAML loader that reads all scalars but null as strings; the settings' own types convert them.

    YAML's implicit types turn `no` into false, `001` into 1, `2026-11-28` into a date and `12:30` into 750, and leave
    `1e-4` a string.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012  as in the class above
        first: [(tag, pattern) for tag, pattern in resolvers if tag.endswith((":null", ":merge"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Refuse a key that occurs twice; YAML itself keeps the last one."""
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise _TwiceError(f"line {key.start_mark.line + 1}: {key.value} comes twice; leave one out")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class _TwiceError(Exception):
    """A key occurs twice in a mapping."""


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds one mapping. Numbers, true and false stay strings: a setting's type converts them.

    Raises:
        UserError: names the file, and the line if it is known.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give a YAML file that can be read") from None
    except _TwiceError as error:
        raise UserError(f"{path}: {error}") from None
    except (yaml.YAMLError, ValueError, AttributeError) as error:  # the last two: a value that does not fit its tag
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values or {}, dict):
        raise UserError(f"{path}: should hold `key: value` lines, not a {type(values).__name__}")
    return values or {}


def read_settings(path: Path) -> dict[str, Any]:
    """Read a YAML file with nested or dotted names; returns dotted name -> value.

    Raises:
        UserError: as `read_yaml`; or a setting occurs in both spellings.
    """
    settings: dict[str, Any] = {}
    values = read_yaml(path)
    try:
        pairs = list(_pairs(values))
    except RecursionError:
        raise UserError(f"{path}: an anchor holds itself; write its lines in full") from None
    for name, value in pairs:
        if name in settings:
            raise UserError(f"{path}: {name} comes twice, as {settings[name]!r} and as {value!r}; leave one out")
        settings[name] = value
    return settings


def _pairs(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted names and values; a name that is nested and dotted comes twice."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _pairs(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def profile_path(name: str, source: str = "--profile") -> Path:
    """Return the file of a packaged profile. Raises UserError with the nearest known name."""
    known = sorted(path.stem for path in packaged("configs").glob("profiles/*.yaml"))
    if name not in known:
        raise UserError(f"{source}: {name} is not one of {', '.join(known)}{nearest(str(name), known)}")
    return packaged("configs") / "profiles" / f"{name}.yaml"


def for_phase(config: Config, phase: str) -> Config:
    """Return the configuration for another phase: values of the old phase's file become those of the new one's.

    A value that differs from the old phase's file was changed by the user, and is kept.
    """
    own, other = (_phase_settings(name) for name in (config.phase, phase))
    values = config.flat()
    unchanged = {name: value for name, value in other.items() if values[name] == own.get(name)}
    return config.with_values(unchanged | {"phase": phase})


def load(
    phase: str | None = None, *, profile: str, file: Path | None = None, flags: dict[str, Any] | None = None
) -> Config:
    """Load a configuration. Each layer is validated when it is applied, so that an error names its source.

    Args:
        phase: I, P, R or all, with the precedence of a flag; None: that of the flags, else of the file, else I.
        profile: name of a packaged profile: demo, sd15, sd21, sd21-v, sdxl.
        file: the user's YAML file, nested or dotted; a `profile` in it is ignored here.
        flags: dotted name -> value from the command line; strings are converted by the setting's type.
    """
    flags = (flags or {}) | ({} if phase is None else {"phase": phase})
    written = read_settings(file) if file else {}
    written.pop(PROFILE, None)
    chosen = next((values for values in (flags, written) if "phase" in values), {"phase": "I"})
    config = Config.from_nested({"phase": chosen["phase"]}, source=str(file) if chosen is written else "command line")
    for path in (packaged("configs") / "quality_thresholds.yaml", profile_path(profile), _phase_path(config.phase)):
        config = config.with_values(read_settings(path), source=str(path))
    return config.with_values(written, source=str(file)).with_values(flags, source="command line")


def _phase_path(phase: str) -> Path:
    return packaged("configs") / f"{PHASE_FILES[phase]}.yaml"


def _phase_settings(phase: str) -> dict[str, Any]:
    """Return dotted name -> value of a phase's file, with JSON types."""
    settings = read_settings(_phase_path(phase))
    return {name: value for name, value in Config().with_values(settings).flat().items() if name in settings}
