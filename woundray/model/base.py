"""The parts of a latent diffusion model (Rombach et al. 2022, arXiv 2112.10752), each loaded when it is needed."""

import gc
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError
from torch import Tensor

from woundray.errors import UserError
from woundray.model import layout

if TYPE_CHECKING:
    from transformers import CLIPTokenizer, PreTrainedModel

diffusers_logging.disable_progress_bar()  # loading takes a second

log = logging.getLogger(__name__)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Denoiser(Protocol):
    """A UNet, bare or wrapped for DDP."""

    def __call__(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        *,
        added_cond_kwargs: dict[str, Tensor] | None,
        return_dict: bool,
    ) -> tuple[Tensor]:
        """Noisy latents (N, C, h, w), timesteps (N,), text (N, tokens, width) -> prediction (N, C, h, w)."""


@dataclass(frozen=True)
class TextEmbeddings:
    """What the text encoders make of N prompts.

    Attributes:
        hidden: (N, tokens, width), for cross-attention.
        pooled: (N, pooled width), one vector a prompt, that SDXL's UNet gets beside its timestep; None elsewhere.
    """

    hidden: Tensor
    pooled: Tensor | None


@dataclass(frozen=True)
class NoiseSchedule:
    """The forward process q(x_t | x_0) = N(sqrt(abar_t) x_0, (1 - abar_t) I) (Ho et al. 2020, eq. 4).

    Attributes:
        alphas_cumprod: abar_t for t = 0..T-1, float32.
        prediction_type: what the UNet was trained to predict: the noise (epsilon), or v = sqrt(abar) eps -
            sqrt(1 - abar) x_0 (Salimans & Ho 2022, arXiv 2202.00512).
    """

    alphas_cumprod: Tensor
    prediction_type: layout.PredictionType

    @classmethod
    def of(cls, folder: Path) -> "NoiseSchedule":
        """The schedule that a model was trained with. Raises UserError for a prediction type that is not known."""
        scheduler = DDPMScheduler.from_config(layout.read_json(folder / "scheduler/scheduler_config.json"))
        return cls(scheduler.alphas_cumprod.float(), layout.prediction_type(folder))

    def with_zero_terminal_snr(self) -> "NoiseSchedule":
        """Shifted and scaled so that the last step is pure noise and the first as it was (arXiv 2305.08891, alg. 1).

        Raises:
            UserError: the model predicts the noise, which says nothing of the picture where there is only noise.
        """
        if self.prediction_type == "epsilon":
            raise UserError(
                "model.zero_terminal_snr: this base model predicts epsilon; leave it false, or use "
                "one that predicts v, such as sd21-v"
            )
        root = self.alphas_cumprod.double().sqrt()
        root = (root - root[-1]) * root[0] / (root[0] - root[-1])
        # the solver of the sampling ODE divides by abar: 2^-24 instead of 0, as in diffusers
        return NoiseSchedule(root.square().clamp(min=2**-24).float(), self.prediction_type)


def load_unet(folder: Path, *, dtype: torch.dtype, device: torch.device) -> UNet2DConditionModel:
    """The denoiser, frozen.

    Raises:
        UserError: one that wants more than text and, as SDXL's, the pooled text and sizes: refiners, inpainting.
    """
    unet: UNet2DConditionModel = _load(UNet2DConditionModel, folder, "unet", dtype)
    kind = unet.config["addition_embed_type"]
    if kind not in (None, "text_time"):
        raise UserError(f"model.base: {folder}/unet wants {kind} conditions; give a model of the SD 1, 2 or XL family")
    if kind == "text_time":
        width = layout.read_json(folder / "text_encoder_2/config.json")["projection_dim"]
        numbers = unet.config["projection_class_embeddings_input_dim"] - width
        if numbers != len(time_ids(0)) * unet.config["addition_time_embed_dim"]:
            raise UserError(
                f"model.base: {folder}/unet is not SDXL's base model, but perhaps its refiner; give the base model"
            )
    if unet.config["in_channels"] != unet.config["out_channels"]:
        raise UserError(
            f"model.base: {folder}/unet wants more than noisy latents, as an inpainting model does; "
            "give a text-to-image model"
        )
    torch.nn.Module.to(unet, device).requires_grad_(False).eval()
    return unet


