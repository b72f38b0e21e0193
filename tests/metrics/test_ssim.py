"""SSIM against scikit-image, pair by pair."""

import numpy as np
import pytest
from skimage.metrics import structural_similarity
from torch import Tensor

from metrics.random_images import pictures, similar_pictures
from woundray.errors import UserError
from woundray.metrics.nearest import nearest
from woundray.metrics.ssim import ssim_matrix


def test_ssim_equals_scikit_image() -> None:
    x, y = similar_pictures()
    expected = [
        [
            structural_similarity(
                a.numpy(),
                b.numpy(),
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
                channel_axis=0,
                data_range=255,
            )
            for b in y
        ]
        for a in x
    ]
    assert np.abs(ssim_matrix(x, y) - expected).max() < 1e-4
    assert nearest(ssim_matrix(x, y), highest=True).index[1] == 2


def test_ssim_of_many_pairs_is_that_of_each() -> None:
    x, y = pictures(1, seed=0, height=20, width=20), pictures(70, seed=1, height=20, width=20)
    assert ssim_matrix(x, y)[0, 69] == pytest.approx(ssim_matrix(x, y[69:])[0, 0], abs=1e-6)
    assert ssim_matrix(x, x)[0, 0] == pytest.approx(1.0)


@pytest.mark.parametrize("y", [pictures(1, seed=0, height=32), pictures(1, seed=0).float()])
def test_refuses_two_sizes_and_floats(y: Tensor) -> None:
    with pytest.raises(UserError, match="pictures"):
        ssim_matrix(pictures(1, seed=0), y)
