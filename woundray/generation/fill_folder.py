"""What `generate` is asked for: pictures of one or several checkpoints in one folder, balanced where wanted."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from woundray.checkpoints.find import config_of, find_checkpoint
from woundray.checkpoints.generate import SamplingOptions
from woundray.data.manifest import read_dataset
from woundray.data.patient_names import patient_key
from woundray.errors import UserError
from woundray.generation.generate_until_enough import CheckpointSource, FilterOptions, ProgressWithNote, produce
from woundray.generation.pass_rate import PassRate
from woundray.generation.picture_folder import Collection
from woundray.tracking.mlflow_checkpoints import SCHEMES, pin_reference


def find_sources(references: Sequence[str], runs: Path, tracking_uri: str) -> list[CheckpointSource]:
    """The checkpoints of references, each with a reference that will mean the same when an alias has moved on."""
    sources = []
    for reference in references:
        if reference.startswith(SCHEMES):
            fixed = pin_reference(reference, tracking_uri)
            sources.append(CheckpointSource(find_checkpoint(fixed, runs, tracking_uri), fixed))
        else:
            checkpoint = find_checkpoint(reference, runs, tracking_uri)
            sources.append(CheckpointSource(checkpoint, str(checkpoint)))
    return sources


def fill(
    folder: Path,
    sources: Sequence[CheckpointSource],
    options: SamplingOptions,
    *,
    filter_options: FilterOptions | None,
    balance: int | None,
    data: Path | None,
    progress: ProgressWithNote,
) -> list[PassRate]:
    """Pictures of each source in one folder.

    Args:
        balance: pictures that each phase shall have, its photographs in `data` counted; 0: as many as the largest
            phase has; None: `options.count` of each source.
        filter_options: see `produce`.

    Raises:
        UserError: several sources of one phase to balance, or no data to count.
    """
    counts = [options.count] * len(sources)
    if balance is not None:
        root = data or config_of(sources[0].checkpoint).data.root
        if root is None:
            raise UserError("--balance: give --data, the photographs that are counted")
        counts = lacking([source.phase for source in sources], balance, root)
    collection = Collection(folder, set().union(*(_patients(source, data) for source in sources)))
    return [
        produce(
            source,
            replace(options, count=count),
            collection,
            data=data,
            filter_options=filter_options,
            progress=progress,
        )
        for source, count in zip(sources, counts, strict=True)
        if count > 0
    ]


def lacking(phases: Sequence[str], total: int, data: Path) -> list[int]:
    """How many pictures each phase lacks to a total, its photographs counted; total 0: as the largest phase has.

    Raises:
        UserError: phase `all`, or one that comes twice.
    """
    if "all" in phases or len(set(phases)) < len(phases):
        raise UserError(f"--balance: give one checkpoint for each of the phases I, P, R, not {', '.join(phases)}")
    have = Counter(photo.phase for photo in read_dataset(data, similar_patients="apart").photos)
    total = total or max(have.values())
    return [max(0, total - have[phase]) for phase in phases]


def _patients(source: CheckpointSource, data: Path | None) -> set[int]:
    """Numbers of the patients that are known here, which no picture may bear."""
    root = data or config_of(source.checkpoint).data.root
    if root is None or not root.is_dir():
        return set()
    photos = read_dataset(root, similar_patients="apart").photos  # numbers are counted here, and nobody is split
    return {int(key) for photo in photos if (key := patient_key(photo.patient)).isdecimal()}
