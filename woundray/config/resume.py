"""Settings of a resumed study or run: its saved ones, and which of them may be changed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from woundray.config import Config
from woundray.config.error_messages import as_written, flatten
from woundray.errors import UserError

_MACHINE = ("data.root", "model.base", "study.dashboard_port", "study.wait_for_nodes_s")
"""Paths of photographs and weights, whose hashes are checked instead, and settings of this machine."""
STUDY = ("study.trials", "study.finalists", *_MACHINE)
"""Settings that may be changed when a study is resumed."""
RUN = (
    "training.epochs",
    "training.last_epoch",
    "checkpointing.keep_last",
    "hardware.gpus_per_worker",
    "hardware.cpus_per_worker",
    "hardware.threads",
    "study.max_failures",
    *_MACHINE,
)
"""Settings that may be changed when a run is resumed."""
MEASUREMENT = (
    "effect.concurrent",
    "hardware.gpus_per_worker",
    "hardware.cpus_per_worker",
    "hardware.threads",
    *_MACHINE,
)
"""Settings that may be changed when a measurement of `augment` is resumed."""
_NEVER_LESS = ("study.trials", "training.epochs")
_RESOLVED_FROM_AUTO = ("metrics.objective", "hardware.gpus_per_worker")  # auto keeps the saved value


def extended(config: Config, typed: Mapping[str, Any], folder: Path, *, free: tuple[str, ...] = STUDY) -> Config:
    """Return the configuration of a resumed study or run: the saved one, with the changes that are allowed.

    Args:
        config: saved configuration.
        typed: settings that the user gave now, by dotted name (see `woundray.cli.command.Command.typed`).
        folder: folder of the study or run; study.name and study.output have to agree with it.
        free: settings that may differ, such as `STUDY` or `RUN`; trials and epochs may only increase.

    Raises:
        UserError: names every setting that differs and may not, with its saved and its new value.
    """
    given = {name: value for name, value in typed.items() if name not in _RESOLVED_FROM_AUTO or value != "auto"}
    saved = config.with_values({"study.name": folder.name, "study.output": folder.parent.absolute()})
    old, new = (_comparable(values) for values in (saved, saved.with_values(given, source="command line")))
    differ = [name for name in given if old[name] != new[name]]
    refused = [name for name in differ if name not in free or (name in _NEVER_LESS and new[name] < old[name])]
    if refused:
        listed = ", ".join(f"{name} {as_written(old[name])}, not {as_written(new[name])}" for name in refused)
        more = "".join(f" ({name} may become more)" for name in _NEVER_LESS if name in free)
        raise UserError(
            f"{folder}: was begun with {listed}; leave that out, or begin another under a new study.name{more}"
        )
    return config.with_values({name: given[name] for name in differ})


def _comparable(config: Config) -> dict[str, Any]:
    """Return dotted name -> value, with absolute paths."""
    values = flatten(config.model_dump())
    return {name: str(value.absolute()) if isinstance(value, Path) else value for name, value in values.items()}
