"""UNet of a latent diffusion model (Rombach et al. 2022, arXiv 2112.10752): loading, call signature, SDXL's inputs."""

from pathlib import Path
from typing import Protocol

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from woundray.errors import UserError
from woundray.models.loading import load_part
from woundray.weights import diffusers_layout


class Denoiser(Protocol):
    """Call signature of a UNet, bare or wrapped for DDP."""

    def __call__(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        *,
        added_cond_kwargs: dict[str, Tensor] | None,
        return_dict: bool,
    ) -> tuple[Tensor]:
        """Noisy latents (N, 4, h, w), timesteps (N,), text (N, tokens, width) -> prediction (N, 4, h, w)."""


def load_unet(folder: Path, *, dtype: torch.dtype, device: torch.device) -> UNet2DConditionModel:
    """Load the UNet, frozen.

    Raises:
        UserError: it needs inputs beyond text and, for SDXL, pooled text and sizes: refiners, inpainting models.
    """
    unet: UNet2DConditionModel = load_part(UNet2DConditionModel, folder, "unet", dtype)
    kind = unet.config["addition_embed_type"]
    if kind not in (None, "text_time"):
        raise UserError(f"model.base: {folder}/unet wants {kind} conditions; give a model of the SD 1, 2 or XL family")
    if kind == "text_time":
        width = diffusers_layout.read_json(folder / "text_encoder_2/config.json")["projection_dim"]
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


def time_ids(side_px: int) -> list[int]:
    """Return SDXL's size conditions of a square image that is not cropped (Podell et al. 2023, sec. 2.2).

    Original height and width, top and left of the crop, target height and width.
    """
    return [side_px, side_px, 0, 0, side_px, side_px]


def added_conditions(pooled: Tensor | None, side_px: int) -> dict[str, Tensor] | None:
    """Return `added_cond_kwargs` of SDXL's UNet: pooled text (N, width) and six sizes (N, 6); without `pooled` None."""
    if pooled is None:
        return None
    sizes = torch.tensor(time_ids(side_px), dtype=torch.float32, device=pooled.device)
    return {"text_embeds": pooled, "time_ids": sizes.expand(len(pooled), -1)}
