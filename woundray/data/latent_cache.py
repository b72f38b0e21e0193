"""Latent cache: VAE latents of images and embeddings of prompts, computed once and shared by all trials.

It is a memory-mapped safetensors file: all trials and ranks on a machine share its pages.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from woundray.errors import UserError
from woundray.system.atomic_files import atomic_path


@dataclass(frozen=True)
class LatentCache:
    """Encoded images and prompts.

    Attributes:
        train: VAE moments (N, K, 8, h, w) of K augmented views of each training image.
        validation: moments (M, 8, h, w) of the plain view of each held-out image.
        positive, negative: text embeddings (tokens, width).
        positive_pooled, negative_pooled: pooled text embeddings (pooled width), for SDXL only.
        prior: moments (P, 8, h, w) of the base model's own images, if training uses prior preservation.
        prior_text, prior_pooled: embeddings of the prompt of these images.
    """

    train: Tensor
    validation: Tensor
    positive: Tensor
    negative: Tensor
    positive_pooled: Tensor | None = None
    negative_pooled: Tensor | None = None
    prior: Tensor | None = None
    prior_text: Tensor | None = None
    prior_pooled: Tensor | None = None


def write_latent_cache(latent_cache: LatentCache, path: Path) -> None:
    """Write the cache atomically."""
    with atomic_path(path) as temporary:
        save_file(
            {name: tensor.contiguous() for name, tensor in vars(latent_cache).items() if tensor is not None}, temporary
        )


def read_latent_cache(path: Path) -> LatentCache:
    """Read a cache, memory-mapped. Raises UserError if the file is missing or damaged."""
    try:
        return LatentCache(**load_file(path))
    except (OSError, SafetensorError, TypeError) as error:
        raise UserError(
            f"{path}: no latent cache ({type(error).__name__}); delete its folder to make it again"
        ) from None


def latent_cache_key(parts: Mapping[str, object]) -> str:
    """Return the hash of everything that a cache depends on: images, base model, resolution, augmentation, prompts."""
    text = "\n".join(f"{name}={parts[name]!r}" for name in sorted(parts))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
