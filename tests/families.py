"""Base models of each family at tiny widths: the classes, config fields, file names and keys of the real ones; and a
run of a few seconds on one of them.

Sources are the configs of stable-diffusion-v1-5, stable-diffusion-2-1-base, stable-diffusion-2-1 and
stable-diffusion-xl-base-1.0 as diffusers publishes them; only widths and numbers of layers are smaller.
"""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from woundray.config import Config
from woundray.config.layers import load
from woundray.models.tiny_architecture import build_tokenizer

SIDE_PX, STEPS, NEGATIVE = 64, 3, "blurry, dark"

FAMILIES = ("sd15", "sd21", "sd21-v", "sdxl")

_START, _END = "<|startoftext|>", "<|endoftext|>"
_FOUR_LEVELS = {
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
}
_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
_PNDM = {"_class_name": "PNDMScheduler", **_BETAS, "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1}

UNETS: dict[str, dict[str, Any]] = {
    "sd15": _FOUR_LEVELS
    | {"block_out_channels": (8, 16, 16, 16), "attention_head_dim": 8, "cross_attention_dim": 16, "sample_size": 8},
    "sd21": _FOUR_LEVELS
    | {
        "block_out_channels": (8, 16, 32, 32),
        "attention_head_dim": (1, 2, 4, 4),
        "cross_attention_dim": 16,
        "use_linear_projection": True,
        "sample_size": 8,
    },
    "sdxl": {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (8, 16, 32),
        "attention_head_dim": (1, 2, 4),
        "transformer_layers_per_block": (1, 2, 3),
        "cross_attention_dim": 16 + 24,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 24 + 6 * 8,
        "sample_size": 8,
    },
}
UNETS["sd21-v"] = UNETS["sd21"] | {"upcast_attention": True}

SCHEDULERS: dict[str, dict[str, Any]] = {
    "sd15": _PNDM,  # says nothing of the prediction type
    "sd21": _PNDM | {"prediction_type": "epsilon"},
    "sd21-v": {"_class_name": "DDIMScheduler", **_BETAS, "clip_sample": False, "set_alpha_to_one": False}
    | {"steps_offset": 1, "prediction_type": "v_prediction"},
    "sdxl": {"_class_name": "EulerDiscreteScheduler", **_BETAS, "prediction_type": "epsilon", "steps_offset": 1}
    | {"interpolation_type": "linear", "timestep_spacing": "leading", "use_karras_sigmas": False},
}

# part -> class, width, layers, activation, and the token that fills up a prompt
ENCODERS: dict[str, dict[str, tuple[type[CLIPTextModel | CLIPTextModelWithProjection], int, int, str, str]]] = {
    "sd15": {"text_encoder": (CLIPTextModel, 16, 2, "quick_gelu", _END)},
    "sd21": {"text_encoder": (CLIPTextModel, 16, 3, "gelu", "!")},
    "sd21-v": {"text_encoder": (CLIPTextModel, 16, 3, "gelu", "!")},
    "sdxl": {
        "text_encoder": (CLIPTextModel, 16, 2, "quick_gelu", _END),
        "text_encoder_2": (CLIPTextModelWithProjection, 24, 3, "gelu", "!"),
    },
}


def build_family(name: str, folder: Path) -> None:
    """Writes a base model with random weights in diffusers' layout, as it lies on the hub, for pictures of 64 px."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        UNet2DConditionModel(norm_num_groups=4, layers_per_block=2, **UNETS[name]).save_pretrained(folder / "unet")
        _build_vae(name).save_pretrained(folder / "vae")
        for part, (model_class, width, layers, activation, padding) in ENCODERS[name].items():
            tokenizer = build_tokenizer()
            _save_encoder(_build_encoder(model_class, width, layers, activation, len(tokenizer)), folder / part)
            _save_tokenizer(tokenizer, padding, folder / part.replace("text_encoder", "tokenizer"))
    _write(SCHEDULERS[name], folder / "scheduler/scheduler_config.json")
    _write(_index(name), folder / "model_index.json")


def family_config(base: Path) -> Config:
    """Two epochs of two updates on drawn wounds; pictures in three steps, guided."""
    flags = {
        "model.base": str(base),
        "model.resolution": SIDE_PX,
        "data.phantom_patients": 8,
        "data.views_per_photo": 1,
        "lora.rank": 2,
        "training.epochs": 2,
        "training.steps_per_epoch": 2,
        "training.batch_size": 2,
        "training.learning_rate": 0.01,
        "training.warmup_steps": 0,
        "training.perceptual_max_timestep": 1000,
        "validation.pictures": 4,
        "validation.sampling_steps": STEPS,
        "validation.guidance_scale": 2.0,
        "validation.loss_draws": 1,
        "validation.grid": 4,
        "metrics.baseline_repeats": 2,
        "prompts.negative": NEGATIVE,
    }
    return load("I", profile="demo", flags=flags)


def pipeline_of(family: str, folder: Path) -> Any:
    """Diffusers' own pipeline, with the solver that woundray samples with."""
    kind = StableDiffusionXLPipeline if family == "sdxl" else StableDiffusionPipeline
    without = {} if family == "sdxl" else {"safety_checker": None, "feature_extractor": None}
    pipeline = kind.from_pretrained(folder, local_files_only=True, **without)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config, use_karras_sigmas=True)
    return pipeline


