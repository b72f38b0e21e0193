"""No test patient, and no near-duplicate of one of their pictures, may reach what training pictures come of."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import numpy as np

from woundray.data.duplicates import LIKENESS, THUMBNAIL_PX
from woundray.effect.cohort import Cohort, Rows
from woundray.errors import UserError

Used = Mapping[str, Collection[Path]]
"""Stage (generator, filter, reference, search) -> paths of the photographs that reached it."""


class LeakError(UserError):
    """A test patient reached the training side; the message names stage, photograph and the mend."""


def refuse_leaks(cohort: Cohort, test: Rows, used: Used) -> None:
    """Raises LeakError where a photograph that a stage used is of a test patient, or nearly one of their pictures.

    It looks at patients' names and at pixels; that folds are made of groups is not taken for granted. Photographs
    that are not in the cohort can not be looked at, and are refused, too.
    """
    rows = {photo.path: row for row, photo in enumerate(cohort.photos)}
    patients = {cohort.photos[row].patient for row in test}
    for stage, paths in used.items():
        for path in paths:
            if path not in rows:
                raise LeakError(f"{stage} used {path}, which is not among the photographs: it can not be checked")
            photo = cohort.photos[rows[path]]
            if photo.patient in patients:
                raise LeakError(
                    f"{stage} used {path} of patient {photo.patient}, who is a test patient of this fold; "
                    "train generators on the fold's training patients alone"
                )
        _refuse_alike(cohort, test, stage, np.array([rows[path] for path in paths], dtype=np.int64))


def refuse_common_patients(cohort: Cohort, train: Rows, test: Rows) -> None:
    """Raises LeakError where a classifier's training pictures fail `refuse_leaks`."""
    refuse_leaks(cohort, test, {"classifier": _paths(cohort, train)})


def _refuse_alike(cohort: Cohort, test: Rows, stage: str, rows: Rows) -> None:
    if not len(rows):
        return
    shown = cohort.thumbnails[rows].reshape(len(rows), THUMBNAIL_PX, THUMBNAIL_PX, 3)
    tested = cohort.thumbnails[test].T
    upright, mirrored = (side.reshape(len(rows), -1) @ tested for side in (shown, shown[:, :, ::-1]))
    alike = np.argwhere(np.maximum(upright, mirrored) >= LIKENESS)
    if len(alike):
        first, second = cohort.photos[rows[alike[0, 0]]].path, cohort.photos[test[alike[0, 1]]].path
        raise LeakError(
            f"{stage} used {first}, a near-duplicate of the test picture {second}; give both one group in manifest.csv"
        )


def _paths(cohort: Cohort, rows: Iterable[int]) -> list[Path]:
    return [cohort.photos[row].path for row in rows]
