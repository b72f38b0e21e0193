"""Split photographs by patient into a training and a held-out side, by share or by fold."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from woundray.config import Config
from woundray.data.duplicates import component_labels
from woundray.data.manifest import Photo
from woundray.errors import UserError
from woundray.system.atomic_files import write_json

FEW_FOLDS = 3


@dataclass(frozen=True)
class Split:
    """Photographs of each side. Patients who are connected by near-duplicates are on the same side."""

    train: tuple[Photo, ...]
    validation: tuple[Photo, ...]


def split_for(photos: Sequence[Photo], config: Config) -> Split:
    """Split by `config.validation`: hold out one fold of patients, a share of them, or none."""
    validation, seed = config.validation, config.reproducibility.seed
    folds = count_folds(len(photos), config)
    if validation.share == 0:
        return Split(train=tuple(sorted(photos, key=lambda photo: str(photo.path))), validation=())
    if folds == 1:
        return split_by_patient(photos, validation_share=validation.share, seed=seed)
    return split_by_fold(photos, folds=folds, fold=validation.fold, seed=seed)


def count_folds(photos: int, config: Config) -> int:
    """Return the number of folds for a number of photographs: validation.folds, or the automatic one; 1: no folds."""
    few = photos * config.validation.share < config.validation.pictures
    return config.validation.folds or (FEW_FOLDS if few else 1)


def split_by_patient(photos: Sequence[Photo], *, validation_share: float, seed: int) -> Split:
    """Assign groups of patients to the two sides, phase by phase, so that each side gets its share of the images.

    The result depends on the photographs and the seed, not on the order of `photos`.

    Raises:
        UserError: a phase is the main phase of fewer than two groups of patients.
    """
    members, shuffled = _groups(photos, seed, at_least=2)
    held_out: set[str] = set()
    for groups in shuffled.values():
        held_out |= _choose_held_out(groups, members, validation_share)
    return _sides(members, held_out)


def split_by_fold(photos: Sequence[Photo], *, folds: int, fold: int, seed: int) -> Split:
    """Assign groups of patients to folds with about equal numbers of images, phase by phase, and hold one out.

    Over the folds 0 to folds - 1 each photograph is held out once.

    Raises:
        UserError: no such fold, or a phase is the main phase of fewer groups of patients than there are folds.
    """
    if fold >= folds:
        raise UserError(f"validation.fold: {fold}, but there are {folds} folds: give 0 to {folds - 1}")
    members, shuffled = _groups(photos, seed, at_least=folds)
    held_out: set[str] = set()
    for groups in shuffled.values():
        sizes = [0] * folds
        for group in groups:
            smallest = sizes.index(min(sizes))
            sizes[smallest] += len(members[group])
            if smallest == fold:
                held_out.add(group)
    return _sides(members, held_out)


def _groups(
    photos: Sequence[Photo], seed: int, *, at_least: int
) -> tuple[dict[str, list[Photo]], dict[str, list[str]]]:
    """Return group -> photographs, and phase -> its groups in random order.

    Raises:
        UserError: a phase has fewer groups than `at_least`.
    """
    members: dict[str, list[Photo]] = defaultdict(list)
    photos = sorted(photos, key=lambda photo: str(photo.path))
    for photo, label in zip(photos, joined_groups(photos), strict=True):
        members[label].append(photo)

    # the main phase of a group is that of most of its images
    groups_of: dict[str, list[str]] = defaultdict(list)
    for group in sorted(members):
        phases = [photo.phase for photo in members[group]]
        groups_of[max(sorted(set(phases)), key=phases.count)].append(group)

    generator = np.random.default_rng(seed)
    shuffled = {}
    for phase in sorted({photo.phase for photo in photos}):
        groups = groups_of[phase]
        if len(groups) < at_least:
            raise UserError(
                f"data: phase {phase} is the main phase of {len(groups)} groups of patients; "
                f"add photographs of other patients: it takes {at_least} or more to hold one out"
            )
        shuffled[phase] = [groups[index] for index in generator.permutation(len(groups))]
    return members, shuffled


def _sides(members: dict[str, list[Photo]], held_out: set[str]) -> Split:
    """Return the split with these groups held out."""
    return Split(
        train=tuple(photo for group in sorted(set(members) - held_out) for photo in members[group]),
        validation=tuple(photo for group in sorted(held_out) for photo in members[group]),
    )


def joined_groups(photos: Sequence[Photo]) -> list[str]:
    """Return a label per photo, equal for all that are connected by patients or groups, directly or indirectly."""
    nodes: dict[tuple[str, str], int] = {}
    edges = [
        (
            nodes.setdefault(("patient", photo.patient), len(nodes)),
            nodes.setdefault(("group", photo.group), len(nodes)),
        )
        for photo in photos
    ]
    component = component_labels(edges, len(nodes))
    first: dict[int, str] = {}
    for photo, (patient, _) in zip(photos, edges, strict=True):
        first.setdefault(component[patient], str(photo.path))
    return [first[component[patient]] for patient, _ in edges]


def _choose_held_out(groups: list[str], members: dict[str, list[Photo]], share: float) -> set[str]:
    """Choose groups in order, up to the number of images closest to the share; at least one group, never all."""
    target = share * sum(len(members[group]) for group in groups)
    held_out, count = {groups[0]}, len(members[groups[0]])
    for group in groups[1:-1]:
        if abs(count + len(members[group]) - target) < abs(count - target):
            held_out.add(group)
            count += len(members[group])
    return held_out


def write_split(split: Split, path: Path) -> None:
    """Write patients and files of each side as JSON, atomically."""
    sides = {
        side: {
            "patients": sorted({photo.patient for photo in photos}),
            "files": [photo.path.as_posix() for photo in photos],
        }
        for side, photos in vars(split).items()
    }
    write_json(sides, path)
