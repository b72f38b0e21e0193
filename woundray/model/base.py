"""The parts of a latent diffusion model (Rombach et al. 2022, arXiv 2112.10752), each loaded when it is needed."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.utils import logging as diffusers_logging
from torch import Tensor

from woundray.errors import UserError

diffusers_logging.disable_progress_bar()  # loading takes a second

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Denoiser(Protocol):
    """A UNet, bare or wrapped for DDP."""

    def __call__(
        self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, return_dict: bool
    ) -> tuple[Tensor]:
        """Noisy latents (N, 4, h, w), timesteps (N,), text (N, tokens, width) -> prediction (N, 4, h, w)."""


@dataclass(frozen=True)
class NoiseSchedule:
    """The forward process q(x_t | x_0) = N(sqrt(abar_t) x_0, (1 - abar_t) I) (Ho et al. 2020, eq. 4).

    Attributes:
        alphas_cumprod: abar_t for t = 0..T-1, float32.
        prediction_type: what the UNet was trained to predict: the noise (epsilon), or v = sqrt(abar) eps -
            sqrt(1 - abar) x_0 (Salimans & Ho 2022, arXiv 2202.00512).
    """

    alphas_cumprod: Tensor
    prediction_type: Literal["epsilon", "v_prediction"]

    @classmethod
    def of(cls, folder: Path) -> "NoiseSchedule":
        """The schedule that a model was trained with. Raises UserError for a prediction type that is not known."""
        scheduler = DDPMScheduler.from_config(_read_json(folder / "scheduler/scheduler_config.json"))
        kind = scheduler.config["prediction_type"]
        if kind not in ("epsilon", "v_prediction"):
            raise UserError(f"{folder}/scheduler: prediction_type {kind} is not epsilon or v_prediction")
        return cls(scheduler.alphas_cumprod.float(), kind)

    def with_zero_terminal_snr(self) -> "NoiseSchedule":
        """Shifted and scaled so that the last step is pure noise and the first as it was (arXiv 2305.08891, alg. 1).

        Raises:
            UserError: the model predicts the noise, which says nothing of the picture where there is only noise.
        """
        if self.prediction_type == "epsilon":
            raise UserError("model.zero_terminal_snr: this base model predicts epsilon; only one that predicts v can")
        root = self.alphas_cumprod.double().sqrt()
        root = (root - root[-1]) * root[0] / (root[0] - root[-1])
        # the solver of the sampling ODE divides by abar: 2^-24 instead of 0, as in diffusers
        return NoiseSchedule(root.square().clamp(min=2**-24).float(), self.prediction_type)


def load_unet(folder: Path, *, dtype: torch.dtype, device: torch.device) -> UNet2DConditionModel:
    """The denoiser, frozen. Raises UserError for one that wants more than text: SDXL's."""
    unet: UNet2DConditionModel = UNet2DConditionModel.from_pretrained(
        _part(folder, "unet"), torch_dtype=dtype, local_files_only=True
    )
    if unet.config["addition_embed_type"] is not None:
        raise UserError(f"model.base: {folder} is of the SDXL family, which is not trained yet; use sd15 or sd21")
    torch.nn.Module.to(unet, device).requires_grad_(False).eval()
    return unet


def load_vae(folder: Path, *, device: torch.device) -> AutoencoderKL:
    """The autoencoder, frozen, fp32: Stable Diffusion's overflows in fp16."""
    vae: AutoencoderKL = AutoencoderKL.from_pretrained(
        _part(folder, "vae"), torch_dtype=torch.float32, local_files_only=True
    )
    torch.nn.Module.to(vae, device).requires_grad_(False).eval()
    return vae


@torch.inference_mode()
def embed_prompts(folder: Path, prompts: list[str], *, device: torch.device) -> Tensor:
    """Text embeddings of prompts, (N, tokens, width) fp32 on the CPU; a prompt that is too long is cut."""
    from transformers import CLIPTextModel, CLIPTokenizer  # seconds to import, and trials never embed
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32, local_files_only=True)
    tokens = tokenizer(
        prompts,
        padding="max_length",
        truncation=True,
        max_length=min(tokenizer.model_max_length, encoder.config.max_position_embeddings),
        return_tensors="pt",
    )
    torch.nn.Module.to(encoder, device)
    hidden: Tensor = encoder(tokens.input_ids.to(device)).last_hidden_state
    return hidden.cpu()


@torch.inference_mode()
def encode_moments(vae: AutoencoderKL, pictures: Tensor) -> Tensor:
    """Mean and log variance of the scaled latents of pictures: uint8 (N, 3, H, W) -> fp32 (N, 8, H/8, W/8), CPU."""
    images = pictures.to(vae.device).float() / 127.5 - 1  # NCHW, uint8 => [-1, 1]
    posterior = vae.encode(images).latent_dist
    factor = torch.tensor(vae.config["scaling_factor"])
    # scaled by s, a normal distribution has the mean s m and the log variance v + 2 log s
    return torch.cat([posterior.mean * factor, posterior.logvar + 2 * factor.log()], dim=1).cpu()


def sample_latents(moments: Tensor, noise: Tensor) -> Tensor:
    """A draw from the moments: (N, 8, h, w), noise (N, 4, h, w) -> (N, 4, h, w)."""
    mean, log_variance = moments.chunk(2, dim=1)
    return mean + (0.5 * log_variance).exp() * noise


def decode(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Scaled latents (N, 4, h, w) -> pictures (N, 3, 8h, 8w), about [-1, 1], with gradient to the latents."""
    images: Tensor = vae.decode(latents.float() / vae.config["scaling_factor"], return_dict=False)[0]
    return images


def to_uint8(images: Tensor) -> Tensor:
    """Pictures in [-1, 1] -> uint8 0..255, rounded and clipped."""
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def _part(folder: Path, name: str) -> Path:
    if not (folder / name / "config.json").is_file():
        raise UserError(f"{folder}: no {name}/config.json; a base model is a folder in diffusers' layout")
    return folder / name


def _read_json(path: Path) -> dict[str, object]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: {error}") from None
    assert isinstance(values, dict)
    return values
