"""Sampling: one seed an image, whatever its batch; the solver against an analytic denoiser; grids."""

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from woundray.models.noise_schedule import NoiseSchedule
from woundray.models.signal_leak import SignalLeak
from woundray.models.text_encoder import embed_prompts
from woundray.models.unet import load_unet
from woundray.models.vae import load_vae
from woundray.sampling.grids import make_grid
from woundray.sampling.pipeline import sample_images, sample_latents
from woundray.sampling.solver import Prompt, Sampler, denoise

CPU = torch.device("cpu")


class GaussianDenoiser:
    """Exact prediction for data N(mean, sd^2) in every latent value: the solver must return that distribution."""

    device, dtype = CPU, torch.float32

    def __init__(self, schedule: NoiseSchedule, mean: float, sd: float) -> None:
        self.schedule, self.mean, self.sd = schedule, mean, sd

    def modules(self) -> tuple[()]:
        return ()  # no adapter among them

    def __call__(
        self, x_t: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, added_cond_kwargs: None, return_dict: bool
    ) -> tuple[Tensor]:
        abar = self.schedule.alphas_cumprod[int(timestep)]
        variance = abar * self.sd**2 + 1 - abar
        epsilon = (1 - abar).sqrt() * (x_t - abar.sqrt() * self.mean) / variance
        if self.schedule.prediction_type == "epsilon":
            return (epsilon,)
        x0 = (x_t - (1 - abar).sqrt() * epsilon) / abar.sqrt()
        return (abar.sqrt() * epsilon - (1 - abar).sqrt() * x0,)


