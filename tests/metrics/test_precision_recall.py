"""Precision, recall, density and coverage against naive loops over balls, and planted failures."""

import numpy as np
import pytest

from woundray.errors import UserError
from woundray.metrics.precision_recall import diversity, knn_distance, precision_recall

RNG = np.random.default_rng(0)
REAL, GENERATED = RNG.normal(size=(40, 6)), RNG.normal(0.4, 0.9, size=(55, 6))


def naive(real: np.ndarray, generated: np.ndarray, k: int) -> tuple[float, float, float, float]:
    def radius(of: np.ndarray, i: int) -> float:
        return float(sorted(np.linalg.norm(of[i] - other) for j, other in enumerate(of) if j != i)[k - 1])

    def inside(centres: np.ndarray, points: np.ndarray) -> np.ndarray:
        return np.array([[np.linalg.norm(p - c) < radius(centres, i) for p in points] for i, c in enumerate(centres)])

    in_real, in_generated = inside(real, generated), inside(generated, real)
    return (
        np.mean([column.any() for column in in_real.T]),
        np.mean([column.any() for column in in_generated.T]),
        in_real.sum() / (k * len(generated)),
        np.mean([row.any() for row in in_real]),
    )


@pytest.mark.parametrize("k", [1, 5])
def test_equals_naive_loops(k: int) -> None:
    found = precision_recall(REAL, GENERATED, k=k)
    assert (found.precision, found.recall, found.density, found.coverage) == pytest.approx(naive(REAL, GENERATED, k))
    assert found == precision_recall(REAL[::-1], RNG.permutation(GENERATED), k=k)


@pytest.mark.parametrize("k", [1, 5])
def test_equals_prdc(k: int) -> None:
    prdc = pytest.importorskip("prdc")
    found = precision_recall(REAL, GENERATED, k=k)
    expected = prdc.compute_prdc(REAL, GENERATED, nearest_k=k)
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(value), name


def test_a_collapsed_generator_is_precise_and_covers_little() -> None:
    collapsed = REAL[:1] + 1e-3 * RNG.normal(size=(50, 6))
    found = precision_recall(REAL, collapsed, k=3)
    assert found.precision == 1.0
    assert found.recall < 0.1
    assert found.coverage < 0.3


def test_diversity_is_the_mean_distance_of_two_pictures() -> None:
    assert diversity([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]]) == pytest.approx(10 / 3)
    assert diversity(np.ones((5, 3))) == 0


def test_neighbours_are_counted_by_angle_and_excluded_ones_are_not() -> None:
    real = np.array([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]])
    assert knn_distance([[5.0, 0.0]], real, k=2) == pytest.approx([0.5])  # angles 0, 90 and 180 degrees
    exclude = np.array([[True, False, False]])
    assert knn_distance([[5.0, 0.0]], real, k=2, exclude=exclude) == pytest.approx([1.5])
    with pytest.raises(UserError, match="k = 3"):
        knn_distance([[5.0, 0.0]], real, k=3, exclude=exclude)


@pytest.mark.parametrize("k", [0, 40])
def test_refuses_a_k_that_has_no_neighbour(k: int) -> None:
    with pytest.raises(UserError, match=f"k = {k}"):
        precision_recall(REAL, GENERATED, k=k)
