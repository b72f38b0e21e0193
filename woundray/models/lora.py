"""LoRA: low-rank adapters of the UNet (Hu et al. 2021, arXiv 2106.09685), by peft, in diffusers' file format."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import peft
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from woundray.config import LoraConfig
from woundray.errors import UserError

_ADAPTER = "default"
_PREFIX = "unet."

PRESETS = {
    "attention": ("to_q", "to_k", "to_v", "to_out.0"),
    "ff": ("ff.net.0.proj", "ff.net.2"),
    "conv": ("conv1", "conv2", "conv_shortcut"),
}
"""Short names of groups of layers, by the endings of their names in diffusers' UNet2DConditionModel."""


def add_adapter(unet: UNet2DConditionModel, config: LoraConfig, *, seed: int) -> dict[str, torch.nn.Parameter]:
    """Add a new adapter to a frozen UNet; at first it changes nothing, since B = 0.

    Returns:
        The trainable parameters by name, fp32: the adapter's and no others.

    Raises:
        UserError: a name in lora.target_modules that no layer's name ends with.
    """
    layers = [name for name, _ in unet.named_modules()]
    targets = [ending for name in config.target_modules for ending in PRESETS.get(name, (name,))]
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in layers):
            known = ", ".join(PRESETS)
            raise UserError(
                f"lora.target_modules: no layer of the UNet is called {target}; give one of "
                f"{known}, or the end of a layer's name"
            )
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]  # peft divides it: fractions are right
        lora_dropout=config.dropout,
        target_modules=targets,
        use_rslora=config.use_rslora,
        use_dora=config.use_dora,
        init_lora_weights="gaussian",
    )
    unet.requires_grad_(False)
    unet.add_adapter(settings, adapter_name=_ADAPTER)
    parameters = {name: p for name, p in unet.named_parameters() if p.requires_grad}
    assert parameters and all("lora_" in name for name in parameters)

    # peft draws A from the global generator: draw it again from a seeded one, N(0, 1 / rank^2), on the CPU
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(parameters.items()):
            parameter.data = parameter.data.float()
            if "lora_A" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / config.rank)
    return parameters


def adapter_tensors(unet: UNet2DConditionModel) -> dict[str, Tensor]:
    """Return the adapter's tensors by peft's names, on the CPU."""
    tensors = get_peft_model_state_dict(unet, adapter_name=_ADAPTER)
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def save_adapter(unet: UNet2DConditionModel, path: Path) -> None:
    """Write a file for `pipeline.load_lora_weights(path)`: tensors and, as metadata, rank, alpha and targets."""
    settings = unet.peft_config[_ADAPTER].to_dict()
    settings["target_modules"] = sorted(settings["target_modules"])
    metadata = {_PREFIX + name: value for name, value in settings.items()}
    save_file(
        {_PREFIX + name: tensor for name, tensor in adapter_tensors(unet).items()},
        path,
        metadata={"format": "pt", "lora_adapter_metadata": json.dumps(metadata, sort_keys=True, default=str)},
    )


def load_adapter(unet: UNet2DConditionModel, path: Path) -> None:
    """Add the adapter of a file to a fresh UNet; the tensors of file and UNet must match exactly.

    Raises:
        UserError: the file is missing, damaged, no adapter, or made for another base model.
    """
    try:
        with safe_open(path, framework="pt") as file:
            settings = json.loads((file.metadata() or {})["lora_adapter_metadata"])
            tensors = {name.removeprefix(_PREFIX): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise UserError(
            f"{path}: not a LoRA file with its rank and alpha ({type(error).__name__}); give one that woundray wrote"
        ) from None
    add_adapter(
        unet,
        LoraConfig(
            rank=settings[_PREFIX + "r"],
            alpha=settings[_PREFIX + "lora_alpha"],
            target_modules=tuple(settings[_PREFIX + "target_modules"]),
            use_rslora=settings[_PREFIX + "use_rslora"],
            use_dora=settings[_PREFIX + "use_dora"],
        ),
        seed=0,
    )
    expected = {name: tensor.shape for name, tensor in adapter_tensors(unet).items()}
    found = {name: tensor.shape for name, tensor in tensors.items()}
    if expected != found:
        wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        raise UserError(
            f"{path}: made for another base model: {len(wrong)} tensors do not fit, such as "
            f"{wrong[0]}; set model.base to the one it was trained on"
        )
    set_peft_model_state_dict(unet, tensors, adapter_name=_ADAPTER)
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in adapter_tensors(unet).items())
    unet.requires_grad_(False).eval()


@contextmanager
def merged(unet: UNet2DConditionModel) -> Iterator[None]:
    """Within the context the adapter is merged into the weights, W + (alpha / rank) B A, which saves its products.

    Afterwards the weights are what they were, to the bit. Weights of half precision are not merged: an adapter's
    update is often below their rounding.
    """
    layers = [layer for layer in unet.modules() if isinstance(layer, LoraLayer)] if unet.dtype == torch.float32 else []
    weights = [cast(Tensor, layer.base_layer.weight) for layer in layers]
    originals = [weight.data for weight in weights]  # kept, not computed back; they may be memory-mapped
    try:
        for layer, weight in zip(layers, weights, strict=True):
            weight.data = weight.data.clone()
            layer.merge()
        yield
    finally:
        for layer, weight, data in zip(layers, weights, originals, strict=True):
            layer.unmerge()
            weight.data = data
