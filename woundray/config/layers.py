"""Where a value comes from: defaults < profile < phase < --config FILE < command line."""

from pathlib import Path
from typing import Any

import yaml

from woundray.config import Config
from woundray.config.explain import flatten, nearest, nest
from woundray.errors import UserError

_PACKAGE = Path(__file__).parents[1]

PHASE_FILES = {"I": "phase_I", "P": "phase_P", "R": "phase_R", "all": "all_phases"}


def packaged(folder: str) -> Path:
    """The folder `configs` or `search_spaces`: inside an installed package, or beside it in a checkout."""
    inside = _PACKAGE / folder
    return inside if inside.is_dir() else _PACKAGE.parent / folder


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file with one mapping. Raises UserError that names the file, and the line where there is one."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values or {}, dict):
        raise UserError(f"{path}: should hold `key: value` lines, not a {type(values).__name__}")
    return values or {}


def profile_path(name: str) -> Path:
    """File of a packaged profile. Raises UserError with the nearest name that exists."""
    known = sorted(path.stem for path in packaged("configs").glob("profiles/*.yaml"))
    if name not in known:
        raise UserError(f"--profile: {name} is not one of {', '.join(known)}{nearest(name, known)}")
    return packaged("configs") / "profiles" / f"{name}.yaml"


def for_phase(config: Config, phase: str) -> Config:
    """The same configuration for another phase: what the phase's file sets, and nobody changed, is the other's."""
    files = (packaged("configs") / f"{PHASE_FILES[name]}.yaml" for name in (config.phase, phase))
    own, other = (flatten(read_yaml(file)) for file in files)
    values = config.flat()
    unchanged = {name: value for name, value in other.items() if values[name] == own.get(name)}
    return config.with_values(unchanged | {"phase": phase})


def load(phase: str, *, profile: str, file: Path | None = None, flags: dict[str, Any] | None = None) -> Config:
    """All layers of one configuration; each is validated as it is laid, so that an error names its source.

    Args:
        phase: I, P, R or all.
        profile: name of a packaged profile: demo, sd15, sd21, sd21-v, sdxl.
        file: the user's YAML file, nested or dotted.
        flags: dotted name -> value from the command line.
    """
    if phase not in PHASE_FILES:
        raise UserError(f"--phase: {phase} is not one of I, P, R, all")
    config = Config(phase=phase)
    paths = [
        packaged("configs") / "quality_thresholds.yaml",
        profile_path(profile),
        packaged("configs") / f"{PHASE_FILES[phase]}.yaml",
        *([file] if file else []),
    ]
    for path in paths:
        values = flatten(nest(flatten(read_yaml(path))))
        config = config.with_values(values, source=str(path))
    return config.with_values(flags or {}, source="command line").with_values({"phase": phase})
