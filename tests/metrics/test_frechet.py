"""Fréchet distance against scipy's matrix root, torchmetrics, and what must not change it."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torchmetrics.image.fid import FrechetInceptionDistance

from woundray.errors import UserError
from woundray.metrics.frechet import frechet_distance

RNG = np.random.default_rng


def two_sets(n: int, m: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    rng = RNG(0)
    mix = rng.normal(size=(d, d))
    return rng.normal(size=(n, d)) @ mix, rng.normal(0.3, 1.5, size=(m, d)) @ mix


def textbook(x: np.ndarray, y: np.ndarray) -> float:
    gap = x.mean(0) - y.mean(0)
    s, t = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    return float(gap @ gap + np.trace(s + t - 2 * scipy.linalg.sqrtm(s @ t).real))


@pytest.mark.parametrize(("n", "m", "d"), [(60, 80, 12), (300, 100, 32), (33, 400, 32)])
def test_equals_the_matrix_root_of_scipy(n: int, m: int, d: int) -> None:
    x, y = two_sets(n, m, d)
    assert frechet_distance(x, y) == pytest.approx(textbook(x, y), rel=1e-6)


def test_equals_the_eigenvalues_of_singular_covariances() -> None:
    x, y = two_sets(20, 25, 40)  # fewer pictures than dimensions
    roots = np.linalg.eigvals(np.cov(x, rowvar=False) @ np.cov(y, rowvar=False)).real.clip(min=1e-9) ** 0.5
    gap = x.mean(0) - y.mean(0)
    expected = gap @ gap + x.var(0, ddof=1).sum() + y.var(0, ddof=1).sum() - 2 * roots.sum()
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-4)


class Flatten(torch.nn.Module):
    num_features = 48

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.double().flatten(1)


def test_equals_torchmetrics() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 200, (90, 3, 4, 4), dtype=torch.uint8, generator=generator)
    y = torch.randint(30, 256, (120, 3, 4, 4), dtype=torch.uint8, generator=generator)
    oracle = FrechetInceptionDistance(feature=Flatten(), input_img_size=(3, 4, 4)).set_dtype(torch.float64)
    oracle.update(x, real=True)
    oracle.update(y, real=False)
    value = frechet_distance(x.flatten(1).double().numpy(), y.flatten(1).double().numpy())
    assert value == pytest.approx(oracle.compute().item(), rel=1e-6)


@pytest.mark.parametrize("n", [10, 100])
def test_equal_sets_in_any_order_are_at_zero(n: int) -> None:
    x, y = two_sets(n, n, 20)
    assert frechet_distance(x, RNG(1).permutation(x)) < 1e-6
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x), rel=1e-9)


def test_sees_a_shift_exactly() -> None:
    x, _ = two_sets(50, 50, 8)
    assert frechet_distance(x, x + 2.0) == pytest.approx(4.0 * 8)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((1, 4)), "1 pictures; give at least 2"),
        (np.full((3, 4), np.nan), "not finite"),
        (np.zeros(4), "one row a picture"),
        (np.zeros((3, 5)), "5 and 4 columns"),
    ],
)
def test_refuses_what_has_no_distance(x: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        frechet_distance(x, RNG(0).normal(size=(6, 4)))
