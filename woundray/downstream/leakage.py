"""Leak check: no photograph of a test patient, and no near-duplicate of one, was used to make training images."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from woundray.data.deduplicate import Scene
from woundray.data.leakage import Leak, LeakError, PhotoScene, find_leaks
from woundray.downstream.cohort import Cohort, Rows

__all__ = ["LeakError", "UsedPhotos", "refuse_common_patients", "refuse_leaks"]

UsedPhotos = Mapping[str, Collection[Path]]
"""Stage (generator, filter, reference, search) -> paths of the photographs that it used."""


def refuse_leaks(cohort: Cohort, test: Rows, used: UsedPhotos) -> None:
    """Check that no stage used a photograph of a test patient, or a near-duplicate of one.

    Patients, groups and pixels are compared (see `woundray.data.leakage`).

    Raises:
        LeakError: a stage used such a photograph, or one that is not in the cohort and can't be compared.
    """
    rows = {photo.path: row for row, photo in enumerate(cohort.photos)}
    tested = _seen(cohort, test)
    for stage, paths in used.items():
        for path in paths:
            if path not in rows:
                raise LeakError(
                    f"{stage} used {path}, which is not among the photographs: it can not be "
                    "checked; use photographs of the data set alone"
                )
        shown = _seen(cohort, [rows[path] for path in paths])
        # similar patient names were resolved when the data set was read
        for leak in find_leaks(
            shown, tested, similar_patients="apart", duplicate_correlation=cohort.duplicate_correlation
        ):
            raise LeakError(f"{stage} used {_leak_message(leak)}")


def refuse_common_patients(cohort: Cohort, train: Rows, test: Rows) -> None:
    """Check the training photographs of a classifier as `refuse_leaks` does; raise LeakError."""
    refuse_leaks(cohort, test, {"classifier": [cohort.photos[row].path for row in train]})


def _seen(cohort: Cohort, rows: Iterable[int]) -> list[PhotoScene]:
    return [
        PhotoScene(photo, Scene(photo.sha256, photo.sha256, cohort.thumbnails[row]))
        for row in rows
        for photo in [cohort.photos[row]]
    ]


def _leak_message(leak: Leak) -> str:
    """Return the message of a leak: the photograph that was used, why it may not be, and the mend."""
    alone = "train generators on the fold's training patients alone"
    return {
        "patient": f"{leak.train.path} of patient {leak.train.patient}, who is a test patient of this fold; {alone}",
        "group": f"{leak.train.path} of group {leak.train.group}, as {leak.test.path} of the test side; {alone}",
        "copy": f"{leak.train.path}, a copy of the test picture {leak.test.path}; keep one of them",
        "near-duplicate": f"{leak.train.path}, a near-duplicate of the test picture {leak.test.path}; "
        "give both one group in manifest.csv",
    }[leak.kind]