def load_vae(folder: Path, *, device: torch.device) -> AutoencoderKL:
    """The autoencoder, frozen, fp32: that of Stable Diffusion, and of SDXL, overflows in fp16."""
    vae: AutoencoderKL = _load(AutoencoderKL, folder, "vae", torch.float32)
    if vae.config["latents_mean"] is not None or vae.config["shift_factor"] is not None:
        raise UserError(f"model.base: {folder}/vae shifts its latents; give a model of the SD 1, 2 or XL family")
    torch.nn.Module.to(vae, device).requires_grad_(False).eval()
    return vae


def free_memory() -> None:
    """Gives the GPU memory of models that nobody holds any more to other processes: torch keeps it for the next ones.

    Trials share a GPU with the process that started them.
    """
    gc.collect()  # models are cycles: they hold themselves
    torch.cuda.empty_cache()  # without a GPU it does nothing


@torch.inference_mode()
def embed_prompts(folder: Path, prompts: list[str], *, device: torch.device) -> TextEmbeddings:
    """Text embeddings of prompts, fp32 on the CPU; of one that is too long, a warning names the words that are lost.

    SD 1 and 2: the last hidden states of the text encoder. SDXL (Podell et al. 2023, arXiv 2307.01952, sec. 2.1): the
    last but one of both encoders, side by side, and the projected pooled text of the second. An empty prompt is all
    zeros where the model was trained so (force_zeros_for_empty_prompt), as diffusers takes no negative prompt.
    """
    from transformers import CLIPTextModel, CLIPTextModelWithProjection  # seconds to import; trials never embed

    if not (folder / "text_encoder_2").is_dir():
        encoded = _encode(folder, "text_encoder", "tokenizer", CLIPTextModel, prompts, device)
        return TextEmbeddings(encoded.last_hidden_state.cpu(), None)
    first = _encode(folder, "text_encoder", "tokenizer", CLIPTextModel, prompts, device)
    second = _encode(folder, "text_encoder_2", "tokenizer_2", CLIPTextModelWithProjection, prompts, device)
    hidden = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1).cpu()
    pooled = second.text_embeds.cpu()
    if layout.read_json(folder / "model_index.json").get("force_zeros_for_empty_prompt", True):
        empty = [row for row, prompt in enumerate(prompts) if not prompt]
        hidden[empty], pooled[empty] = 0, 0
    return TextEmbeddings(hidden, pooled)


def time_ids(side_px: int) -> list[int]:
    """Original height and width, top and left of the crop, target height and width (Podell et al. 2023, sec. 2.2)."""
    return [side_px, side_px, 0, 0, side_px, side_px]


def added_conditions(pooled: Tensor | None, side_px: int) -> dict[str, Tensor] | None:
    """What SDXL's UNet is told beside the tokens: pooled text (N, width) and six sizes (N, 6); else None."""
    if pooled is None:
        return None
    sizes = torch.tensor(time_ids(side_px), dtype=torch.float32, device=pooled.device)
    return {"text_embeds": pooled, "time_ids": sizes.expand(len(pooled), -1)}


@torch.inference_mode()
def encode_moments(vae: AutoencoderKL, pictures: Tensor) -> Tensor:
    """Mean and log variance of the scaled latents of pictures: uint8 (N, 3, H, W) -> fp32 (N, 2C, H/8, W/8), CPU."""
    images = pictures.to(vae.device).float() / 127.5 - 1  # NCHW, uint8 => [-1, 1]
    posterior = vae.encode(images).latent_dist
    factor = torch.tensor(vae.config["scaling_factor"])
    # scaled by s, a normal distribution has the mean s m and the log variance v + 2 log s
    return torch.cat([posterior.mean * factor, posterior.logvar + 2 * factor.log()], dim=1).cpu()


