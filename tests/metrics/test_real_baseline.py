"""The baseline splits by patient and uses the n it says, and z is measured from it."""

import numpy as np
import pytest

from woundray.errors import UserError
from woundray.metrics.feature_checks import Matrix
from woundray.metrics.frechet import frechet_distance
from woundray.metrics.real_baseline import BaselineOptions, RealBaseline, measure_real_baseline, patient_splits, z

PATIENTS = [f"P{i // 3}" for i in range(120)]  # 40 patients of 3 pictures


FEATURES = np.random.default_rng(0).normal(size=(120, 4))


def test_no_patient_stands_on_both_sides_and_each_side_has_n_pictures() -> None:
    seen = []

    def record(x: Matrix, y: Matrix) -> float:
        seen.append((x, y))
        return float(len(seen))

    rows = np.column_stack([np.arange(120), np.arange(120) // 3]).astype(float)
    real_baseline = measure_real_baseline(rows, PATIENTS, BaselineOptions(25, 10, 0), distance=record)
    assert (real_baseline.n, real_baseline.repeats, len(seen)) == (25, 10, 10)
    for x, y in seen:
        assert len(x) == len(y) == 25 == len({*x[:, 0]}) == len({*y[:, 0]})
        assert not {*x[:, 1]} & {*y[:, 1]}
    assert real_baseline.mean == 5.5
    assert real_baseline.sd == pytest.approx(np.std(range(10), ddof=1))


def test_is_the_same_for_the_same_seed_only() -> None:
    def real_baseline(seed: int) -> RealBaseline:
        return measure_real_baseline(FEATURES, PATIENTS, BaselineOptions(30, 5, seed), distance=frechet_distance)

    assert real_baseline(0) == real_baseline(0) != real_baseline(1)


def test_says_when_there_are_too_few_real_pictures() -> None:
    real_baseline = measure_real_baseline(FEATURES, PATIENTS, BaselineOptions(100, 5, 0), distance=frechet_distance)
    assert real_baseline.n == 60
    assert real_baseline.n_wanted == 100
    assert "too few real pictures for 100" in str(real_baseline)


def test_unseen_real_pictures_lie_near_z_0_and_shifted_ones_far_above() -> None:
    real_baseline = measure_real_baseline(FEATURES, PATIENTS, BaselineOptions(60, 50, 0), distance=frechet_distance)
    others = np.random.default_rng(1).normal(size=(120, 4))
    assert abs(z(frechet_distance(others[:60], others[60:]), real_baseline)) < 4
    assert z(frechet_distance(others[:60] + 1, others[60:]), real_baseline) > 10


def test_sides_of_two_sizes_are_dealt_and_shrink_alike_where_there_are_too_few() -> None:
    for n, m, sizes in ((60, 20, (60, 20)), (20, 60, (20, 60)), (300, 100, None)):
        for a, b in patient_splits(PATIENTS, BaselineOptions(n, repeats=20, seed=0, m=m)):
            assert not {PATIENTS[row] for row in a} & {PATIENTS[row] for row in b}
            if sizes:
                assert (len(a), len(b)) == sizes
            else:
                assert len(a) == pytest.approx(3 * len(b), abs=3)
                assert len(a) + len(b) > 90


@pytest.mark.parametrize(
    ("groups", "n", "message"),
    [
        (["A"] * 120, 10, "give pictures of more patients"),
        (PATIENTS[:5], 10, "5 patients for 120 pictures"),
        (PATIENTS, 1, "at least 2"),
    ],
)
def test_refuses_what_has_no_baseline(groups: list[str], n: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        measure_real_baseline(FEATURES, groups, BaselineOptions(n, 5, 0), distance=frechet_distance)


def test_z_of_a_baseline_without_spread_is_refused() -> None:
    with pytest.raises(UserError, match="no spread"):
        z(1.0, RealBaseline(0.0, 0.0, n=10, repeats=5, n_wanted=10))
