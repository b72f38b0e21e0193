"""Signal leak: distribution of samples, and that it holds no image."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from woundray.models.signal_leak import SignalLeak


def cells(latents: Tensor) -> Tensor:
    return functional.adaptive_avg_pool2d(latents, 4).flatten(1)


@pytest.fixture(scope="module")
def latents() -> Tensor:
    """200 pictures of 4 channels whose cells depend on each other."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(200, 4, 2, 2, generator=generator) @ torch.tensor([[1.0, 0.8], [0.0, 0.5]])
    fine = 0.2 * torch.randn(200, 4, 8, 8, generator=generator)
    return functional.interpolate(coarse, (8, 8)) + fine + torch.tensor([1.0, -2.0, 0.5, 0.0]).view(4, 1, 1)


def test_samples_have_the_mean_and_covariance_of_the_images(latents: Tensor) -> None:
    leak = SignalLeak.fit(latents)
    generator = torch.Generator().manual_seed(1)
    drawn = torch.stack([leak.sample(generator, 4, 4) for _ in range(20_000)])  # one value a cell: nothing is enlarged

    expected, found = cells(latents), drawn.flatten(1)
    torch.testing.assert_close(found.mean(0), expected.mean(0), atol=0.05, rtol=0)
    torch.testing.assert_close(torch.cov(found.T), torch.cov(expected.T), atol=0.06, rtol=0)


def test_a_signal_is_as_large_as_the_latents_are(latents: Tensor) -> None:
    signal = SignalLeak.fit(latents).sample(torch.Generator().manual_seed(1), 16, 24)
    assert signal.shape == (4, 16, 24) and signal.dtype == torch.float32


def test_fewer_pictures_than_cells_do(latents: Tensor) -> None:
    leak = SignalLeak.fit(latents[:5])
    assert leak.spread.isfinite().all()
    assert torch.linalg.matrix_rank(leak.spread, atol=1e-3) == 4


def test_it_does_not_hold_the_pictures(latents: Tensor) -> None:
    """Two sets of the same means and covariances leave the same file: the images can not be recovered from it."""
    mean = latents.mean(0)
    leak, mirrored = SignalLeak.fit(latents), SignalLeak.fit(2 * mean - latents)
    torch.testing.assert_close(leak.mean, mirrored.mean)
    torch.testing.assert_close(leak.spread, mirrored.spread, atol=1e-5, rtol=1e-4)


def test_a_file_is_read_as_written(latents: Tensor, tmp_path: Path) -> None:
    leak = SignalLeak.fit(latents)
    assert SignalLeak.read(tmp_path) is None
    leak.write(tmp_path)
    again = SignalLeak.read(tmp_path)
    assert again is not None and torch.equal(again.mean, leak.mean) and torch.equal(again.spread, leak.spread)
