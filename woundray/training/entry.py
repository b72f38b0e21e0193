"""The training loop's door: what is sent to other processes, light enough that those who only pass it on stay light."""

from pathlib import Path
from typing import TYPE_CHECKING

from woundray.config import Config

if TYPE_CHECKING:
    from woundray.training.loop import Report
    from woundray.training.place import Place


def train(config: Config, *, materials: Path, output: Path, place: "Place", report: "Report") -> None:
    """`woundray.training.loop.train`, imported with torch and diffusers where it runs and nowhere else.

    Each trial has a driver and a controller that only hand the loop to its workers.
    """
    from woundray.training import loop

    loop.train(config, materials=materials, output=output, place=place, report=report)
