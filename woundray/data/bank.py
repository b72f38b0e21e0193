"""The latent bank: what the frozen encoders make of pictures and prompts, computed once and read by all trials.

A memory-mapped safetensors file: every trial and rank of a machine shares the same pages.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from woundray.atomic import atomic_path
from woundray.errors import UserError


@dataclass(frozen=True)
class Bank:
    """Encoded pictures and prompts.

    Attributes:
        train: moments (N, K, 2C, h, w) of K augmented views of each training picture.
        validation: moments (M, 2C, h, w) of the plain view of each held-out picture.
        positive, negative: text embeddings (tokens, width).
        positive_pooled, negative_pooled: pooled ones (pooled width), of the SDXL family only.
        prior: moments (P, 2C, h, w) of the base model's own pictures, where the loss preserves its prior.
        prior_text, prior_pooled: embeddings of the prompt that these were drawn from, as positive's.
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


def write_bank(bank: Bank, path: Path) -> None:
    """Writes the bank beside and renames it into place."""
    with atomic_path(path) as beside:
        save_file({name: tensor.contiguous() for name, tensor in vars(bank).items() if tensor is not None}, beside)


def read_bank(path: Path) -> Bank:
    """The bank of a file, memory-mapped. Raises UserError for a file that is missing or damaged."""
    try:
        return Bank(**load_file(path))
    except (OSError, SafetensorError, TypeError) as error:
        raise UserError(
            f"{path}: no latent bank ({type(error).__name__}); delete its folder to make it again"
        ) from None


def bank_key(parts: Mapping[str, object]) -> str:
    """Hash of everything that a bank depends on: pictures, base model, resolution, augmentation, prompts."""
    text = "\n".join(f"{name}={parts[name]!r}" for name in sorted(parts))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
