"""Summary of a data set as a study would use it: counts of each phase, and problems."""

from dataclasses import dataclass
from pathlib import Path

from woundray.config import Config
from woundray.data.manifest import PHASES, Dataset, none_of_phase, read_configured_dataset
from woundray.errors import UserError
from woundray.evaluation.comparable_split import comparable_split


@dataclass(frozen=True)
class PhaseCount:
    """Counts of one phase; `problem`: why its photographs can't be split, else empty."""

    photographs: int
    patients: int
    training: int = 0
    held_out: int = 0
    problem: str = ""


@dataclass(frozen=True)
class Photographs:
    """Summary of a data set.

    Attributes:
        phases: counts of the phases that have photographs.
        left_out: file -> why it is not used.
        problem: why the data set can not be used, else empty.
        notes: conversions and assumptions made to read it.
    """

    root: Path
    phases: dict[str, PhaseCount]
    left_out: dict[str, str]
    problem: str = ""
    notes: tuple[str, ...] = ()


def summarise_photographs(config: Config) -> Photographs | None:
    """Read every photograph of `data.root` and count them; None where a study would draw phantoms."""
    root = config.data.root
    if root is None:
        return None
    try:
        dataset = read_configured_dataset(root, config.data)
    except UserError as error:
        return Photographs(root, {}, {}, str(error))
    counts = {phase: _count(dataset.of_phase(phase), config) for phase in PHASES}
    left_out = {item.path.as_posix(): item.reason for item in dataset.left_out}
    phases = {phase: count for phase, count in counts.items() if count.photographs}
    problem = "" if config.phase in (*phases, "all") else none_of_phase(dataset, config.phase)
    if config.phase == "all":  # all phases are split together
        problem = _count(dataset, config).problem
    return Photographs(root, phases, left_out, problem, notes=dataset.notes)


def _count(dataset: Dataset, config: Config) -> PhaseCount:
    pictures, patients = len(dataset.photos), len({photo.patient for photo in dataset.photos})
    if not pictures:
        return PhaseCount(0, 0)
    try:
        split = comparable_split(dataset.photos, config)
    except UserError as error:
        return PhaseCount(pictures, patients, problem=str(error))
    return PhaseCount(pictures, patients, len(split.train), len(split.validation))
