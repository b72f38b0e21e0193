"""The base model and the adapter that is trained on it."""

from typing import Annotated, Literal

from pydantic import Field

from woundray.config.section import Section


class ModelConfig(Section):
    """The pretrained text-to-image model, which stays as it is."""

    base: str = "tiny"
    """Short name (tiny, sd15, sd21, sd21-v, sdxl) or a folder in diffusers' layout."""
    resolution: Annotated[int, Field(ge=32, le=2048, multiple_of=8)] = 128
    """Side of the square pictures that are trained on and drawn, px."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Number format of the frozen base; adapters and optimizer are fp32 always. In fp16 the loss is scaled, and an
    update whose gradient overflows is left out (Micikevicius et al. 2018, arXiv 1710.03740)."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about 1.4 times the time."""
    attention: Literal["sdpa", "xformers"] = "sdpa"
    """Attention kernels: PyTorch's scaled_dot_product_attention, or those of the package xformers."""
    channels_last: bool = False
    """Keep the UNet's convolutions in NHWC order: faster on GPUs with bf16 or fp16."""
    compile: bool = False
    """torch.compile of the UNet's transformer blocks: a minute at the start, then faster steps on GPUs."""
    cuda_graphs: bool = True
    """On one GPU, record the kernels of a training step once and replay them: small batches are several times faster.
    Has no effect with gradient checkpointing, several workers, or training.method full in bf16 or fp16."""
    zero_terminal_snr: bool = False
    """Rescale the noise schedule so that its last step is pure noise (Lin et al. 2024, arXiv 2305.08891, alg. 1);
    for bases that predict v."""


class LoraConfig(Section):
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685): W + alpha / rank * B A."""

    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    """Rank of the update of each weight matrix."""
    alpha: Annotated[float, Field(gt=0)] = 16.0
    """Scale of the update; the effective factor is alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the adapter's inputs that is zeroed in training."""
    target_modules: tuple[Annotated[str, Field(min_length=1)], ...] = ("attention",)
    """Layers of the UNet that get an adapter: attention, ff (feed-forward), conv (convolutions of the residual
    blocks), or endings of layers' names, such as to_q; one that matches nothing is refused."""
    use_rslora: bool = False
    """Scale by alpha / sqrt(rank) (Kalajdzievski 2023, arXiv 2312.03732): high ranks learn as fast as low ones."""
    use_dora: bool = False
    """Learn the magnitude of each weight's columns apart from their direction (Liu et al. 2024, arXiv 2402.09353)."""
