"""Base model with the exact shape of Stable Diffusion 2.1 and random weights, for benchmarks.

python scripts/random_model.py FOLDER
"""

import argparse
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from woundray.models.tiny_architecture import TinyBase, build_tiny, build_tokenizer, save_tiny


def build_sd21() -> TinyBase:
    """UNet of 865.9 M parameters, VAE of 83.7 M, text encoder of 340.4 M; sizes from the configs on the model hub."""
    tokenizer = build_tokenizer()
    tokenizer.model_max_length = 77
    unet = UNet2DConditionModel(
        sample_size=64,
        block_out_channels=(320, 640, 1280, 1280),
        layers_per_block=2,
        attention_head_dim=(5, 10, 20, 20),
        cross_attention_dim=1024,
        use_linear_projection=True,
    )
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
    )
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=49408,
            hidden_size=1024,
            intermediate_size=4096,
            num_hidden_layers=23,
            num_attention_heads=16,
            max_position_embeddings=77,
            hidden_act="gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    scheduler = build_tiny(0).scheduler
    return TinyBase(vae=vae, unet=unet, text_encoder=text_encoder, tokenizer=tokenizer, scheduler=scheduler)


def write_sd21(folder: Path, *, seed: int = 0) -> Path:
    """Write the model (fp16, 2.6 GB) and, in `folder`/taesd, a tiny decoder; return the model's folder."""
    base = folder / "sd21"
    if not base.exists():
        torch.manual_seed(seed)
        save_tiny(build_sd21(), base, torch.float16)
    if not (folder / "taesd").exists():
        AutoencoderTiny().save_pretrained(folder / "taesd")
    return base


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    print(write_sd21(parser.parse_args().folder))
