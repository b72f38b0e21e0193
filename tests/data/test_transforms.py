import colorsys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from woundray.data.transforms import Augmentation, plain_view, view

STILL = Augmentation(margin_min=0.1, margin_max=0.1, flip=False, scale=(1, 1), jitter=0)
USUAL = Augmentation(margin_min=0.05, margin_max=0.25, flip=True, scale=(0.9, 1.1), jitter=0.1)

Picture = NDArray[np.uint8]


@pytest.fixture(scope="module")
def picture() -> Picture:
    return np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)


def places(height: int, width: int) -> Picture:
    """Each pixel tells its row in red and its column in green; blue is 255 inside."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.full_like(rows, 255)], axis=-1).astype(np.uint8)


def test_a_view_is_a_function_of_its_arguments(picture: Picture) -> None:
    before = picture.copy()
    box = (30, 20, 70, 60)
    first = view(picture, box, size_px=32, augmentation=USUAL, seed=5)
    np.random.default_rng().random()
    np.testing.assert_array_equal(first, view(picture, box, size_px=32, augmentation=USUAL, seed=5))
    assert not np.array_equal(first, view(picture, box, size_px=32, augmentation=USUAL, seed=6))
    np.testing.assert_array_equal(picture, before)


@given(
    height=st.integers(32, 80),
    width=st.integers(32, 80),
    size_px=st.sampled_from([8, 32, 65]),
    corners=st.none() | st.tuples(*[st.floats(0, 1)] * 4),
    seed=st.integers(0, 10_000),
)
def test_every_view_has_its_size(height, width, size_px, corners, seed) -> None:  # type: ignore[no-untyped-def]
    box = None
    if corners is not None:  # any box of 2 px or more inside the picture, at its border too
        left, top = round(corners[0] * (width - 2)), round(corners[1] * (height - 2))
        box = (
            left,
            top,
            left + 2 + round(corners[2] * (width - 2 - left)),
            top + 2 + round(corners[3] * (height - 2 - top)),
        )
    grey = np.full((height, width, 3), 100, np.uint8)
    still = replace(USUAL, jitter=0)
    for square in (
        view(grey, box, size_px=size_px, augmentation=still, seed=seed),
        plain_view(grey, box, size_px=size_px, margin=0.3),
    ):
        assert square.shape == (size_px, size_px, 3) and square.dtype == np.uint8
        assert (square == 100).all()  # nothing but picture: no black border


@pytest.mark.parametrize("box", [None, (30, 20, 70, 60), (0, 0, 20, 10), (100, 50, 120, 90), (0, 0, 120, 90)])
def test_without_chance_a_view_is_the_plain_one(picture: Picture, box: tuple[int, int, int, int] | None) -> None:
    plain = plain_view(picture, box, size_px=48, margin=0.1)
    for seed in range(5):
        np.testing.assert_array_equal(view(picture, box, size_px=48, augmentation=STILL, seed=seed), plain)


def test_the_plain_view_is_the_square_of_box_and_margin() -> None:
    picture = places(100, 140)
    # box 40 x 20, margin 0.25 => square of 60 around (70, 50): columns 40 to 100, rows 20 to 80
    square = plain_view(picture, (50, 40, 90, 60), size_px=60, margin=0.25)
    np.testing.assert_array_equal(square, picture[20:80, 40:100])
    np.testing.assert_array_equal(plain_view(picture, None, size_px=100, margin=0.25), picture[:, 20:120])


def test_a_box_at_the_border_moves_the_square_inside() -> None:
    picture = places(100, 140)
    square = plain_view(picture, (110, 70, 140, 100), size_px=60, margin=0.5)
    np.testing.assert_array_equal(square, picture[40:100, 80:140])


def test_views_keep_the_wound_and_stay_inside_the_picture() -> None:
    picture = places(200, 200)
    box = (90, 95, 120, 115)
    still = replace(USUAL, jitter=0, flip=False, margin_min=0.25, margin_max=0.4, scale=(0.9, 1.1))
    for seed in range(50):
        square = view(picture, box, size_px=64, augmentation=still, seed=seed)
        assert (square[..., 2] == 255).all()
        # rows and columns rise strictly over the view: no part of it is mirrored
        assert (np.diff(square[:, 0, 0].astype(int)) >= 0).all() and (np.diff(square[0, :, 1].astype(int)) >= 0).all()
        assert square[0, 0, 0] <= 95 and square[-1, 0, 0] >= 114
        assert square[0, 0, 1] <= 90 and square[0, -1, 1] >= 119


def test_a_square_larger_than_the_picture_is_mirrored() -> None:
    picture = np.repeat(places(40, 80)[:, :, :1], 3, axis=2)
    square = plain_view(picture, (0, 0, 80, 40), size_px=80, margin=0)  # 80 px of 40 rows: 20 mirrored on each side
    np.testing.assert_array_equal(square[:20, 0, 0], np.arange(20)[::-1])
    np.testing.assert_array_equal(square[20:60, 0, 0], np.arange(40))
    np.testing.assert_array_equal(square[60:, 0, 0], np.arange(20, 40)[::-1])


def test_shrinking_is_antialiased() -> None:
    checkerboard = (np.indices((256, 256)).sum(axis=0) % 2 * 255).astype(np.uint8)
    picture = np.repeat(checkerboard[..., None], 3, axis=2)
    square = plain_view(picture, None, size_px=50, margin=0)
    assert np.abs(square[2:-2, 2:-2].astype(float) - 127.5).max() < 8


def test_flip_mirrors_about_half_of_the_views() -> None:
    picture = places(60, 60)
    flipping = replace(STILL, flip=True)
    plain = plain_view(picture, None, size_px=60, margin=0.1)
    views = [view(picture, None, size_px=60, augmentation=flipping, seed=seed) for seed in range(100)]
    mirrored = [np.array_equal(square, plain[:, ::-1]) for square in views]
    assert all(flipped or np.array_equal(square, plain) for flipped, square in zip(mirrored, views, strict=True))
    assert 30 < sum(mirrored) < 70


def test_jitter_changes_colours_but_no_hue() -> None:
    # one colour a row, far enough from 0 and 255 not to be clipped
    colours = [(180, 80, 90), (160, 140, 70), (90, 160, 100), (80, 110, 170)]
    picture = np.repeat(np.repeat(np.array(colours, np.uint8)[:, None], 64, axis=1), 16, axis=0)
    jittering = replace(STILL, jitter=0.15)
    moved = []
    for seed in range(20):
        square = view(picture, None, size_px=64, augmentation=jittering, seed=seed)
        for row, colour in enumerate(colours):
            after = square[16 * row + 8, 32] / 255
            turn = colorsys.rgb_to_hsv(*after)[0] - colorsys.rgb_to_hsv(*(np.array(colour) / 255))[0]
            assert abs((turn + 0.5) % 1 - 0.5) < 0.012  # of a turn: rounding to 8 bits
            moved.append(np.abs(after * 255 - colour).max())
    assert np.median(moved) > 4
