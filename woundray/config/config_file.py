"""Configuration file of a study, run or checkpoint: `config.yaml` in its folder."""

from pathlib import Path

from woundray.config import Config
from woundray.config.layers import read_yaml


def read_config(folder: Path) -> Config:
    """Read `config.yaml` of a folder.

    Raises:
        UserError: there is no such file, or it has a mistake.
    """
    file = folder / "config.yaml"
    return Config.from_nested(read_yaml(file), source=str(file))
