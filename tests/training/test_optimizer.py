"""The course of the learning rate."""

import pytest
import torch

from woundray.config import TrainingConfig
from woundray.training.optimizer import learning_rate


def course(**settings: object) -> list[float]:
    config = TrainingConfig(learning_rate=1.0, **settings)  # type: ignore[arg-type]
    return [learning_rate(update, 100, config) for update in range(100)]


def test_it_rises_over_the_warm_up_and_then_falls_by_half_a_cosine() -> None:
    rates = course(schedule="cosine", warmup_steps=10)
    assert rates[:10] == sorted(rates[:10])
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[99] < 0.001


def test_cosine_without_warm_up_is_torchs() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100)
    for rate in course(schedule="cosine", warmup_steps=0):
        assert rate == pytest.approx(scheduler.get_last_lr()[0], abs=1e-6)
        optimizer.step()
        scheduler.step()


def test_linear_and_constant() -> None:
    assert course(schedule="linear", warmup_steps=0)[50] == 0.5
    assert set(course(schedule="constant", warmup_steps=0)) == {1.0}


def test_a_short_run_warms_up_over_a_quarter_at_most() -> None:
    config = TrainingConfig(learning_rate=1.0, warmup_steps=500)
    assert learning_rate(2, 8, config) == 1.0
