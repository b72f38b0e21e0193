"""Extractors whose weights are downloads: used where their file lies, checked by its sha256 first.

`Dinov2` for distances, `Sscd` for copies. Their scores stand beside those of the packaged network, under names of their
own.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from woundray.metrics.extractors import check_images, check_weights, in_batches, text_sha256
from woundray.weights.feature_weights import WEIGHTS

IMAGENET_MEAN, IMAGENET_SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Dinov2:
    """DINOv2's ViT-S/14 (Oquab et al. 2023, arXiv 2304.07193): its class token, 384-d, of pictures at 224 px.

    weights: the file dinov2_vits14_pretrain.pth. Raises UserError where it is missing or another.
    """

    name = "dinov2_vits14"
    dim = 384
    side_px = 224

    def __init__(
        self, weights: Path, device: str | torch.device = "cpu", *, sha256: str = WEIGHTS["dinov2"].sha256
    ) -> None:
        from transformers import Dinov2Config, Dinov2Model  # seconds to import

        check_weights(weights, sha256, fetch="dinov2")
        self.content_hash = text_sha256(f"class token {self.side_px} bicubic {sha256}")
        config = Dinov2Config(
            hidden_size=384, num_hidden_layers=12, num_attention_heads=6, patch_size=14, image_size=518
        )
        net: nn.Module = Dinov2Model(config)
        net.load_state_dict(_renamed(torch.load(weights, map_location="cpu", weights_only=True)))
        self._net = net.requires_grad_(False).eval().to(device)
        self._device = torch.device(device)

    def __call__(self, images: Tensor) -> Tensor:
        """Features (N, 384), float32 on the CPU, of uint8 NCHW RGB pictures; UserError for any other."""
        check_images(images)
        return in_batches(self._features, images, 32, self._device)

    def _features(self, images: Tensor) -> Tensor:
        tokens: Tensor = self._net(_normalised(images, self.side_px)).last_hidden_state
        return tokens[:, 0]


class Sscd:
    """SSCD (Pizzi et al. 2022, arXiv 2202.10261), a ResNet-50 that was trained to find copies: 512-d, at 288 px.

    weights: the file sscd_disc_mixup.torchscript.pt. Raises UserError where it is missing or another.
    """

    name = "sscd"
    dim = 512
    side_px = 288

    def __init__(
        self, weights: Path, device: str | torch.device = "cpu", *, sha256: str = WEIGHTS["sscd"].sha256
    ) -> None:
        check_weights(weights, sha256, fetch="sscd")
        self.content_hash = text_sha256(f"descriptor {self.side_px} bicubic {sha256}")
        self._net = torch.jit.load(weights, map_location=device).eval()  # type: ignore[no-untyped-call]
        self._device = torch.device(device)

    def __call__(self, images: Tensor) -> Tensor:
        """Descriptors (N, 512), float32 on the CPU, of uint8 NCHW RGB pictures; UserError for any other."""
        check_images(images)
        return in_batches(lambda batch: self._net(_normalised(batch, self.side_px)), images, 32, self._device)


def _normalised(images: Tensor, side_px: int) -> Tensor:
    """uint8 NCHW -> a square, antialiased, by ImageNet's mean and standard deviation."""
    x = functional.interpolate(images.float(), (side_px, side_px), mode="bicubic", antialias=True, align_corners=False)
    mean, sd = (torch.tensor(values, device=images.device).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_SD))
    return (x.clamp(0, 255) / 255 - mean) / sd


_NAMES = (
    ("cls_token", "embeddings.cls_token"),
    ("mask_token", "embeddings.mask_token"),
    ("pos_embed", "embeddings.position_embeddings"),
    ("patch_embed.proj.", "embeddings.patch_embeddings.projection."),
    ("norm.", "layernorm."),
    ("blocks.", "encoder.layer."),
    (".ls1.gamma", ".layer_scale1.lambda1"),
    (".ls2.gamma", ".layer_scale2.lambda1"),
    (".attn.proj.", ".attention.o_proj."),
)


def _renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The published file's tensors by the names of transformers, which keeps queries, keys and values apart."""
    found = {}
    for name, tensor in state.items():
        renamed = name
        for old, new in _NAMES:
            if old.startswith(".") or renamed.startswith(old):
                renamed = renamed.replace(old, new, 1)
        if ".attn.qkv." in renamed:
            for part, rows in zip("qkv", tensor.chunk(3), strict=True):
                found[renamed.replace(".attn.qkv.", f".attention.{part}_proj.")] = rows
        else:
            found[renamed] = tensor
    return found
