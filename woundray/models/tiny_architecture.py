"""Tiny Stable Diffusion: the classes of diffusers and transformers at a few million parameters.

It has what woundray touches in Stable Diffusion 1.5 and 2.1-base (Rombach et al., "High-Resolution Image
Synthesis with Latent Diffusion Models", CVPR 2022): a VAE of factor 8, a UNet with
cross-attention that predicts epsilon, a CLIP text model, and diffusers' folder layout.
"""

import copy
import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from tokenizers.pre_tokenizers import ByteLevel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from woundray.errors import UserError

M = TypeVar("M", bound=nn.Module)

PICTURE_PX = 128
PROMPT_TOKENS = 32  # longest prompt with its start and end tokens; CLIP's own is 77

# Words that are one token each; every other text is spelled in bytes.
_WORDS = """
a an the of in on at with and no to from by is this under
photo photograph picture image close up view clinical medical macro drawn
diabetic foot ulcer wound skin toe heel sole leg
inflammatory inflammation inflamed proliferative proliferation remodeling remodelling
phase stage healing healed
yellow red pink pale dark black brown white grey purple moist dry shiny swollen new early late
slough necrosis necrotic redness granulation granulating tissue epithelium epithelial scar
edge edges border bed closing closed base texture blurry sharp light
"""
WORDS = tuple(_WORDS.split())

_START, _END, _WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"


@dataclass(frozen=True)
class TinyShape:
    """Widths of a tiny base; the number of levels of the UNet is that of `unet_channels`."""

    unet_channels: tuple[int, ...]
    unet_heads: tuple[int, ...]
    unet_groups: int
    vae_channels: tuple[int, int, int, int]
    vae_groups: int
    latent_channels: int
    text_width: int
    text_layers: int
    text_heads: int


TINY = TinyShape(
    unet_channels=(32, 64, 128),
    unet_heads=(2, 2, 4),
    unet_groups=16,
    vae_channels=(16, 24, 48, 96),
    vae_groups=8,
    latent_channels=4,
    text_width=128,
    text_layers=4,
    text_heads=4,
)
"""The model that woundray ships."""

MICRO = TinyShape(
    unet_channels=(8, 16),
    unet_heads=(1, 2),
    unet_groups=4,
    vae_channels=(4, 4, 8, 8),
    vae_groups=2,
    latent_channels=4,
    text_width=16,
    text_layers=1,
    text_heads=2,
)
"""A smaller one for tests: untrained, built and saved in under a second."""


@dataclass(frozen=True)
class TinyBase:
    """The parts of a Stable Diffusion pipeline."""

    vae: AutoencoderKL
    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    scheduler: DDPMScheduler


def build_tiny(seed: int, shape: TinyShape = TINY) -> TinyBase:
    """Build an untrained base in float32 on the CPU, its weights a function of `seed` and `shape` alone."""
    tokenizer = build_tokenizer()
    with torch.random.fork_rng(devices=[]):  # the classes draw their weights from the global generator
        torch.manual_seed(seed)
        vae, unet, text_encoder = _build_vae(shape), _build_unet(shape), _build_text_encoder(shape, tokenizer)
    nn.ModuleList([vae, unet, text_encoder]).eval()
    return TinyBase(vae, unet, text_encoder, tokenizer, _build_scheduler())


def build_tokenizer() -> CLIPTokenizer:
    """Byte-level BPE as CLIP's (Radford et al., 2021), with all bytes and with WORDS as one token each."""
    merges = _learn_merges(WORDS)
    characters = sorted(ByteLevel.alphabet())
    ends = [character + _WORD_END for character in characters]
    merged = [left + right for left, right in merges]
    tokens = dict.fromkeys([*characters, *ends, *merged, _START, _END])
    return CLIPTokenizer(
        vocab={token: number for number, token in enumerate(tokens)},
        merges=merges,  # type: ignore[arg-type]  # annotated as strings, taken as pairs
        model_max_length=PROMPT_TOKENS,
    )


