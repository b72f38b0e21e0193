"""Intervals against the textbook's standard errors, and that patients count, not pictures."""

import numpy as np
import pytest

from woundray.errors import UserError
from woundray.metrics.frechet import frechet_distance
from woundray.metrics.jackknife import jackknife_sd


def test_of_a_difference_of_means_is_the_textbooks() -> None:
    x, y = np.random.default_rng(0).normal(size=400), np.random.default_rng(1).normal(0, 2, size=300)
    found = jackknife_sd(lambda a, b: float(x[a].mean() - y[b].mean()), 400, range(300), seed=0, blocks=100)
    assert found == pytest.approx(np.sqrt(x.var() / 400 + y.var() / 300), rel=0.15)


def test_three_pictures_of_each_patient_say_no_more_than_one() -> None:
    x, y = np.zeros(10), np.repeat(np.random.default_rng(0).normal(size=100), 3)
    patients = [str(i // 3) for i in range(300)]
    found = jackknife_sd(lambda a, b: float(x[a].mean() - y[b].mean()), 10, patients, seed=0, blocks=50)
    assert found == pytest.approx(y.std() / np.sqrt(100), rel=0.2)


def test_is_about_the_spread_of_a_frechet_distance_over_new_samples() -> None:
    rng = np.random.default_rng(0)
    draws = [(rng.normal(size=(60, 6)), rng.normal(0.5, 1, size=(50, 6))) for _ in range(60)]
    spread = np.std([frechet_distance(x, y) for x, y in draws])
    found = [jackknife_sd(lambda a, b, x=x, y=y: frechet_distance(x[a], y[b]), 60, range(50), seed=0) for x, y in draws]
    assert np.mean(found) == pytest.approx(spread, rel=0.3)


def test_refuses_one_patient() -> None:
    with pytest.raises(UserError, match="10 pictures and 1 patients"):
        jackknife_sd(lambda a, b: 0.0, 10, ["a"] * 5, seed=0)
