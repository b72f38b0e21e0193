"""The inception score against torchmetrics and at its two ends."""

import numpy as np
import pytest
import torch
from torchmetrics.image.inception import InceptionScore

from woundray.errors import UserError
from woundray.metrics.inception_score import inception_score


class Logits(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.double().flatten(1) / 50


@pytest.mark.filterwarnings("ignore:Metric `InceptionScore` will save all extracted features")
@pytest.mark.filterwarnings("ignore:std\\(\\)")
def test_equals_torchmetrics() -> None:
    images = torch.randint(0, 256, (40, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    oracle = InceptionScore(feature=Logits(), splits=1)
    oracle.update(images)
    assert inception_score(images.double().flatten(1) / 50) == pytest.approx(oracle.compute()[0].item(), rel=1e-5)


def test_is_1_for_equal_pictures_and_the_number_of_classes_for_sure_diverse_ones() -> None:
    assert inception_score(np.tile([1.0, 2.0, 3.0], (5, 1))) == pytest.approx(1.0)
    assert inception_score(100 * np.eye(7)) == pytest.approx(7.0)


def test_takes_log_probabilities_and_refuses_nan() -> None:
    logits = np.random.default_rng(0).normal(size=(20, 5))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert inception_score(np.log(probabilities)) == pytest.approx(inception_score(logits))
    with pytest.raises(UserError, match="not finite"):
        inception_score(np.full((3, 4), np.nan))
