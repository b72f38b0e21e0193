"""Text encoders: prompts -> embeddings (CLIP), and a warning of the words of a prompt that are cut off."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from woundray.models.loading import load_part
from woundray.weights import diffusers_layout

if TYPE_CHECKING:
    from transformers import CLIPTokenizer, PreTrainedModel

log = logging.getLogger(__name__)

_TOKENIZERS = {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"}
"""Folder of a text encoder -> folder of its tokenizer."""


@dataclass(frozen=True)
class TextEmbeddings:
    """Embeddings of N prompts.

    Attributes:
        hidden: (N, tokens, width), for cross-attention.
        pooled: (N, pooled width), one vector a prompt, an input of SDXL's UNet beside the timestep; None elsewhere.
    """

    hidden: Tensor
    pooled: Tensor | None


@torch.inference_mode()
def embed_prompts(folder: Path, prompts: list[str], *, device: torch.device) -> TextEmbeddings:
    """Embed prompts, fp32 on the CPU. A warning names the words of a prompt that are cut off.

    SD 1 and 2: the last hidden states of the text encoder. SDXL (Podell et al. 2023, arXiv 2307.01952, sec. 2.1): the
    last but one hidden states of both encoders, concatenated, and the projected pooled text of the second. An empty
    prompt is all zeros where the model was trained so (force_zeros_for_empty_prompt), as diffusers takes a missing
    negative prompt.
    """
    from transformers import CLIPTextModel, CLIPTextModelWithProjection  # seconds to import; trials never embed

    if not (folder / "text_encoder_2").is_dir():
        encoded = _encode(folder, "text_encoder", CLIPTextModel, prompts, device)
        return TextEmbeddings(encoded.last_hidden_state.cpu(), None)
    first = _encode(folder, "text_encoder", CLIPTextModel, prompts, device)
    second = _encode(folder, "text_encoder_2", CLIPTextModelWithProjection, prompts, device)
    hidden = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1).cpu()
    pooled = second.text_embeds.cpu()
    if diffusers_layout.read_json(folder / "model_index.json").get("force_zeros_for_empty_prompt", True):
        empty = [row for row, prompt in enumerate(prompts) if not prompt]
        hidden[empty], pooled[empty] = 0, 0
    return TextEmbeddings(hidden, pooled)


def warn_of_truncation(folder: Path, prompts: Iterable[str]) -> None:
    """Warn, once a prompt, of the words that a base model's text encoders cut off."""
    for part in _TOKENIZERS:
        if (folder / part).is_dir():
            _warn_of_truncation(_load_tokenizer(folder, part), prompts)


def truncated_words(tokenizer: "CLIPTokenizer", prompt: str) -> str:
    """Return the end of a prompt that is cut off, from the first word that is not read as a whole; else ""."""
    max_tokens = tokenizer.model_max_length - tokenizer.num_special_tokens_to_add()
    spans = tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    if len(spans) <= max_tokens:
        return ""
    start = int(spans[max_tokens][0])
    while start and prompt[start - 1 : start + 1].isalnum():
        start -= 1
    return prompt[start:]


def _encode(
    folder: Path, part: str, model_class: "type[PreTrainedModel]", prompts: list[str], device: torch.device
) -> Any:
    """Run one text encoder; return its output with all hidden states."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    encoder = load_part(model_class, folder, part, torch.float32)
    tokenizer = _load_tokenizer(folder, part)
    _warn_of_truncation(tokenizer, prompts)
    tokens = tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt")
    torch.nn.Module.to(encoder, device).eval()
    return encoder(tokens.input_ids.to(device), output_hidden_states=True)


def _load_tokenizer(folder: Path, part: str) -> "CLIPTokenizer":
    """Load the tokenizer of a text encoder, its length limited to the positions of the encoder."""
    from transformers import CLIPTokenizer

    tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(folder / _TOKENIZERS[part], local_files_only=True)
    positions = diffusers_layout.read_json(folder / part / "config.json")["max_position_embeddings"]
    tokenizer.model_max_length = min(tokenizer.model_max_length, positions)
    return tokenizer


def _warn_of_truncation(tokenizer: "CLIPTokenizer", prompts: Iterable[str]) -> None:
    for prompt in prompts:
        if words := truncated_words(tokenizer, prompt):
            _warn_once(tokenizer.model_max_length, prompt[:40], words)


@cache
def _warn_once(max_tokens: int, beginning: str, words: str) -> None:
    log.warning(
        "this base model reads %d tokens of a prompt; of `%s` ... it does not read `%s`", max_tokens, beginning, words
    )
