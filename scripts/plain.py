"""Plain reference of the benchmarks: an adapter trained and scored as the public scripts do it.

Follows diffusers' examples/text_to_image/train_text_to_image_lora.py: images are cropped and encoded, and prompts
embedded, at every step; gradients are checkpointed; the moving average is a loop over tensors. Models, adapter,
images, batch size and precision are those of woundray's run.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from numpy.typing import NDArray
from scipy.linalg import sqrtm
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextModel, CLIPTokenizer

from woundray.config import Config
from woundray.data.image_source import ImageSource
from woundray.metrics.extractors import Lite0, Lite0Trunk
from woundray.training.perceptual_loss import perceptual_distance

M = TypeVar("M", bound=nn.Module)


@dataclass
class PlainTrainer:
    """Trainer of a UNet's adapter on all photographs of `source`.

    With training.perceptual_weight above 0 the full VAE decodes the x0 estimates of the batch.
    """

    config: Config
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    scheduler: DDPMScheduler
    source: ImageSource
    trunk: nn.Module = field(default_factory=Lite0Trunk)
    steps: int = 0

    @classmethod
    def load(cls, config: Config, base: Path, unet: UNet2DConditionModel, source: ImageSource) -> "PlainTrainer":
        """Load the frozen encoders of a base model in the UNet's precision; the UNet has its adapter already."""
        return cls(
            config,
            unet,
            _frozen(AutoencoderKL.from_pretrained(base / "vae"), unet),
            _frozen(CLIPTextModel.from_pretrained(base / "text_encoder"), unet),
            CLIPTokenizer.from_pretrained(base / "tokenizer"),
            DDPMScheduler.from_pretrained(base / "scheduler"),
            source,
        )

    def __post_init__(self) -> None:
        self.trunk.to(self.unet.device)
        self.parameters = [parameter for parameter in self.unet.parameters() if parameter.requires_grad]
        training = self.config.training
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=training.learning_rate, weight_decay=training.weight_decay
        )
        self.average = [parameter.detach().clone() for parameter in self.parameters]
        self._generator = torch.Generator().manual_seed(0)

    def step(self) -> float:
        """Make one update and return the loss."""
        size, device, photos = self.config.training.batch_size, self.unet.device, self.source.photos
        perceptual = self.config.training.perceptual_weight
        self.unet.train()
        self.unet.enable_gradient_checkpointing()

        # images and captions, encoded again
        chosen = torch.randint(len(photos), (size,), generator=self._generator).tolist()
        pictures = torch.stack([self.source.view(photos[row], self.steps * size + row) for row in chosen])
        pixels = (pictures.float() / 127.5 - 1).to(device, self.unet.dtype)  # NCHW, uint8 => [-1, 1]
        latents = self.vae.encode(pixels).latent_dist.sample() * self.vae.config["scaling_factor"]
        tokens = self.tokenizer(
            [self.config.prompts.positive] * size,
            padding="max_length",
            truncation=True,
            max_length=self.tokenizer.model_max_length,
            return_tensors="pt",
        )
        text = self.text_encoder(tokens.input_ids.to(device), return_dict=False)[0]

        # the UNet's prediction
        noise = torch.randn_like(latents)
        timesteps = torch.randint(0, 1000, (size,), device=device)
        noisy = self.scheduler.add_noise(latents, noise, timesteps)  # type: ignore[arg-type]
        answer = self.unet(noisy, timesteps, text, return_dict=False)[0]
        loss = functional.mse_loss(answer.float(), noise.float())
        if perceptual > 0:
            abar = self.scheduler.alphas_cumprod.to(device)[timesteps].view(-1, 1, 1, 1)
            estimate = (noisy - (1 - abar).sqrt() * answer) / abar.sqrt()
            unscaled = (estimate / self.vae.config["scaling_factor"]).to(self.vae.dtype)
            decoded = self.vae.decode(unscaled, return_dict=False)[0]
            loss = loss + perceptual * perceptual_distance(self.trunk, decoded, pixels).mean()

        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.parameters, self.config.training.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        for average, parameter in zip(self.average, self.parameters, strict=True):
            average.mul_(self.config.training.ema_decay).add_(
                parameter.detach(), alpha=1 - self.config.training.ema_decay
            )
        self.steps += 1
        self.unet.disable_gradient_checkpointing()
        return loss.item()


def _frozen(module: M, unet: UNet2DConditionModel) -> M:
    nn.Module.to(module, unet.device, unet.dtype).requires_grad_(False)
    return module


def plain_pictures(
    base: Path, unet: UNet2DConditionModel, config: Config, seeds: Sequence[int], *, steps: int = 50
) -> Tensor:
    """Pictures of diffusers' own pipeline, uint8 (N, 3, H, W): text encoder and scheduler of the base, 50 steps."""
    pipeline = StableDiffusionPipeline.from_pretrained(
        base, unet=unet, torch_dtype=torch.float32, safety_checker=None, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)  # type: ignore[no-untyped-call]
    side, size = config.model.resolution, config.validation.batch_size
    pictures: list[Tensor] = []
    for start in range(0, len(seeds), size):
        own = seeds[start : start + size]
        images = pipeline(
            [config.prompts.positive] * len(own),
            height=side,
            width=side,
            num_inference_steps=steps,
            guidance_scale=config.validation.guidance_scale,
            generator=[torch.Generator().manual_seed(seed) for seed in own],
            output_type="np",
        ).images
        pictures.append(torch.from_numpy((images * 255).round().astype(np.uint8)).permute(0, 3, 1, 2))
    return torch.cat(pictures)


def plain_distance(generated: Tensor, real: Tensor) -> float:
    """The Frechet distance with the real pictures' statistics made anew and a matrix square root."""
    extractor = Lite0()
    a, b = (extractor(pictures).double().numpy() for pictures in (generated, real))
    root: NDArray[np.complex128] = sqrtm(np.cov(a, rowvar=False) @ np.cov(b, rowvar=False))
    gap = a.mean(0) - b.mean(0)
    traces = np.trace(np.cov(a, rowvar=False)) + np.trace(np.cov(b, rowvar=False)) - 2 * np.trace(root.real)
    return float(gap @ gap + traces)
