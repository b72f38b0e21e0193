"""No test patient, and no near-duplicate of one of their pictures, may reach what training pictures come of."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from woundray.data.deduplicate import Scene
from woundray.data.leakage import Leak, LeakError, PhotoScene, find_leaks
from woundray.downstream.cohort import Cohort, Rows

__all__ = ["LeakError", "Used", "refuse_common_patients", "refuse_leaks"]

Used = Mapping[str, Collection[Path]]
"""Stage (generator, filter, reference, search) -> paths of the photographs that reached it."""


def refuse_leaks(cohort: Cohort, test: Rows, used: Used) -> None:
    """Raises LeakError where a photograph that a stage used is of a test patient, or nearly one of their pictures.

    It looks at patients, groups and pixels (see `woundray.data.leakage`). Photographs that are not in the cohort can
    not be looked at, and are refused, too.
    """
    rows = {photo.path: row for row, photo in enumerate(cohort.photos)}
    tested = _seen(cohort, test)
    for progress, paths in used.items():
        for path in paths:
            if path not in rows:
                raise LeakError(
                    f"{progress} used {path}, which is not among the photographs: it can not be "
                    "checked; use photographs of the data set alone"
                )
        shown = _seen(cohort, [rows[path] for path in paths])
        # names were settled when they were read
        for leak in find_leaks(
            shown, tested, similar_patients="apart", duplicate_correlation=cohort.duplicate_correlation
        ):
            raise LeakError(f"{progress} used {_told(leak)}")


def refuse_common_patients(cohort: Cohort, train: Rows, test: Rows) -> None:
    """Raises LeakError where a classifier's training pictures fail `refuse_leaks`."""
    refuse_leaks(cohort, test, {"classifier": [cohort.photos[row].path for row in train]})


def _seen(cohort: Cohort, rows: Iterable[int]) -> list[PhotoScene]:
    return [
        PhotoScene(photo, Scene(photo.sha256, photo.sha256, cohort.thumbnails[row]))
        for row in rows
        for photo in [cohort.photos[row]]
    ]


def _told(leak: Leak) -> str:
    """Message of a leak: the photograph that was used, the reason against it, and the mend."""
    alone = "train generators on the fold's training patients alone"
    return {
        "patient": f"{leak.train.path} of patient {leak.train.patient}, who is a test patient of this fold; {alone}",
        "group": f"{leak.train.path} of group {leak.train.group}, as {leak.test.path} of the test side; {alone}",
        "copy": f"{leak.train.path}, a copy of the test picture {leak.test.path}; keep one of them",
        "near-duplicate": f"{leak.train.path}, a near-duplicate of the test picture {leak.test.path}; "
        "give both one group in manifest.csv",
    }[leak.kind]
