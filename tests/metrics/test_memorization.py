"""Planted copies are found, real pictures are not accused, and equal sizes are compared."""

import numpy as np
import pytest
import torch

from woundray.errors import UserError
from woundray.metrics.feature_checks import Matrix
from woundray.metrics.frechet import frechet_distance
from woundray.metrics.memorization import augmented_views, auth_pct, c_t, copy_rate, mifid, nearest_ratio, train_gap

RNG = np.random.default_rng(0)
TRAIN, HELD_OUT, NEW = RNG.normal(size=(60, 16)), RNG.normal(size=(50, 16)), RNG.normal(size=(40, 16))
PATIENTS = [f"P{i // 2}" for i in range(60)]
TRAIN[1::2] = TRAIN[::2] + 0.05 * RNG.normal(size=(30, 16))  # each patient's second photograph is near its first
COPIES = NEW.copy()
COPIES[:10] = TRAIN[20:30] + 0.05 * RNG.normal(size=(10, 16))


def test_the_bank_shows_each_picture_whole_turned_and_mirrored() -> None:
    images = torch.randint(0, 256, (3, 3, 50, 50), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    views = augmented_views(images).unflatten(0, (4, 3))
    assert torch.equal(views[0], images)
    assert torch.equal(views[2], images.flip(3))
    assert torch.equal(views[3], views[1].flip(3))
    assert not torch.equal(views[1], views[0])


def test_a_ratio_is_that_of_the_nearest_over_another_patients_nearest() -> None:
    bank = np.array([[0.0], [1.0], [10.0], [100.0], [104.0], [106.0]])  # two views of three pictures
    found = nearest_ratio([[2.0], [103.0]], bank, groups=["A", "A", "B"])
    assert found.nearest.tolist() == [1, 1]
    assert found.ratio == pytest.approx([1 / 8, 1 / 3])


def test_copies_are_found_named_and_significant() -> None:
    held_out = nearest_ratio(HELD_OUT, TRAIN, PATIENTS)
    found = copy_rate(nearest_ratio(COPIES, TRAIN, PATIENTS), held_out, false_alarm_rate=0.04)
    assert found.rate >= 0.25
    assert found.held_out_rate < 0.1
    assert found.p_value < 0.01
    ten = found.suspects[:10]
    assert {s.generated for s in ten} == set(range(10))
    assert all(PATIENTS[s.training] == PATIENTS[20 + s.generated] for s in ten)
    assert [s.ratio for s in found.suspects] == sorted(s.ratio for s in found.suspects)


def test_without_the_patients_a_second_photograph_hides_the_copy() -> None:
    each_alone = [str(i) for i in range(60)]
    assert nearest_ratio(COPIES[:10], TRAIN, each_alone).ratio.min() > 0.3
    assert nearest_ratio(COPIES[:10], TRAIN, PATIENTS).ratio.max() < 0.2


def test_new_pictures_are_accused_no_more_than_held_out_ones() -> None:
    held_out = nearest_ratio(HELD_OUT, TRAIN, PATIENTS)
    found = copy_rate(nearest_ratio(NEW, TRAIN, PATIENTS), held_out, false_alarm_rate=0.1)
    assert found.rate < 0.25
    assert found.p_value > 0.05
    assert found.held_out_rate == pytest.approx(0.1, abs=0.03)


def test_the_gap_is_0_for_new_pictures_above_0_for_copies_and_compares_equal_sizes() -> None:
    sizes = set()

    def recording(x: Matrix, y: Matrix) -> float:
        sizes.add((len(x), len(y)))
        return frechet_distance(x, y)

    copied = train_gap(TRAIN[:40], TRAIN, HELD_OUT, distance=recording, seed=0)
    new = train_gap(NEW, RNG.normal(size=(60, 16)), HELD_OUT, distance=recording, seed=0)
    assert sizes == {(40, 50)}
    assert copied.n == 50
    assert copied.mean > 3 * copied.sd
    assert copied.mean > 3 * abs(new.mean)
    assert copied == train_gap(TRAIN[:40], TRAIN, HELD_OUT, distance=recording, seed=0)


def test_mifid_divides_by_the_distance_of_copies_only() -> None:
    train = np.eye(4)
    near = train + 0.1 * np.roll(train, 1, axis=1)  # cosine of each to its training picture: 1 / sqrt(1.01)
    assert mifid(30.0, near, train) == pytest.approx(30 / (1 - 1 / np.sqrt(1.01)))
    assert mifid(30.0, np.ones((4, 4)), train) == 30.0  # cosine distance 1/2: no copies
    assert mifid(30.0, train, train) > 1e6


def test_auth_pct_counts_pictures_that_are_farther_than_training_pictures_are_from_one_another() -> None:
    train = np.array([[0.0], [1.0], [5.0]])
    assert auth_pct([[0.4], [1.1], [2.5], [9.5]], train) == pytest.approx(0.5)  # 0.4 < 1, 0.1 < 1, 1.5 > 1, 4.5 > 4


def test_c_t_is_0_for_held_out_pictures_and_far_below_for_copies() -> None:
    assert c_t(HELD_OUT, TRAIN, HELD_OUT) == 0
    assert c_t(TRAIN + 1e-3, TRAIN, HELD_OUT) < -5
    values = [c_t(x[:30], x[30:60], x[60:]) for x in np.random.default_rng(0).normal(size=(300, 90, 4))]
    assert abs(np.mean(values)) < 0.2  # all three of one distribution: about N(0, 1)
    assert 0.7 < np.std(values) < 1.4


def test_refuses_what_gives_no_threshold_or_ratio() -> None:
    held_out = nearest_ratio(HELD_OUT, TRAIN, PATIENTS)
    with pytest.raises(UserError, match=r"false-alarm rate of 0\.01"):
        copy_rate(held_out, held_out, false_alarm_rate=0.01)
    for groups in (["A"] * 60, PATIENTS[:59], []):
        with pytest.raises(UserError, match="training bank"):
            nearest_ratio(NEW, TRAIN, groups)
