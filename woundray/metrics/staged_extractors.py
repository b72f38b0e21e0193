"""Extractors with downloaded weights: `Dinov2` for distances, `Sscd` for copies.

They are used where their weights file exists; its sha256 is checked first. Their scores are reported in addition to
those of the packaged network, under other names.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from woundray.metrics.extractors import check_images, check_weights, extract_in_batches, text_sha256
from woundray.weights.feature_weights import WEIGHTS

IMAGENET_MEAN, IMAGENET_SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Dinov2:
    """DINOv2 ViT-S/14 (Oquab et al. 2023, arXiv 2304.07193): class token, 384-d, of images at 224 px.

    weights: the file dinov2_vits14_pretrain.pth. Raises UserError where it is missing or has another sha256.
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
        net.load_state_dict(_to_transformers_names(torch.load(weights, map_location="cpu", weights_only=True)))
        self._net = net.requires_grad_(False).eval().to(device)
        self._device = torch.device(device)

    def __call__(self, images: Tensor) -> Tensor:
        """Return features (N, 384), float32 on the CPU, of uint8 NCHW RGB images; UserError for other formats."""
        check_images(images)
        return extract_in_batches(self._features, images, 32, self._device)

    def _features(self, images: Tensor) -> Tensor:
        tokens: Tensor = self._net(_resize_and_normalise(images, self.side_px)).last_hidden_state
        return tokens[:, 0]


class Sscd:
    """SSCD (Pizzi et al. 2022, arXiv 2202.10261): ResNet-50 trained for copy detection, 512-d, of images at 288 px.

    weights: the file sscd_disc_mixup.torchscript.pt. Raises UserError where it is missing or has another sha256.
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
        """Return descriptors (N, 512), float32 on the CPU, of uint8 NCHW RGB images; UserError for other formats."""
        check_images(images)
        return extract_in_batches(
            lambda batch: self._net(_resize_and_normalise(batch, self.side_px)), images, 32, self._device
        )


def _resize_and_normalise(images: Tensor, side_px: int) -> Tensor:
    """Resize uint8 NCHW images to a square, antialiased, and normalise by ImageNet's mean and standard deviation."""
    x = functional.interpolate(images.float(), (side_px, side_px), mode="bicubic", antialias=True, align_corners=False)
    mean, sd = (torch.tensor(values, device=images.device).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_SD))
    return (x.clamp(0, 255) / 255 - mean) / sd


_NAME_CHANGES = (
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


def _to_transformers_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of the published file to those of transformers, and split queries, keys and values."""
    found = {}
    for name, tensor in state.items():
        renamed = name
        for old, new in _NAME_CHANGES:
            if old.startswith(".") or renamed.startswith(old):
                renamed = renamed.replace(old, new, 1)
        if ".attn.qkv." in renamed:
            for part, rows in zip("qkv", tensor.chunk(3), strict=True):
                found[renamed.replace(".attn.qkv.", f".attention.{part}_proj.")] = rows
        else:
            found[renamed] = tensor
    return found