def test_the_solver_turns_noise_into_the_data_for_both_prediction_types(micro_base: Path) -> None:
    noise = torch.randn(64, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    prompt = Prompt(torch.zeros(2, 3), torch.zeros(2, 3))
    abar = NoiseSchedule.load(micro_base).alphas_cumprod
    for kind in ("epsilon", "v_prediction"):
        schedule = NoiseSchedule(abar, kind)  # type: ignore[arg-type]
        for steps in (8, 20):
            sampler = Sampler(schedule, 64, steps, guidance_scale=1.0, batch_size=8)
            latents = denoise(GaussianDenoiser(schedule, 0.7, 0.4), noise, prompt, sampler)  # type: ignore[arg-type]
            assert abs(float(latents.mean()) - 0.7) < 0.03
            assert abs(float(latents.std()) - 0.4) < 0.03


def test_both_prediction_types_of_one_denoiser_give_the_same_picture(micro_base: Path) -> None:
    """eps and v are two spellings of one x0; their solvers must end at one picture, guided or not."""
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    prompt = Prompt(torch.zeros(2, 3), torch.zeros(2, 3))
    abar = NoiseSchedule.load(micro_base).alphas_cumprod
    for guidance_scale in (1.0, 3.0):
        ends = []
        for kind in ("epsilon", "v_prediction"):
            schedule = NoiseSchedule(abar, kind)  # type: ignore[arg-type]
            sampler = Sampler(schedule, 64, 20, guidance_scale, batch_size=2)
            ends.append(denoise(GaussianDenoiser(schedule, 0.7, 0.4), noise, prompt, sampler))  # type: ignore[arg-type]
        # the solver's noise levels lie between the whole timesteps that a denoiser is called with
        torch.testing.assert_close(*ends, atol=1e-3, rtol=0)


def test_a_picture_depends_on_its_seed_alone(micro_base: Path) -> None:
    unet, vae = load_unet(micro_base, dtype=torch.float32, device=CPU), load_vae(micro_base, device=CPU)
    prompt = Prompt.from_embeddings(embed_prompts(micro_base, ["a wound", ""], device=CPU))
    schedule = NoiseSchedule.load(micro_base)
    done: list[int] = []
    together = sample_images(unet, vae, prompt, [3, 4, 5], Sampler(schedule, 64, 3, 2.0, batch_size=2), done.append)
    alone = sample_images(unet, vae, prompt, [4], Sampler(schedule, 64, 3, 2.0, batch_size=1))
    assert together.shape == (3, 3, 64, 64)
    assert together.dtype == torch.uint8
    assert (together[1].int() - alone[0].int()).abs().max() <= 1
    assert not torch.equal(together[0], together[1])
    assert done == [2, 3]


class RecordingDenoiser(GaussianDenoiser):
    """Records its noisy inputs."""

    config: ClassVar = {"in_channels": 4}

    def __init__(self, schedule: NoiseSchedule) -> None:
        super().__init__(schedule, 0, 1)
        self.first: list[Tensor] = []

    def __call__(self, x_t: Tensor, *arguments: Any, **named: Any) -> tuple[Tensor]:
        self.first.append(x_t)
        return super().__call__(x_t, *arguments, **named)


def test_initial_noise_is_distributed_as_the_last_training_step(micro_base: Path) -> None:
    """The first x_t is distributed as sqrt(abar) x0 + sqrt(1 - abar) noise of the last training step."""
    schedule = NoiseSchedule.load(micro_base)
    generator = torch.Generator().manual_seed(0)
    x0 = torch.tensor([3.0, -2.0, 0.0, 1.0]).view(4, 1, 1) + 0.5 * torch.randn(300, 4, 1, 1, generator=generator)
    leak = SignalLeak.fit(x0.expand(-1, -1, 8, 8))
    prompt = Prompt(torch.zeros(2, 3), torch.zeros(2, 3))
    seeds, last = range(400), schedule.alphas_cumprod[-1]

    def start(schedule: NoiseSchedule, leak: SignalLeak | None) -> Tensor:
        denoiser = RecordingDenoiser(schedule)
        sample_latents(denoiser, prompt, seeds, Sampler(schedule, 64, 1, 1.0, 400, leak))  # type: ignore[arg-type]
        return denoiser.first[0]

    found, noise = start(schedule, leak), start(schedule, None)
    expected = float(last.sqrt()) * torch.tensor([3.0, -2.0, 0.0, 1.0])
    torch.testing.assert_close((found - noise).mean((0, 2, 3)), expected, atol=0.01, rtol=0)
    assert abs(float(noise.mean())) < 0.01
    ended = NoiseSchedule(schedule.alphas_cumprod, "v_prediction").with_zero_terminal_snr()
    torch.testing.assert_close(start(ended, leak), start(ended, None), atol=5e-3, rtol=0)


def test_guidance_leads_away_from_the_negative_prompt(micro_base: Path) -> None:
    """Ho & Salimans 2022, eq. 6, at one step: unconditional + g (conditional - unconditional)."""

    class TwoPredictions(GaussianDenoiser):
        def __call__(
            self,
            x_t: Tensor,
            timestep: Tensor,
            encoder_hidden_states: Tensor,
            added_cond_kwargs: None,
            return_dict: bool,
        ) -> tuple[Tensor]:
            return (encoder_hidden_states[:, :1, :1, None].expand_as(x_t),)

    schedule = NoiseSchedule.load(micro_base)
    prompt = Prompt(positive=torch.full((2, 3), 1.0), negative=torch.full((2, 3), 0.25))
    plain = Prompt(positive=torch.full((2, 3), 0.25 + 3 * 0.75), negative=torch.zeros(2, 3))
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    denoiser = TwoPredictions(schedule, 0, 1)
    guided = denoise(denoiser, noise, prompt, Sampler(schedule, 64, 2, 3.0, 1))  # type: ignore[arg-type]
    expected = denoise(denoiser, noise, plain, Sampler(schedule, 64, 2, 1.0, 1))  # type: ignore[arg-type]
    torch.testing.assert_close(guided, expected)


def test_a_grid_holds_every_picture_in_its_place() -> None:
    pictures = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 3, 4, 6)
    sheet = make_grid(pictures, columns=2, gap_px=1)
    assert sheet.shape == (3, 3 * 5 - 1, 2 * 7 - 1)
    for index in range(5):
        top, left = index // 2 * 5, index % 2 * 7
        assert (sheet[:, top : top + 4, left : left + 6] == index).all()
    assert (sheet[:, 4] == 255).all()
