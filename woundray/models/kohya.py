"""Kohya's LoRA format, for WebUI and ComfyUI: the names, metadata and values that sd-scripts writes.

Every adapted layer has `NAME.lora_down.weight`, `NAME.lora_up.weight` and `NAME.alpha`; readers add
alpha / rank * up @ down to its weight. DoRA (Liu et al. 2024, arXiv 2402.09353) adds `NAME.dora_scale`, the norms of
the summed weight's rows, (out, 1) or (out, 1, 1, 1), as LyCORIS defines it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import save
from torch import Tensor

_OUTSIDE_BLOCKS = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_IN_RESNET = {
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


@dataclass(frozen=True)
class Layer:
    """The update of one layer: W + scale * up @ down; with DoRA, its rows are then scaled to the norms `magnitude`.

    Attributes:
        down: (rank, in) or (rank, in, k, k), fp32.
        up: (out, rank) or (out, rank, 1, 1), fp32.
        scale: alpha / rank, or alpha / sqrt(rank) with rsLoRA (Kalajdzievski 2023, arXiv 2312.03732).
        magnitude: (out,), or None without DoRA.
    """

    down: Tensor
    up: Tensor
    scale: float
    magnitude: Tensor | None

    @property
    def alpha(self) -> float:
        """alpha, which readers divide by the rank."""
        return self.scale * len(self.down)


def adapter_layers(unet: UNet2DConditionModel, adapter: str = "default") -> dict[str, Layer]:
    """Return the adapted layers of a UNet by name, as peft applies them."""
    layers = {}
    for name, module in unet.named_modules():
        if isinstance(module, LoraLayer) and adapter in module.scaling:
            has_magnitude = adapter in module.lora_magnitude_vector
            layers[name] = Layer(
                down=_weight(module.lora_A, adapter),
                up=_weight(module.lora_B, adapter),
                scale=float(module.scaling[adapter]),
                magnitude=_weight(module.lora_magnitude_vector, adapter).flatten() if has_magnitude else None,
            )
    return layers


def _weight(modules: torch.nn.ModuleDict, adapter: str) -> Tensor:
    weight = modules[adapter].weight
    assert isinstance(weight, Tensor)
    return weight.detach().clone()


def is_sdxl(config: Mapping[str, Any]) -> bool:
    """Whether the configuration of a UNet is of the SDXL family, with sizes and crops as inputs beside the text."""
    return bool(config["addition_embed_type"] == "text_time")


def kohya_name(layer: str, config: Mapping[str, Any]) -> str:
    """Return kohya's name of a UNet's layer: diffusers' in Stable Diffusion 1 and 2, the original UNet's in SDXL."""
    return "lora_unet_" + (_original_name(layer, config) if is_sdxl(config) else layer).replace(".", "_")


def _original_name(layer: str, config: Mapping[str, Any]) -> str:
    """Return `input_blocks.4.1.proj_in` for `down_blocks.1.attentions.0.proj_in`: blocks are numbered consecutively."""
    if layer in _OUTSIDE_BLOCKS:
        return _OUTSIDE_BLOCKS[layer]
    side, *parts = layer.split(".")
    if side == "mid_block":
        kind, index, *rest = parts
        prefix = f"middle_block.{1 if kind == 'attentions' else 2 * int(index)}"
    else:
        block, kind, index, *rest = parts
        per_block = config["layers_per_block"] + 1
        blocks = "input_blocks" if side == "down_blocks" else "output_blocks"
        first = int(block) * per_block + (side == "down_blocks")  # input block 0 is conv_in
        if kind == "downsamplers":
            prefix, rest = f"{blocks}.{first + per_block - 1}.0", ["op"]
        elif kind == "upsamplers":
            after = 2 if config["up_block_types"][int(block)].startswith("CrossAttn") else 1
            prefix = f"{blocks}.{first + per_block - 1}.{after}"
        else:
            prefix = f"{blocks}.{first + int(index)}.{1 if kind == 'attentions' else 0}"
    if kind == "resnets":
        rest = [_IN_RESNET[rest[0]]]
    return ".".join([prefix, *rest])


def kohya_tensors(layers: Mapping[str, Layer], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of the file, fp32.

    With rsLoRA alpha becomes alpha * sqrt(rank), since readers divide by the rank.
    """
    tensors = {}
    for layer, update in layers.items():
        name = kohya_name(layer, config)
        tensors[f"{name}.lora_down.weight"] = update.down.contiguous()
        tensors[f"{name}.lora_up.weight"] = update.up.contiguous()
        tensors[f"{name}.alpha"] = torch.tensor(update.alpha)
        if update.magnitude is not None:
            tensors[f"{name}.dora_scale"] = update.magnitude.reshape(-1, *[1] * (update.down.ndim - 1))
    return tensors


