"""KID and RBF-MMD against naive double loops, unbiasedness, and the bootstrap."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torchmetrics.image.kid import poly_mmd

from woundray.errors import UserError
from woundray.metrics.kid import kid, kid_interval, rbf_mmd

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(12, 5)), RNG.normal(0.5, 1, size=(15, 5))


def naive(kernel: Callable[[np.ndarray, np.ndarray], float], x: np.ndarray, y: np.ndarray) -> float:
    within = [np.mean([kernel(a, b) for a, b in itertools.permutations(s, 2)]) for s in (x, y)]
    return float(sum(within) - 2 * np.mean([kernel(a, b) for a, b in itertools.product(x, y)]))


def test_kid_equals_the_double_loop_and_torchmetrics() -> None:
    assert kid(X, Y) == pytest.approx(naive(lambda a, b: (a @ b / 5 + 1) ** 3, X, Y), rel=1e-9)
    oracle = poly_mmd(torch.from_numpy(X), torch.from_numpy(Y[:12])).item()  # equal sizes only
    assert kid(X, Y[:12]) == pytest.approx(oracle, rel=1e-6)


def test_rbf_equals_the_double_loop() -> None:
    expected = naive(lambda a, b: np.exp(-((a - b) @ (a - b)) / (2 * 1.7**2)), X, Y)
    assert rbf_mmd(X, Y, bandwidth=1.7) == pytest.approx(expected, rel=1e-9)
    assert rbf_mmd(X, Y) > 0


def test_kid_of_one_distribution_is_0_on_average() -> None:
    values = [kid(s[:15], s[15:]) for s in np.random.default_rng(1).normal(size=(300, 30, 5))]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(300)


def test_the_interval_holds_the_value_and_is_not_shifted_by_pictures_drawn_twice() -> None:
    interval = kid_interval(X, Y, seed=0, repeats=400)
    assert interval == kid_interval(X, Y, seed=0, repeats=400)
    assert interval.low < interval.value == kid(X, Y) < interval.high
    x, y = np.random.default_rng(2).normal(size=(2, 200, 5))
    near = kid_interval(x, y, seed=0, repeats=400)
    assert (near.low + near.high) / 2 == pytest.approx(near.value, abs=0.25 * (near.high - near.low))


def test_photographs_of_one_patient_count_as_one() -> None:
    """Each patient's picture three times says no more than once; the interval must not become narrower, or shift."""
    x, y = np.random.default_rng(3).normal(size=(2, 40, 5))
    once = kid_interval(x, y, seed=0, repeats=600)
    near_copies = np.repeat(y, 3, axis=0) + 1e-6 * np.random.default_rng(4).normal(size=(120, 5))
    grouped = kid_interval(x, near_copies, seed=0, repeats=600, y_groups=[str(i // 3) for i in range(120)])
    alone = kid_interval(x, near_copies, seed=0, repeats=600)
    width = once.high - once.low
    assert grouped.high - grouped.low == pytest.approx(width, rel=0.15)
    assert alone.high - alone.low < 0.9 * width
    assert (grouped.low + grouped.high) / 2 == pytest.approx(grouped.value, abs=0.25 * width)


def test_refuses_nan_few_pictures_and_equal_ones() -> None:
    with pytest.raises(UserError, match="not finite"):
        kid(X, np.full_like(Y, np.nan))
    with pytest.raises(UserError, match="1 pictures"):
        kid(X[:1], Y)
    with pytest.raises(UserError, match="at least 10"):
        kid_interval(X[:5], Y, seed=0)
    with pytest.raises(UserError, match="bandwidth 0"):
        rbf_mmd(np.ones((3, 2)), np.ones((3, 2)))
