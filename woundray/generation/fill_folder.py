"""Fill a folder with generated images of one or several checkpoints, with a balanced number a phase if requested."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from woundray.checkpoints.find import config_of, find_checkpoint
from woundray.data.manifest import read_dataset
from woundray.data.patient_names import patient_key
from woundray.errors import UserError
from woundray.generation.generate_until_enough import (
    CheckpointSource,
    GenerationRequest,
    ProgressWithNote,
    generate_until_enough,
)
from woundray.generation.pass_rate import PassRate
from woundray.generation.picture_folder import PictureFolder
from woundray.tracking.mlflow_checkpoints import SCHEMES, pin_reference


def find_sources(references: Sequence[str], runs: Path, tracking_uri: str) -> list[CheckpointSource]:
    """Find checkpoints; an alias of MLflow is replaced by its version, which stays the same when the alias moves on."""
    sources = []
    for reference in references:
        if reference.startswith(SCHEMES):
            fixed = pin_reference(reference, tracking_uri)
            sources.append(CheckpointSource(find_checkpoint(fixed, runs, tracking_uri), fixed))
        else:
            checkpoint = find_checkpoint(reference, runs, tracking_uri)
            sources.append(CheckpointSource(checkpoint, str(checkpoint)))
    return sources


def fill_folder(
    folder: Path,
    sources: Sequence[CheckpointSource],
    request: GenerationRequest,
    *,
    balance: int | None = None,
    progress: ProgressWithNote,
) -> list[PassRate]:
    """Generate images of each source into one folder.

    Args:
        balance: total number of images of each phase, including its photographs in `request.data`; 0: as many as the
            largest phase has; None: `request.options.count` new images of each source.

    Raises:
        UserError: several sources of one phase to balance, or no data to count.
    """
    counts = [request.options.count] * len(sources)
    if balance is not None:
        root = request.data or config_of(sources[0].checkpoint).data.root
        if root is None:
            raise UserError("--balance: give --data, the photographs that are counted")
        counts = count_missing([source.phase for source in sources], balance, root)
    output = PictureFolder(folder, set().union(*(_patient_numbers(source, request.data) for source in sources)))
    return [
        generate_until_enough(
            source, replace(request, options=replace(request.options, count=count)), output, progress=progress
        )
        for source, count in zip(sources, counts, strict=True)
        if count > 0
    ]


def count_missing(phases: Sequence[str], total: int, data: Path) -> list[int]:
    """Return how many images each phase needs besides its photographs; total 0: as many as the largest phase has.

    Raises:
        UserError: phase `all`, or a phase that is given twice.
    """
    if "all" in phases or len(set(phases)) < len(phases):
        raise UserError(f"--balance: give one checkpoint for each of the phases I, P, R, not {', '.join(phases)}")
    existing = Counter(photo.phase for photo in read_dataset(data, similar_patients="apart").photos)
    total = total or max(existing.values())
    return [max(0, total - existing[phase]) for phase in phases]


def _patient_numbers(source: CheckpointSource, data: Path | None) -> set[int]:
    """Return the numbers of known patients, which must not be given to generated images."""
    root = data or config_of(source.checkpoint).data.root
    if root is None or not root.is_dir():
        return set()
    photos = read_dataset(root, similar_patients="apart").photos  # only to read numbers: no split needs joint groups
    return {int(key) for photo in photos if (key := patient_key(photo.patient)).isdecimal()}