def _index(name: str) -> dict[str, Any]:
    parts: dict[str, Any] = {
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", SCHEDULERS[name]["_class_name"]],
    }
    for part, (model_class, *_) in ENCODERS[name].items():
        parts[part] = ["transformers", model_class.__name__]
        parts[part.replace("text_encoder", "tokenizer")] = ["transformers", "CLIPTokenizer"]
    if name == "sdxl":
        return {"_class_name": "StableDiffusionXLPipeline", "force_zeros_for_empty_prompt": True, **parts}
    checker = {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]} if name == "sd15" else {}
    return {"_class_name": "StableDiffusionPipeline", **parts, **checker}


def _build_vae(name: str) -> AutoencoderKL:
    extra: dict[str, Any] = {"scaling_factor": 0.13025, "force_upcast": True} if name == "sdxl" else {}
    vae: AutoencoderKL = AutoencoderKL(
        block_out_channels=(4, 4, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=2,
        sample_size=64,
        **extra,
    )
    return vae


def _build_encoder(
    model_class: type[CLIPTextModel | CLIPTextModelWithProjection], width: int, layers: int, activation: str, words: int
) -> CLIPTextModel | CLIPTextModelWithProjection:
    config = CLIPTextConfig(
        vocab_size=words,
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=77,
        hidden_act=activation,
        bos_token_id=0,  # as in all of these configs; transformers then takes the place of the highest id for the end
        eos_token_id=2,
        pad_token_id=1,
    )
    encoder = model_class(config).eval()
    for parameter in encoder.parameters():  # CLIP's initial weights hardly tell prompts apart
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=0.2)
    return encoder


def _save_encoder(encoder: CLIPTextModel | CLIPTextModelWithProjection, folder: Path) -> None:
    """With the keys of the real files, which older versions of transformers wrote."""
    encoder.save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    old = {key if key.startswith("text_") else f"text_model.{key}": tensor for key, tensor in tensors.items()}
    old["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(old, folder / "model.safetensors", metadata={"format": "pt"})


def _save_tokenizer(tokenizer: CLIPTokenizer, padding: str, folder: Path) -> None:
    """vocab.json and merges.txt, as the real ones have."""
    tokens = {"bos_token": _START, "eos_token": _END, "unk_token": _END, "pad_token": padding}
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True, "errors": "replace"}
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    _write(model["vocab"], folder / "vocab.json")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"]), ""]
    (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    _write(tokens, folder / "special_tokens_map.json")
    _write(config | tokens, folder / "tokenizer_config.json")


def _write(values: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=2), encoding="utf-8")
