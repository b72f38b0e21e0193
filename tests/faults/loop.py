"""The door of `faults.regression`: drivers and controllers, which only pass the loop on, do not import torch."""

from pathlib import Path
from typing import TYPE_CHECKING

from woundray.config import Config

if TYPE_CHECKING:
    from woundray.training.launch import Report
    from woundray.training.place import Place


def train(config: Config, *, materials: Path, output: Path, place: "Place", report: "Report") -> None:
    """`faults.regression.train`, imported where it runs."""
    from faults import regression

    regression.train(config, materials=materials, output=output, place=place, report=report)