def merge_kohya(unet: UNet2DConditionModel, tensors: Mapping[str, Tensor]) -> None:
    """Add an adapter in kohya's format to the weights of a bare UNet, in fp32, by the format's definition.

    Raises:
        KeyError: a tensor belongs to no layer, or a layer lacks one.
    """
    unused = dict(tensors)
    for layer, module in unet.named_modules():
        if not isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
            continue
        name = kohya_name(layer, unet.config)
        if f"{name}.lora_down.weight" not in unused:
            continue
        down, up = unused.pop(f"{name}.lora_down.weight"), unused.pop(f"{name}.lora_up.weight")
        update = (up.flatten(1) @ down.flatten(1)).reshape(module.weight.shape)
        weight = module.weight.data + unused.pop(f"{name}.alpha") / len(down) * update
        if f"{name}.dora_scale" in unused:
            norm = weight.flatten(1).norm(dim=1).reshape(-1, *[1] * (weight.ndim - 1))
            weight = unused.pop(f"{name}.dora_scale") / norm * weight
        module.weight.data = weight
    if unused:
        raise KeyError(min(unused))


@dataclass(frozen=True)
class KohyaMetadata:
    """Metadata of a file that its tensors do not show.

    Attributes:
        title: name of the file without its ending.
        date: when the adapter was trained.
        prediction_type: epsilon or v_prediction.
        training: further metadata of sd-scripts, such as ss_learning_rate.
    """

    title: str
    date: datetime
    prediction_type: str
    training: Mapping[str, str]


def kohya_file(layers: Mapping[str, Layer], config: Mapping[str, Any], about: KohyaMetadata) -> bytes:
    """Build a whole .safetensors file with the metadata of sd-scripts and of modelspec 1.0.1.

    Args:
        config: of the UNet.
    """
    tensors = kohya_tensors(layers, config)
    bare = save(tensors)
    digest = hashlib.sha256(bare[8 + int.from_bytes(bare[:8], "little") :]).hexdigest()  # of the tensors alone
    version, architecture = base_version(config, about.prediction_type)
    ranks = {len(layer.down) for layer in layers.values()}
    alphas = {layer.alpha for layer in layers.values()}
    dora = any(layer.magnitude is not None for layer in layers.values())
    metadata = {
        "ss_network_module": "lycoris.kohya" if dora else "networks.lora",  # networks.lora has no DoRA
        "ss_network_dim": str(ranks.pop()) if len(ranks) == 1 else "Dynamic",
        "ss_network_alpha": str(alphas.pop()) if len(alphas) == 1 else "Dynamic",
        "ss_network_args": json.dumps({"algo": "lora", "dora_wd": "True", "wd_on_output": "True"} if dora else {}),
        "ss_base_model_version": version,
        "ss_v2": str("v2" in version),
        "ss_output_name": about.title,
        "sshs_model_hash": digest,
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{architecture}/lora",
        "modelspec.implementation": (
            "https://github.com/Stability-AI/generative-models" if is_sdxl(config) else "diffusers"
        ),
        "modelspec.title": about.title,
        "modelspec.date": about.date.isoformat(timespec="seconds"),
        "modelspec.prediction_type": "v" if about.prediction_type == "v_prediction" else "epsilon",
        "modelspec.hash_sha256": f"0x{digest}",
    }
    return save(tensors, metadata={**about.training, **metadata})


def base_version(config: Mapping[str, Any], prediction_type: str) -> tuple[str, str]:
    """Return version and architecture of a base model in sd-scripts' spelling: sd_v2_v, stable-diffusion-v2-768-v."""
    if is_sdxl(config):
        return "sdxl_base_v1-0", "stable-diffusion-xl-v1-base"
    v = "_v" if prediction_type == "v_prediction" else ""
    if config["cross_attention_dim"] == 1024:  # OpenCLIP's text width
        return f"sd_v2{v}", "stable-diffusion-v2-768-v" if v else "stable-diffusion-v2-512"
    return f"sd_v1{v}", "stable-diffusion-v1"
