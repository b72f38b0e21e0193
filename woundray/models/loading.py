"""Load one part of a base model from a folder in diffusers' layout; number formats; free GPU memory."""

import gc
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError

from woundray.errors import UserError
from woundray.weights import diffusers_layout

diffusers_logging.disable_progress_bar()  # loading takes a second

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Values of model.precision -> torch dtypes."""


def load_part(model_class: Any, folder: Path, part: str, dtype: torch.dtype) -> Any:
    """Load a part of a base model, such as `unet`, by the `from_pretrained` of its class.

    Raises:
        UserError: the file is missing or damaged, or lacks a tensor of the model.
    """
    weights = diffusers_layout.weights_precision(folder, part) if (folder / part / "config.json").is_file() else None
    if weights is None:
        raise UserError(
            f"{folder}: no {part}/config.json with {part}/{diffusers_layout.WEIGHTS_STEMS[part]}.safetensors; give a "
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
    missing = sorted(info["missing_keys"])
    if missing:  # diffusers and transformers would go on with random numbers
        raise UserError(f"{folder / part}: the weights lack {len(missing)} tensors, such as {missing[0]}")
    return model


def free_memory() -> None:
    """Free the GPU memory of models that are no longer referenced. torch would keep it for its own next tensors.

    Trials share a GPU with the process that started them.
    """
    gc.collect()  # models hold reference cycles
    torch.cuda.empty_cache()  # without a GPU it does nothing
