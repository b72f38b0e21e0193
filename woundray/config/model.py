"""Settings of the base model and of the LoRA adapter."""

from typing import Annotated, Literal

from pydantic import Field

from woundray.config.section import Section


class ModelConfig(Section):
    """Pretrained text-to-image model; its weights are frozen unless training.method is full."""

    base: str = "tiny"
    """Short name (tiny, sd15, sd21, sd21-v, sdxl) or a folder in diffusers' layout."""
    resolution: Annotated[int, Field(ge=32, le=2048, multiple_of=8)] = 128
    """Side of the square training and generated pictures, px."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Number format of the frozen base; adapters and optimizer are always fp32. In fp16 the loss is scaled, and an
    update whose gradient overflows is skipped (Micikevicius et al. 2018, arXiv 1710.03740)."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about 1.4 times the time."""
    attention: Literal["sdpa", "xformers"] = "sdpa"
    """Attention kernels: PyTorch's scaled_dot_product_attention, or the package xformers."""
    channels_last: bool = False
    """NHWC memory format of the UNet's convolutions: faster on GPUs with bf16 or fp16."""
    compile: bool = False
    """torch.compile the UNet's transformer blocks: a minute at the start, then faster steps on GPUs."""
    cuda_graphs: bool = True
    """On one GPU, capture the kernels of a training step once and replay them: small batches are several times faster.
    No effect with gradient checkpointing, several workers, or training.method full in bf16 or fp16."""
    zero_terminal_snr: bool = False
    """Rescale the noise schedule so that its last step is pure noise (Lin et al. 2024, arXiv 2305.08891, alg. 1);
    for base models with v-prediction."""


class LoraConfig(Section):
    """Low-rank adapter (LoRA, Hu et al. 2021, arXiv 2106.09685): W + alpha / rank * B A."""

    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    """Rank of the update of each weight matrix."""
    alpha: Annotated[float, Field(gt=0)] = 16.0
    """Scale of the update; the effective factor is alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout probability of the adapter's inputs in training."""
    target_modules: tuple[Annotated[str, Field(min_length=1)], ...] = ("attention",)
    """Layers of the UNet with an adapter: attention, ff (feed-forward), conv (convolutions of the residual
    blocks), or endings of layer names, such as to_q; an ending that matches no layer is refused."""
    use_rslora: bool = False
    """Scale by alpha / sqrt(rank) (Kalajdzievski 2023, arXiv 2312.03732): high ranks learn as fast as low ones."""
    use_dora: bool = False
    """Learn magnitude and direction of weight columns separately (DoRA, Liu et al. 2024, arXiv 2402.09353)."""
