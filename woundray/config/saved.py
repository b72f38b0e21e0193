"""Read a config.yaml that woundray itself wrote, also one of an earlier version with other names of settings."""

from pathlib import Path

from woundray.config import Config
from woundray.config.error_messages import RENAMED, flatten
from woundray.config.layers import read_yaml


def read_config(folder: Path) -> Config:
    """Return the configuration of the folder of a study, run or checkpoint, from its `config.yaml`."""
    return read_saved_config(folder / "config.yaml")


def read_saved_config(file: Path) -> Config:
    """Return the configuration of a study, run or checkpoint. Settings that were renamed since get their new names.

    Args:
        file: a config.yaml in the folder of a study, run or checkpoint. A user's own file is read by
            `woundray.config.layers.load`, which refuses the old names.

    Raises:
        UserError: names the file, and the setting that is wrong.
    """
    values = flatten(read_yaml(file))
    return Config.from_nested({RENAMED.get(name, name): value for name, value in values.items()}, source=str(file))
