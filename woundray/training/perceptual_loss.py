"""Networks of the perceptual loss: a differentiable decoder and a frozen feature network."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from torch import Tensor, nn
from torchvision.models import vgg16

from woundray.config import Config, TrainingConfig
from woundray.errors import UserError
from woundray.metrics.extractors import Lite0Trunk, check_weights
from woundray.models.vae import decode
from woundray.weights.feature_weights import WEIGHTS, staging_path
from woundray.weights.repositories import weights_home
from woundray.weights.staging import weights_file

_TINY_DECODERS = {0.18215: "taesd", 0.13025: "taesdxl"}
"""Names of the small autoencoders that share a VAE's latents, by that VAE's scaling factor."""
_VGG16 = "vgg16"  # name of its weights


@dataclass(frozen=True)
class PerceptualNetworks:
    """Decoder and feature network that x0 estimates are compared by.

    Attributes:
        decode: scaled latents (N, C, h, w) -> images (N, 3, 8h, 8w), about [-1, 1], with gradient.
        trunk: images -> feature maps, frozen, fp32.
    """

    decode: Callable[[Tensor], Tensor]
    trunk: nn.Module


class Vgg16Trunk(nn.Module):
    """Feature maps of VGG16 after relu1_2, 2_2, 3_3, 4_3, 5_3, as in LPIPS (Zhang et al. 2018), with gradient.

    Frozen, float32 also under autocast; images (N, 3, H, W) in [-1, 1], 32 px a side or more.
    """

    ENDS = (3, 8, 15, 22, 29)
    _mean: Tensor
    _sd: Tensor

    def __init__(self, state: dict[str, Tensor] | None) -> None:
        super().__init__()
        network = vgg16(weights=None)
        if state is not None:
            network.load_state_dict(state)
        self.layers = network.features[: self.ENDS[-1] + 1]
        for layer in self.layers:
            if isinstance(layer, nn.ReLU):
                layer.inplace = False
        self.register_buffer("_mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("_sd", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return feature maps (NCHW, float32), one for each of ENDS."""
        maps = []
        with torch.autocast(images.device.type, enabled=False):
            x = ((images.float() + 1) / 2 - self._mean) / self._sd
            for number, layer in enumerate(self.layers):
                x = layer(x)
                if number in self.ENDS:
                    maps.append(x)
        return tuple(maps)


def resolve_perceptual(config: Config, base: Path) -> Config:
    """Replace `auto` by the decoder and network that this machine has: a study keeps them.

    Args:
        base: folder of the base model.
    """
    facts = json.loads((base / "vae/config.json").read_text(encoding="utf-8"))
    tiny = _tiny_decoder(float(facts.get("scaling_factor", 0.18215)))
    resolved = {
        "training.perceptual_decoder": "vae" if tiny is None else "tiny",
        "training.perceptual_network": "vgg16" if weights_file(_VGG16) else "lite0",
    }
    given = config.flat()
    return config.with_values({name: value for name, value in resolved.items() if given[name] == "auto"})


def make_perceptual_networks(config: TrainingConfig, vae: AutoencoderKL) -> PerceptualNetworks | None:
    """Load decoder and network of the perceptual term; return None where its weight is 0.

    Raises:
        UserError: the configured decoder or network is not staged, or its file is not the published one.
    """
    if config.perceptual_weight == 0:
        return None
    return PerceptualNetworks(_decoder(config, vae), _trunk(config).to(vae.device))


def _decoder(config: TrainingConfig, vae: AutoencoderKL) -> Callable[[Tensor], Tensor]:
    folder = _tiny_decoder(vae.config["scaling_factor"])
    if config.perceptual_decoder == "tiny" and folder is None:
        name = _TINY_DECODERS.get(vae.config["scaling_factor"])
        where = f"in {weights_home() / name}" if name else "for this base model"
        raise UserError(f"training.perceptual_decoder: no tiny decoder {where}; stage one there, or set auto or vae")
    if folder is None or config.perceptual_decoder == "vae":
        return lambda latents: decode(vae, latents)
    tiny: AutoencoderTiny = AutoencoderTiny.from_pretrained(folder, torch_dtype=torch.float32, local_files_only=True)
    nn.Module.to(tiny, vae.device).requires_grad_(False).eval()

    def tiny_decode(latents: Tensor) -> Tensor:
        images: Tensor = tiny.decode(latents.float(), return_dict=False)[0]  # takes scaled latents
        return images

    return tiny_decode


def _tiny_decoder(scaling_factor: float) -> Path | None:
    """Return the folder of the staged small autoencoder that shares a VAE's latents; None: there is none."""
    name = _TINY_DECODERS.get(scaling_factor)
    folder = weights_home() / name if name else None
    return folder if folder is not None and (folder / "config.json").is_file() else None


def _trunk(config: TrainingConfig) -> nn.Module:
    path = weights_file(_VGG16)
    if config.perceptual_network == "lite0" or (config.perceptual_network == "auto" and path is None):
        return Lite0Trunk()
    path = path or staging_path(_VGG16)
    check_weights(path, WEIGHTS[_VGG16].sha256, fetch=_VGG16)
    return Vgg16Trunk(torch.load(path, map_location="cpu", weights_only=True))


def perceptual_distance(trunk: nn.Module, images: Tensor, references: Tensor) -> Tensor:
    """Return the distance of deep features of each row (N,), with gradient to `images`.

    The feature maps are scaled to unit length at each position and compared by their squared difference, as LPIPS does
    with all its weights at 1 (Zhang et al. 2018, arXiv 1801.03924, eq. 1). The trunk computes in fp32.

    Args:
        images: (N, 3, H, W) in [-1, 1]; `references` alike.
    """
    with torch.no_grad():
        reference_maps = trunk(references.float())
    total = torch.zeros(len(images), device=images.device)
    for map_, reference in zip(trunk(images.float()), reference_maps, strict=True):
        difference = nn.functional.normalize(map_, dim=1) - nn.functional.normalize(reference, dim=1)
        total = total + difference.square().sum(dim=1).mean(dim=(1, 2)) / len(reference_maps)
    return total
