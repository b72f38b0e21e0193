"""Layers of the configuration: defaults < profile < phase's file < --config FILE < the command line, as typed."""

from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any

import yaml

from woundray.config import Config
from woundray.config.error_messages import nearest
from woundray.errors import UserError

_PACKAGE = Path(__file__).parents[1]

PROFILE = "profile"
"""Name in a --config FILE that asks for a profile, as the flag does; it is no setting of a run."""

PHASE_FILES = {"I": "phase_I", "P": "phase_P", "R": "phase_R", "all": "all_phases"}


def packaged(folder: str) -> Path:
    """The folder `configs` or `search_spaces`: inside an installed package, or beside it in a checkout."""
    inside = _PACKAGE / folder
    return inside if inside.is_dir() else _PACKAGE.parent / folder


class _Loader(yaml.SafeLoader):
    """YAML whose scalars are text, but for null: their types are those of the settings, and no guess.

    YAML's own guess makes false of `no`, 1 of `001`, a date of `2026-11-28` and 750 of `12:30`, and leaves `1e-4` text.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012  as in the class above
        first: [(tag, pattern) for tag, pattern in resolvers if tag.endswith((":null", ":merge"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """YAML takes the last of two lines of one name; here it is refused."""
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise _TwiceError(f"line {key.start_mark.line + 1}: {key.value} comes twice; leave one out")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class _TwiceError(Exception):
    """Two lines of one name."""


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file with one mapping; numbers, true and false are text: a setting's type says what they are.

    Raises:
        UserError: names the file, and the line where there is one.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give a YAML file that can be read") from None
    except _TwiceError as error:
        raise UserError(f"{path}: {error}") from None
    except (yaml.YAMLError, ValueError, AttributeError) as error:  # the last two of values that a tag does not fit
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values or {}, dict):
        raise UserError(f"{path}: should hold `key: value` lines, not a {type(values).__name__}")
    return values or {}


def read_settings(path: Path) -> dict[str, Any]:
    """Dotted name -> value of a YAML file, whose names may be nested or dotted.

    Raises:
        UserError: as `read_yaml`; or a setting is there in both spellings.
    """
    settings: dict[str, Any] = {}
    values = read_yaml(path)
    try:
        pairs = list(_pairs(values))
    except RecursionError:
        raise UserError(f"{path}: an anchor holds itself; write its lines out") from None
    for name, value in pairs:
        if name in settings:
            raise UserError(f"{path}: {name} comes twice, as {settings[name]!r} and as {value!r}; leave one out")
        settings[name] = value
    return settings


def _pairs(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _pairs(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def profile_path(name: str, source: str = "--profile") -> Path:
    """File of a packaged profile. Raises UserError with the nearest name that exists."""
    known = sorted(path.stem for path in packaged("configs").glob("profiles/*.yaml"))
    if name not in known:
        raise UserError(f"{source}: {name} is not one of {', '.join(known)}{nearest(str(name), known)}")
    return packaged("configs") / "profiles" / f"{name}.yaml"


def for_phase(config: Config, phase: str) -> Config:
    """The same configuration for another phase: what the phase's file sets, and nobody changed, is the other's."""
    own, other = (_phase_settings(name) for name in (config.phase, phase))
    values = config.flat()
    unchanged = {name: value for name, value in other.items() if values[name] == own.get(name)}
    return config.with_values(unchanged | {"phase": phase})


def load(
    phase: str | None = None, *, profile: str, file: Path | None = None, flags: dict[str, Any] | None = None
) -> Config:
    """All layers of one configuration; each is validated as it is laid, so that an error names its source.

    Args:
        phase: I, P, R or all, as if it were a flag; None: that of the flags, else of the file, else I.
        profile: name of a packaged profile: demo, sd15, sd21, sd21-v, sdxl.
        file: the user's YAML file, nested or dotted; a `profile` in it is for who calls this.
        flags: dotted name -> value from the command line; text is read by the setting's type.
    """
    flags = (flags or {}) | ({} if phase is None else {"phase": phase})
    written = read_settings(file) if file else {}
    written.pop(PROFILE, None)
    asked = next((values for values in (flags, written) if "phase" in values), {"phase": "I"})
    config = Config.from_nested({"phase": asked["phase"]}, source=str(file) if asked is written else "command line")
    for path in (packaged("configs") / "quality_thresholds.yaml", profile_path(profile), _phase_path(config.phase)):
        config = config.with_values(read_settings(path), source=str(path))
    return config.with_values(written, source=str(file)).with_values(flags, source="command line")


def _phase_path(phase: str) -> Path:
    return packaged("configs") / f"{PHASE_FILES[phase]}.yaml"


def _phase_settings(phase: str) -> dict[str, Any]:
    """Settings of a phase's file, by JSON's types."""
    settings = read_settings(_phase_path(phase))
    return {name: value for name, value in Config().with_values(settings).flat().items() if name in settings}