def _learn_merges(words: Sequence[str]) -> list[tuple[str, str]]:
    """Byte-pair encoding (Sennrich et al., ACL 2016) until each word is whole: merge the most frequent pair.

    The trainer of `tokenizers` breaks ties by hash, differently in each process.
    """
    spelled = [(*word[:-1], word[-1] + _WORD_END) for word in words]
    merges = []
    while counts := Counter(pair for symbols in spelled for pair in pairwise(symbols)):
        best = max(counts, key=lambda pair: (counts[pair], pair))
        merges.append(best)
        spelled = [_merge(symbols, best) for symbols in spelled]
    return merges


def _merge(symbols: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    merged: list[str] = []
    for symbol in symbols:
        if merged and (merged[-1], symbol) == pair:
            merged[-1] += symbol
        else:
            merged.append(symbol)
    return tuple(merged)


def save_tiny(base: TinyBase, folder: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write `base` as safetensors of `dtype`, for `StableDiffusionPipeline.from_pretrained` to read.

    Raises:
        UserError: `folder` exists.
    """
    if folder.exists():
        raise UserError(f"{folder}: exists already; remove it or name another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    pipeline = StableDiffusionPipeline(
        vae=_cast(base.vae, dtype),
        unet=_cast(base.unet, dtype),
        text_encoder=_cast(base.text_encoder, dtype),
        tokenizer=base.tokenizer,
        scheduler=base.scheduler,  # type: ignore[arg-type]  # annotated as the schedulers for sampling only
        safety_checker=None,  # type: ignore[arg-type]
        feature_extractor=None,  # type: ignore[arg-type]
        requires_safety_checker=False,
    )
    with tempfile.TemporaryDirectory(dir=folder.parent) as beside:
        pipeline.save_pretrained(Path(beside) / folder.name)
        _name_load_dtype(Path(beside) / folder.name / "text_encoder" / "config.json")
        (Path(beside) / folder.name).rename(folder)


def _cast(module: M, dtype: torch.dtype) -> M:
    clone = copy.deepcopy(module)
    nn.Module.to(clone, dtype)
    return clone


def _name_load_dtype(config_path: Path) -> None:
    """Set float32 as the dtype that a text encoder is loaded in, as diffusers loads the other parts."""
    config = json.loads(config_path.read_text())
    config_path.write_text(json.dumps({**config, "dtype": "float32"}, indent=2) + "\n")


def _build_vae(shape: TinyShape) -> AutoencoderKL:
    levels = len(shape.vae_channels)
    vae: AutoencoderKL = AutoencoderKL(
        block_out_channels=shape.vae_channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=1,
        latent_channels=shape.latent_channels,
        norm_num_groups=shape.vae_groups,
        sample_size=PICTURE_PX,
    )
    return vae


def _build_unet(shape: TinyShape) -> UNet2DConditionModel:
    levels = len(shape.unet_channels)
    unet: UNet2DConditionModel = UNet2DConditionModel(
        sample_size=PICTURE_PX // 8,
        in_channels=shape.latent_channels,
        out_channels=shape.latent_channels,
        block_out_channels=shape.unet_channels,
        down_block_types=("CrossAttnDownBlock2D",) * levels,
        up_block_types=("CrossAttnUpBlock2D",) * levels,
        layers_per_block=1,
        attention_head_dim=shape.unet_heads,  # diffusers' misnomer: the number of heads of each level
        cross_attention_dim=shape.text_width,
        norm_num_groups=shape.unet_groups,
        use_linear_projection=True,
    )
    return unet


def _build_text_encoder(shape: TinyShape, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.text_width,
        intermediate_size=4 * shape.text_width,
        projection_dim=shape.text_width,
        num_hidden_layers=shape.text_layers,
        num_attention_heads=shape.text_heads,
        max_position_embeddings=PROMPT_TOKENS,
        hidden_act="gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def _build_scheduler() -> DDPMScheduler:
    """Build the noise schedule of Stable Diffusion 1.5 and 2.1-base."""
    scheduler: DDPMScheduler = DDPMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="epsilon",
        clip_sample=False,
        steps_offset=1,
    )
    return scheduler
