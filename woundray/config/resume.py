"""Settings of a study or run that is resumed: its own, but for those that make it longer."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from woundray.config import Config
from woundray.config.error_messages import as_written, flatten
from woundray.errors import UserError

_PLACE = ("data.root", "model.base", "study.dashboard_port", "study.wait_for_nodes_s")
"""Places of photographs and weights, whose hashes say that they are the same, and settings of the machine."""
STUDY = ("study.trials", "study.finalists", *_PLACE)
"""Settings with which a study may go on that it was not begun with."""
RUN = (
    "training.epochs",
    "training.last_epoch",
    "checkpointing.keep_last",
    "hardware.gpus_per_worker",
    "hardware.cpus_per_worker",
    "hardware.threads",
    "study.max_failures",
    *_PLACE,
)
"""The same of a run."""
MEASUREMENT = ("effect.concurrent", "hardware.gpus_per_worker", "hardware.cpus_per_worker", "hardware.threads", *_PLACE)
"""The same of a measurement of what synthetic pictures do for a classifier."""
_NEVER_LESS = ("study.trials", "training.epochs")
_SETTLED = ("metrics.objective", "hardware.gpus_per_worker")  # auto: what it was settled to when it began


def extended(config: Config, typed: Mapping[str, Any], folder: Path, *, free: tuple[str, ...] = STUDY) -> Config:
    """The configuration of a study or run that goes on, with what is asked for now.

    Args:
        config: that it was begun with.
        typed: settings that are asked for now, by dotted name (see `woundray.cli.command.Command.typed`).
        folder: where it is: study.name and study.output may say so, and nothing else.
        free: settings that may differ, `STUDY` or `RUN`; trials and epochs may only become more.

    Raises:
        UserError: names every setting that differs and may not, with its value and the one asked for.
    """
    asked = {name: value for name, value in typed.items() if name not in _SETTLED or value != "auto"}
    begun = config.with_values({"study.name": folder.name, "study.output": folder.parent.absolute()})
    old, new = (_comparable(values) for values in (begun, begun.with_values(asked, source="command line")))
    differ = [name for name in asked if old[name] != new[name]]
    refused = [name for name in differ if name not in free or (name in _NEVER_LESS and new[name] < old[name])]
    if refused:
        told = ", ".join(f"{name} {as_written(old[name])}, not {as_written(new[name])}" for name in refused)
        more = "".join(f" ({name} may become more)" for name in _NEVER_LESS if name in free)
        raise UserError(
            f"{folder}: was begun with {told}; leave that out, or begin another under a new study.name{more}"
        )
    return config.with_values({name: asked[name] for name in differ})


def _comparable(config: Config) -> dict[str, Any]:
    """Values by dotted name, paths as seen from the root of the file system."""
    values = flatten(config.model_dump())
    return {name: str(value.absolute()) if isinstance(value, Path) else value for name, value in values.items()}
