"""Scores of pictures against held-out photographs, on features that are easy to reckon with."""

import numpy as np
import pytest
import torch
from torch import Tensor

from woundray.evaluation import best_epoch, make_reference, score
from woundray.metrics.frechet import frechet_distance


class MeanColour:
    """A fake extractor: the mean of each channel."""

    name, dim, content_hash = "fake", 3, "fake"

    def __call__(self, images: Tensor) -> Tensor:
        return images.float().mean(dim=(2, 3))


def pictures(count: int, level: float, seed: int) -> Tensor:
    generator = np.random.default_rng(seed)
    colours = generator.normal(level, 20, size=(count, 3, 1, 1)).clip(0, 255).astype(np.uint8)
    return torch.tensor(colours).expand(count, 3, 4, 4)


def test_the_score_is_the_distance_to_held_out_pictures_and_z_counts_floor_sds() -> None:
    real = pictures(80, 120, seed=0)
    patients = [str(index // 2) for index in range(80)]
    reference = make_reference(real[:30], real, patients, MeanColour(), n=20, repeats=10, seed=0)
    drawn = pictures(20, 160, seed=1)
    scores = score(drawn, reference, MeanColour())
    expected = frechet_distance(MeanColour()(drawn).numpy(), MeanColour()(real[:30]).numpy())
    assert scores["fd_fake"] == pytest.approx(expected)
    floor = reference.floor
    assert scores["fd_fake_z"] == pytest.approx((expected - floor.mean) / floor.sd)
    near = score(pictures(20, 120, seed=2), reference, MeanColour())
    assert near["fd_fake_z"] < 4 < scores["fd_fake_z"]


def test_best_epoch_is_the_earliest_of_the_lowest() -> None:
    history = [{"epoch": epoch, "fd": value} for epoch, value in ((1.0, 9.0), (2.0, 5.0), (3.0, 5.0), (4.0, 4.9))]
    assert best_epoch(history, "fd") == 4
    assert best_epoch(history, "fd", min_delta=0.5) == 2
    assert best_epoch(history[:3], "fd") == 2
