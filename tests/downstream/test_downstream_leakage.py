"""Leak check of a measurement, on leaks planted one by one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from downstream.fakes import PHASES, NoisyStudy
from woundray.data.duplicates import thumbnail
from woundray.downstream.cohort import Cohort, load_cohort
from woundray.downstream.leakage import LeakError, refuse_common_patients, refuse_leaks

COHORT = load_cohort(NoisyStudy(6)(), PHASES, views=1)
TEST = np.arange(4)  # both pictures of two patients
CLEAN = [photo.path for photo in COHORT.photos[4:]]


def test_training_patients_pass() -> None:
    refuse_leaks(COHORT, TEST, {"generator": CLEAN, "filter": CLEAN, "search": []})


@pytest.mark.parametrize("stage", ["generator", "filter", "reference", "search"])
def test_a_test_patient(stage: str) -> None:
    with pytest.raises(LeakError, match=f"{stage} used I01-2.png of patient I01"):
        refuse_leaks(COHORT, TEST, {"generator": CLEAN, stage: [*CLEAN, Path("I01-2.png")]})


@pytest.mark.parametrize("change", ["same", "darker", "mirrored"])
def test_a_near_duplicate_under_another_name(change: str) -> None:
    with pytest.raises(LeakError, match=r"R05-2.png, a near-duplicate of the test picture I00-1.png"):
        refuse_leaks(with_twin(change), TEST, {"generator": CLEAN})


def test_a_group_and_a_copy_under_another_name() -> None:
    first = COHORT.photos[0]
    for change, message in (
        ({"group": first.group}, "of group I00.*, as I00-1.png"),
        ({"sha256": first.sha256}, "a copy of"),
    ):
        photos = (*COHORT.photos[:-1], replace(COHORT.photos[-1], **change))  # type: ignore[arg-type]
        with pytest.raises(LeakError, match=f"generator used R05-2.png,? {message}"):
            refuse_leaks(replace(COHORT, photos=photos), TEST, {"generator": CLEAN})


def test_a_near_duplicate_among_the_classifiers_pictures() -> None:
    train = np.arange(4, len(COHORT.photos))

    refuse_common_patients(COHORT, train, TEST)
    with pytest.raises(LeakError, match="classifier used"):
        refuse_common_patients(with_twin("darker"), train, TEST)
    with pytest.raises(LeakError, match=r"classifier used I01-2.png of patient I01"):
        refuse_common_patients(COHORT, np.append(train, 3), TEST[:3])


def test_what_can_not_be_checked() -> None:
    with pytest.raises(LeakError, match="can not be checked"):
        refuse_leaks(COHORT, TEST, {"search": [Path("elsewhere.png")]})


def with_twin(change: str) -> Cohort:
    """The last photograph shows what the first one does."""
    scene = COHORT.plain[0].permute(1, 2, 0).numpy()
    scene = {"same": scene, "darker": (scene * 0.8).astype(np.uint8), "mirrored": scene[:, ::-1]}[change]
    thumbnails = COHORT.thumbnails.copy()
    thumbnails[-1] = thumbnail(np.ascontiguousarray(scene))
    return replace(COHORT, thumbnails=thumbnails)
