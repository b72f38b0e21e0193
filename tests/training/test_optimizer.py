"""Learning-rate schedules, and optimizers' state in a file."""

import sys
from pathlib import Path

import pytest
import torch
from diffusers.optimization import get_scheduler

from woundray.config import TrainingConfig
from woundray.errors import UserError
from woundray.training.checkpoint import RestorableState, read_state, write_state
from woundray.training.ema import EMA
from woundray.training.loss_monitor import make_scaler
from woundray.training.lr_schedule import learning_rate
from woundray.training.optimizer import averaged_weights, make_optimizer

SCALER = make_scaler("fp32", torch.device("cpu"))


def schedule_rates(**settings: object) -> list[float]:
    config = TrainingConfig(learning_rate=1.0, **settings)  # type: ignore[arg-type]
    return [learning_rate(update, 100, config) for update in range(100)]


def test_cosine_after_a_linear_warm_up() -> None:
    rates = schedule_rates(schedule="cosine", warmup_steps=10)
    assert rates[:10] == sorted(rates[:10])
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[99] < 0.001


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "cosine_with_restarts"])
def test_after_the_warm_up_it_is_diffusers(schedule: str) -> None:
    """In the warm-up diffusers begins at 0, an update that would change nothing."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    name = "constant_with_warmup" if schedule == "constant" else schedule
    theirs = get_scheduler(name, optimizer, num_warmup_steps=10, num_training_steps=100, num_cycles=3)
    if schedule == "cosine":
        theirs = get_scheduler(name, optimizer, num_warmup_steps=10, num_training_steps=100)
    for update, rate in enumerate(schedule_rates(schedule=schedule, warmup_steps=10, restarts=3)):
        if update >= 10:
            assert rate == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        theirs.step()


def test_cosine_without_warm_up_is_torchs() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100)
    for rate in schedule_rates(schedule="cosine", warmup_steps=0):
        assert rate == pytest.approx(scheduler.get_last_lr()[0], abs=1e-6)
        optimizer.step()
        scheduler.step()


def test_linear_and_constant() -> None:
    assert schedule_rates(schedule="linear", warmup_steps=0)[50] == 0.5
    assert set(schedule_rates(schedule="constant", warmup_steps=0)) == {1.0}


def test_a_short_run_warms_up_over_a_quarter_at_most() -> None:
    config = TrainingConfig(learning_rate=1.0, warmup_steps=500)
    assert learning_rate(2, 8, config) == 1.0


@pytest.mark.parametrize("name", ["adamw", "adamw_8bit", "prodigy", "schedule_free_adamw"])
def test_optimizer_state_is_restored_from_a_file_to_the_bit(name: str, tmp_path: Path) -> None:
    """Three updates, a file, three more: the same parameters as of six updates in one go."""
    pytest.importorskip({"adamw_8bit": "bitsandbytes", "prodigy": "prodigyopt"}.get(name, "schedulefree"))
    config = TrainingConfig(optimizer=name, learning_rate=0.1)  # type: ignore[arg-type]
    whole = fresh_parameters()
    optimizer = make_optimizer(whole.values(), config)
    update(optimizer, whole, range(6))

    first = fresh_parameters()
    half = make_optimizer(first.values(), config)
    update(half, first, range(3))
    write(tmp_path / "state.safetensors", first, half, name)
    second = fresh_parameters()
    resumed = make_optimizer(second.values(), config)
    read(tmp_path / "state.safetensors", second, resumed, name)
    update(resumed, second, range(3, 6))
    for key, parameter in whole.items():
        assert torch.equal(parameter, second[key]), key
        assert not torch.equal(parameter, first[key])


@pytest.mark.parametrize("name", ["adamw", "prodigy", "schedule_free_adamw"])
def test_every_optimizer_finds_the_minimum_of_a_parabola(name: str) -> None:
    rate = 1.0 if name == "prodigy" else 0.05
    config = TrainingConfig(optimizer=name, learning_rate=rate, weight_decay=0.0)  # type: ignore[arg-type]
    parameter = torch.nn.Parameter(torch.full((4,), 3.0))
    optimizer = make_optimizer([parameter], config)
    for _ in range(300):
        (parameter - 1).square().sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
    with averaged_weights(optimizer):
        assert (parameter - 1).abs().max() < 0.1


def test_averaged_weights_of_a_schedule_free_optimizer() -> None:
    config = TrainingConfig(optimizer="schedule_free_adamw", learning_rate=0.1)
    parameters = fresh_parameters()
    optimizer = make_optimizer(parameters.values(), config)
    update(optimizer, parameters, range(5))
    moving = parameters["a"].detach().clone()
    with averaged_weights(optimizer):
        # y = (1 - beta1) z + beta1 x (arXiv 2405.15682, eq. 1)
        x, z = parameters["a"].detach().clone(), optimizer.state[parameters["a"]]["z"]
        torch.testing.assert_close(0.1 * z + 0.9 * x, moving)
    torch.testing.assert_close(parameters["a"].detach(), moving)


def test_a_missing_library_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prodigyopt", None)
    with pytest.raises(UserError, match=r"training\.optimizer: prodigy needs the package prodigyopt: pip install"):
        make_optimizer([torch.nn.Parameter(torch.zeros(1))], TrainingConfig(optimizer="prodigy"))


def test_a_state_of_another_optimizer_or_other_photographs_is_refused(tmp_path: Path) -> None:
    path, parameters = tmp_path / "state.safetensors", fresh_parameters()
    optimizer = make_optimizer(parameters.values(), TrainingConfig())
    update(optimizer, parameters, range(1))
    write(path, parameters, optimizer, "adamw")
    with pytest.raises(UserError, match=r"of a run with training\.optimizer adamw, not prodigy"):
        read(path, parameters, optimizer, "prodigy")
    with pytest.raises(UserError, match="of a run on other photographs"):
        read_state(
            path, RestorableState(parameters, EMA(parameters, 0.9), optimizer, SCALER, "adamw", precomputed_key="other")
        )


def test_restarts_start_again_at_the_peak() -> None:
    rates = schedule_rates(schedule="cosine_with_restarts", restarts=4, warmup_steps=0)
    assert [rates[update] for update in (0, 25, 50, 75)] == [1.0] * 4
    assert rates[24] < 0.01
    once = schedule_rates(schedule="cosine", warmup_steps=0)
    assert rates[:25] == pytest.approx(once[::4])


def test_schedule_free_has_no_schedule() -> None:
    assert set(schedule_rates(optimizer="schedule_free_adamw", schedule="cosine", warmup_steps=0)) == {1.0}


def fresh_parameters() -> dict[str, torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.nn.Parameter(torch.randn(40, 50, generator=generator)) for name in ("b", "a")}


def update(optimizer: torch.optim.Optimizer, parameters: dict[str, torch.nn.Parameter], steps: range) -> None:
    """Do updates with gradients that are a function of the step."""
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        for parameter in parameters.values():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()


def write(path: Path, parameters: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer, name: str) -> None:
    ema = EMA(parameters, 0.9)
    write_state(path, RestorableState(parameters, ema, optimizer, SCALER, name, precomputed_key="key"))


def read(path: Path, parameters: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer, name: str) -> None:
    ema = EMA(parameters, 0.9)
    read_state(path, RestorableState(parameters, ema, optimizer, SCALER, name, precomputed_key="key"))
