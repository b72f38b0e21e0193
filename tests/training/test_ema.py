"""EMA against a hand-computed average, diffusers' EMAModel, and the user's earlier bug."""

import torch
from diffusers.training_utils import EMAModel

from woundray.training.ema import EMA, ramped_decay


def walk(steps: int, decay: float) -> tuple[EMA, dict[str, torch.Tensor], list[float]]:
    """Return an EMA after `steps` updates of a parameter that walks 1, 2, 3 ... away from 0."""
    parameters = {"a": torch.zeros(1)}
    ema, values = EMA(parameters, decay), []
    for step in range(steps):
        parameters["a"].fill_(step + 1.0)
        ema.update(parameters)
        values.append(step + 1.0)
    return ema, parameters, values


def test_it_equals_a_hand_computed_average_over_50_steps() -> None:
    ema, _, values = walk(50, 0.95)
    average = 0.0
    for step, value in enumerate(values):
        d = min(0.95, (1 + step) / (10 + step))
        average = d * average + (1 - d) * value
    torch.testing.assert_close(ema.average["a"], torch.tensor([average]))


def test_with_a_decay_of_0_9999_it_is_not_the_initial_weights_after_30_steps() -> None:
    """The user's earlier average had no ramp: after 500 updates 95 % of it was still the initial weights."""
    ema, _, _ = walk(30, 0.9999)
    assert float(ema.average["a"]) > 15  # the parameter stands at 30
    without_ramp = 0.9999**30
    assert without_ramp > 0.99


def test_the_ramp_ends_at_the_decay() -> None:
    assert ramped_decay(0.99, 0) == 0.1
    assert ramped_decay(0.99, 10_000) == 0.99


def test_it_is_diffusers_average_from_the_second_update_on() -> None:
    """EMAModel's first update has decay 0: both agree where the first update changes nothing."""
    parameter = torch.nn.Parameter(torch.zeros(3))
    ours, theirs = EMA({"a": parameter}, 0.95), EMAModel([parameter], decay=0.95)
    for step in range(50):
        ours.update({"a": parameter})
        theirs.step([parameter])
        torch.testing.assert_close(ours.average["a"], theirs.shadow_params[0])
        with torch.no_grad():
            parameter.add_(step + 1.0)


def test_without_decay_the_average_is_the_parameter() -> None:
    ema, parameters, _ = walk(7, 0.0)
    assert torch.equal(ema.average["a"], parameters["a"])


def test_applied_restores_the_parameters_to_the_bit_even_after_an_error() -> None:
    ema, parameters, _ = walk(5, 0.9)
    own, average = parameters["a"].clone(), ema.average["a"].clone()
    try:
        with ema.applied(parameters):
            assert torch.equal(parameters["a"], average)
            raise KeyError
    except KeyError:
        assert torch.equal(parameters["a"], own)
        assert torch.equal(ema.average["a"], average)
