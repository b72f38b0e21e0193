"""Loss equations against their papers and diffusers."""

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.training_utils import compute_snr
from torch import Tensor, nn

from woundray.metrics.extractors import Lite0Trunk
from woundray.models.noise_schedule import NoiseSchedule, add_noise, predicted_x0, target
from woundray.training.losses import denoising_loss, snr_weights
from woundray.training.perceptual_loss import perceptual_distance


def schedule_of(kind: str) -> NoiseSchedule:
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2  # scaled_linear
    return NoiseSchedule((1 - betas).cumprod(0).float(), kind)  # type: ignore[arg-type]


def rows() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 5, 4, 3, 3, generator=generator)
    return x0, noise, torch.tensor([0, 10, 300, 700, 999])


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_true_target_gives_x0_back_at_each_rows_own_timestep(kind: str) -> None:
    """Guards also against `timesteps[0]` used for the whole batch."""
    schedule, (x0, noise, timesteps) = schedule_of(kind), rows()
    x_t = add_noise(schedule, x0, noise, timesteps)
    prediction = target(schedule, x0, noise, timesteps)
    torch.testing.assert_close(predicted_x0(schedule, x_t, prediction, timesteps), x0, atol=2e-4, rtol=1e-3)


def test_epsilon_and_v_agree_on_x0_of_the_same_denoiser() -> None:
    """v = (sqrt(abar) x_t - x0) / sqrt(1 - abar) of one estimate x0 (Salimans & Ho 2022, appendix D)."""
    x0, noise, timesteps = rows()
    timesteps = timesteps.clamp(1, 800)
    epsilon, v = schedule_of("epsilon"), schedule_of("v_prediction")
    x_t = add_noise(epsilon, x0, noise, timesteps)
    abar = epsilon.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    guess = 0.3 * x0 + 0.1
    as_epsilon = (x_t - abar.sqrt() * guess) / (1 - abar).sqrt()
    as_v = (abar.sqrt() * x_t - guess) / (1 - abar).sqrt()
    torch.testing.assert_close(predicted_x0(epsilon, x_t, as_epsilon, timesteps), guess, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(predicted_x0(v, x_t, as_v, timesteps), guess, atol=1e-4, rtol=1e-3)


def test_noise_and_v_target_are_diffusers() -> None:
    """Guards against a target made of the model's own prediction."""
    theirs = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    x0, noise, timesteps = rows()
    schedule = schedule_of("v_prediction")
    expected = theirs.get_velocity(x0, noise, timesteps)  # type: ignore[arg-type]
    torch.testing.assert_close(target(schedule, x0, noise, timesteps), expected, atol=1e-5, rtol=1e-4)
    noisy = theirs.add_noise(x0, noise, timesteps)  # type: ignore[arg-type]
    torch.testing.assert_close(add_noise(schedule, x0, noise, timesteps), noisy, atol=1e-5, rtol=1e-4)


def test_min_snr_weights_are_as_in_the_paper() -> None:
    """Hang et al. 2023, table 1: epsilon min(SNR, g) / SNR, v min(SNR, g) / (SNR + 1)."""
    timesteps = torch.arange(0, 1000, 7)
    epsilon, v = schedule_of("epsilon"), schedule_of("v_prediction")
    for index, t in enumerate(timesteps.tolist()):
        abar = float(epsilon.alphas_cumprod[t].double())
        snr = abar / (1 - abar)
        assert float(snr_weights(epsilon, timesteps, 5.0)[index]) == pytest.approx(min(snr, 5) / snr, rel=1e-3)
        assert float(snr_weights(v, timesteps, 5.0)[index]) == pytest.approx(min(snr, 5) / (snr + 1), rel=1e-3)
    assert torch.equal(snr_weights(epsilon, timesteps, 0.0), torch.ones(len(timesteps)))


def test_the_snr_is_diffusers() -> None:
    theirs = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    timesteps = torch.arange(0, 1000, 7)
    snr = compute_snr(theirs, timesteps)  # type: ignore[no-untyped-call]
    for kind, divisor in (("epsilon", snr), ("v_prediction", snr + 1)):
        weights = snr_weights(schedule_of(kind), timesteps, 5.0)
        torch.testing.assert_close(weights, snr.clamp(max=5.0) / divisor, rtol=1e-3, atol=0.0)


def test_debiased_weights_are_over_the_root_of_the_snr() -> None:
    """Yu et al. 2023 for epsilon; v's differ from them as without, so that both weigh x0's error alike."""
    timesteps = torch.arange(0, 1000, 7)
    epsilon, v = schedule_of("epsilon"), schedule_of("v_prediction")
    abar = epsilon.alphas_cumprod[timesteps].double()
    root = (abar / (1 - abar)).sqrt()
    for gamma in (0.0, 5.0):
        plain, debiased = (snr_weights(epsilon, timesteps, gamma, debiased=choice) for choice in (False, True))
        torch.testing.assert_close((debiased * root).float(), plain, rtol=1e-3, atol=0.0)
    ratio = snr_weights(v, timesteps, 5.0, debiased=True) / snr_weights(epsilon, timesteps, 5.0, debiased=True)
    torch.testing.assert_close(ratio.double(), root**2 / (root**2 + 1), rtol=1e-3, atol=0.0)
    ended = schedule_of("v_prediction").with_zero_terminal_snr()
    assert float(snr_weights(ended, torch.tensor([999]), 0.0, debiased=True)) == pytest.approx(1000**0.5)


def test_zero_terminal_snr_is_diffusers() -> None:
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    expected = (1 - rescale_zero_terminal_snr(betas)).cumprod(0)
    found = schedule_of("v_prediction").with_zero_terminal_snr().alphas_cumprod
    torch.testing.assert_close(found[:-1].double(), expected[:-1], rtol=1e-3, atol=1e-7)
    assert float(found[-1]) == 2**-24  # theirs is 0, which no solver can divide by


def test_weights_scale_each_row() -> None:
    prediction, expected = torch.ones(2, 4, 3, 3), torch.zeros(2, 4, 3, 3)
    assert denoising_loss(prediction, expected, torch.tensor([0.5, 2.0])).tolist() == [0.5, 2.0]


class SmoothTrunk(nn.Module):
    """Two smooth feature maps, so that finite differences of float32 mean something."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.weights = [torch.randn(8, 3, 3, 3, generator=generator) / 5 for _ in range(2)]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(nn.functional.conv2d(images, weight).tanh() for weight in self.weights)


def test_the_perceptual_gradient_agrees_with_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    expected, direction = torch.randn(2, 2, 3, 16, 16, generator=generator)
    images = (expected + 0.5 * torch.randn(expected.shape, generator=generator)).requires_grad_()
    trunk, step = SmoothTrunk(), 1e-2
    (gradient,) = torch.autograd.grad(perceptual_distance(trunk, images, expected).sum(), images)
    with torch.no_grad():
        ahead = perceptual_distance(trunk, images + step * direction, expected).sum()
        behind = perceptual_distance(trunk, images - step * direction, expected).sum()
    slope = float((ahead - behind) / (2 * step))
    assert slope != 0
    assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-2)


def test_the_perceptual_distance_is_zero_for_equal_pictures_and_grows_with_noise() -> None:
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(1))
    trunk = Lite0Trunk((0, 2))
    values = [float(perceptual_distance(trunk, picture + scale * noise, picture)) for scale in (0.0, 0.1, 0.4)]
    assert values[0] == 0
    assert 0 < values[1] < values[2]