def sample_latents(moments: Tensor, noise: Tensor) -> Tensor:
    """A draw from the moments: (N, 2C, h, w), noise (N, C, h, w) -> (N, C, h, w)."""
    mean, log_variance = moments.chunk(2, dim=1)
    return mean + (0.5 * log_variance).exp() * noise


def decode(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Scaled latents (N, C, h, w) -> pictures (N, 3, 8h, 8w), about [-1, 1], with gradient to the latents."""
    images: Tensor = vae.decode(latents.float() / vae.config["scaling_factor"], return_dict=False)[0]
    return images


def to_uint8(images: Tensor) -> Tensor:
    """Pictures in [-1, 1] -> uint8 0..255, rounded and clipped."""
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def _load(model_class: Any, folder: Path, part: str, dtype: torch.dtype) -> Any:
    """A part of a base model. Raises UserError where the file is not there or lacks a tensor of the model."""
    weights = layout.weights_of(folder, part) if (folder / part / "config.json").is_file() else None
    if weights is None:
        raise UserError(
            f"{folder}: no {part}/config.json with {part}/{layout.WEIGHTS[part]}.safetensors; give a "
            "folder in diffusers' layout"
        )
    try:
        model, info = model_class.from_pretrained(
            folder / part,
            dtype=dtype,
            variant="fp16" if weights == "fp16" else None,
            use_safetensors=True,  # never a pickle
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"{folder / part}: damaged or of another model ({error}); run `python -m woundray.fetch` for it again"
        ) from None
    lacking = sorted(info["missing_keys"])
    if lacking:  # both libraries would go on with random numbers
        raise UserError(f"{folder / part}: the weights lack {len(lacking)} tensors, such as {lacking[0]}")
    return model


def _encode(
    folder: Path,
    part: str,
    tokenizer_part: str,
    model_class: "type[PreTrainedModel]",
    prompts: list[str],
    device: torch.device,
) -> Any:
    """All hidden states of one text encoder, and what its class adds."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    encoder = _load(model_class, folder, part, torch.float32)
    tokenizer = _tokenizer(folder, part, tokenizer_part)
    _tell_lost_words(tokenizer, prompts)
    tokens = tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt")
    torch.nn.Module.to(encoder, device).eval()
    return encoder(tokens.input_ids.to(device), output_hidden_states=True)


def tell_lost_words(folder: Path, prompts: Iterable[str]) -> None:
    """Warns, once a prompt, of the words that a base model's text encoders do not read."""
    for part, tokenizer_part in (("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2")):
        if (folder / part).is_dir():
            _tell_lost_words(_tokenizer(folder, part, tokenizer_part), prompts)


def lost_words(tokenizer: "CLIPTokenizer", prompt: str) -> str:
    """The end of a prompt that is cut off, from the first word on that is not read as a whole; empty: none is."""
    most = tokenizer.model_max_length - tokenizer.num_special_tokens_to_add()
    spans = tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    if len(spans) <= most:
        return ""
    start = int(spans[most][0])
    while start and prompt[start - 1 : start + 1].isalnum():
        start -= 1
    return prompt[start:]


def _tokenizer(folder: Path, part: str, tokenizer_part: str) -> "CLIPTokenizer":
    """A base model's tokenizer, at most as many tokens long as its text encoder reads."""
    from transformers import CLIPTokenizer

    tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(folder / tokenizer_part, local_files_only=True)
    most = layout.read_json(folder / part / "config.json")["max_position_embeddings"]
    tokenizer.model_max_length = min(tokenizer.model_max_length, most)
    return tokenizer


def _tell_lost_words(tokenizer: "CLIPTokenizer", prompts: Iterable[str]) -> None:
    for prompt in prompts:
        if lost := lost_words(tokenizer, prompt):
            _warn_once(tokenizer.model_max_length, prompt[:40], lost)


@cache
def _warn_once(most: int, beginning: str, lost: str) -> None:
    log.warning("this base model reads %d tokens of a prompt; of `%s` ... it does not read `%s`", most, beginning, lost)
