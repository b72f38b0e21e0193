"""The base model and the adapter that is trained on it."""

from typing import Annotated, Literal

from pydantic import Field

from woundray.config.base import Section


class ModelConfig(Section):
    """The pretrained text-to-image model, which stays as it is."""

    base: str = "tiny"
    """Short name (tiny, sd15, sd21, sd21-v, sdxl) or a folder in diffusers' layout."""
    resolution: Annotated[int, Field(ge=32, le=2048, multiple_of=8)] = 128
    """Side of the square pictures that are trained on and drawn, px."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Number format of the frozen base; adapters and optimizer are fp32 always."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about 1.4 times the time."""


class LoraConfig(Section):
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685): W + alpha / rank * B A."""

    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    """Rank of the update of each weight matrix."""
    alpha: Annotated[float, Field(gt=0)] = 16.0
    """Scale of the update; the effective factor is alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the adapter's inputs that is zeroed in training."""
    target_modules: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")
    """Endings of the names of the UNet's layers that get an adapter; one that matches nothing is refused."""
