import io
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from woundray.data.duplicates import THUMBNAIL_PX, group_patients, near_duplicate_pairs, thumbnail
from woundray.data.phantoms.render import HOME_CLINIC, render_cohort


@pytest.fixture(scope="module")
def patients() -> list[NDArray[np.uint8]]:
    """The first visit of each of 24 drawn patients, in focus and hard light: cropped copies of soft ones are missed."""
    sharp = replace(HOME_CLINIC, p_blur=0.03, light_elevation_deg=42.0, light_softness=0.33, contrast=1.18)
    cohort = render_cohort({"I": 8, "P": 8, "R": 8}, clinic=sharp, seed=3, size_px=96)
    return [phantom.picture for phantom in cohort if phantom.visit == 1]


def pairs_of(pictures: list[NDArray[np.uint8]]) -> list[tuple[int, int]]:
    return near_duplicate_pairs(np.stack([thumbnail(picture) for picture in pictures]))


def encoded_again(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=60)
    return np.asarray(Image.open(file))


def brightened(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray((picture * 1.15).clip(0, 255), np.uint8)


def cropped(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(picture[2:-2, 2:-2])


def mirrored(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(picture[:, ::-1])


@pytest.mark.parametrize("change", [encoded_again, brightened, cropped, mirrored])
def test_a_changed_copy_is_found(patients, change) -> None:  # type: ignore[no-untyped-def]
    pairs = pairs_of([*patients, *(change(picture) for picture in patients)])
    assert pairs == [(index, index + len(patients)) for index in range(len(patients))]


def test_all_changes_at_once_are_found(patients: list[NDArray[np.uint8]]) -> None:
    copies = [encoded_again(brightened(mirrored(cropped(picture)))) for picture in patients]
    assert pairs_of([*patients, *copies]) == [(index, index + len(patients)) for index in range(len(patients))]


def test_different_patients_are_no_duplicates(patients: list[NDArray[np.uint8]]) -> None:
    assert pairs_of(patients) == []


def test_a_thumbnail_has_no_level_and_no_contrast() -> None:
    picture = np.random.default_rng(0).integers(60, 120, (48, 48, 3), dtype=np.uint8)
    plain = thumbnail(picture)
    assert plain.shape == (3 * THUMBNAIL_PX**2,) and plain.dtype == np.float32
    assert np.linalg.norm(plain) == pytest.approx(1, abs=1e-5)
    assert plain @ thumbnail(picture * 2) == pytest.approx(1, abs=1e-3)
    assert plain @ thumbnail(picture + 50) == pytest.approx(1, abs=1e-5)


def test_pictures_of_one_flat_colour_are_no_duplicates() -> None:
    flat = np.full((40, 40, 3), 90, np.uint8)
    assert pairs_of([flat, flat]) == []


def test_a_thousand_thumbnails_stay_small_in_memory() -> None:
    thumbnails = np.random.default_rng(0).normal(size=(1000, 3 * THUMBNAIL_PX**2)).astype(np.float32)
    thumbnails /= np.linalg.norm(thumbnails, axis=1, keepdims=True)
    tracemalloc.start()
    try:
        assert near_duplicate_pairs(thumbnails) == []
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 64e6


def test_groups_join_patients_through_others() -> None:
    patients = ["d", "c", "b", "a", "e", "c"]
    assert group_patients(patients, []) == patients
    # d-c by their first pictures, c-a by c's other picture; b and e stand alone
    assert group_patients(patients, [(0, 1), (3, 5)]) == ["a", "a", "b", "a", "e", "a"]
    assert group_patients(list("dcba"), [(0, 1), (1, 2), (2, 3)]) == ["a"] * 4  # a chain
    assert group_patients(patients, [(1, 5)]) == patients
