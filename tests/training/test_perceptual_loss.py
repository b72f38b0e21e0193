"""Perceptual loss with other staged weights: VGG16, and the tiny decoder."""

from functools import partial
from pathlib import Path

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from families import family_config
from torch import Tensor, nn

from woundray.config import TrainingConfig
from woundray.errors import UserError
from woundray.metrics.extractors import Lite0Trunk
from woundray.metrics.lpips import untrained_lpips
from woundray.models.lora import add_adapter
from woundray.models.unet import load_unet
from woundray.models.vae import decode, load_vae
from woundray.training import train_step as steps
from woundray.training.perceptual_loss import (
    PerceptualNetworks,
    Vgg16Trunk,
    make_perceptual_networks,
    perceptual_distance,
)
from woundray.training.precompute import precompute
from woundray.training.random_inputs import draw_random_inputs, random_stream

CPU = torch.device("cpu")
LITE0 = TrainingConfig(perceptual_network="lite0")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def trunk() -> Vgg16Trunk:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Vgg16Trunk(None)


def test_vgg16s_maps_are_those_of_lpips(trunk: Vgg16Trunk) -> None:
    """Zhang et al. 2018 take the same five maps of the same network, scaled from [-1, 1] in the same way."""
    theirs = untrained_lpips("vgg")
    slices = [getattr(theirs.net, f"slice{number}") for number in (1, 2, 3, 4, 5)]
    for part in slices:
        for name, layer in part.named_children():
            layer.load_state_dict(trunk.layers[int(name)].state_dict())
    images = noise(2, 3, 32, 40).clamp(-1, 1)
    maps, expected = trunk(images), theirs.net(theirs.scaling_layer(images))
    assert len(maps) == len(expected) == 5
    for ours, other in zip(maps, expected, strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(trunk(images)[4], maps[4])


def test_the_distance_of_vgg16s_maps_has_its_gradient(trunk: Vgg16Trunk) -> None:
    images, references = (noise(1, 3, 32, 32, seed=seed).clamp(-1, 1) for seed in (1, 2))
    images.requires_grad_()
    (gradient,) = torch.autograd.grad(perceptual_distance(trunk, images, references).sum(), images)
    direction, step = gradient / gradient.norm(), 1e-2
    with torch.no_grad():
        ahead, behind = (perceptual_distance(trunk, images + s * direction, references).sum() for s in (step, -step))
    assert float(gradient.norm()) == pytest.approx(float((ahead - behind) / (2 * step)), rel=0.05)
    assert not any(parameter.requires_grad for parameter in trunk.parameters())


@pytest.mark.parametrize("family_base", ["sd15"], indirect=True)
def test_a_file_that_is_not_vgg16_is_refused(
    family_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    vae = load_vae(family_base, device=CPU)
    perceptual_networks = make_perceptual_networks(TrainingConfig(), vae)
    assert perceptual_networks is not None and isinstance(perceptual_networks.trunk, Lite0Trunk)
    file = tmp_path / "hub/checkpoints/vgg16-397923af.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"other")
    with pytest.raises(UserError, match=r"vgg16-397923af\.pth: not the known weights"):
        make_perceptual_networks(TrainingConfig(), vae)  # auto takes it where it lies


@pytest.fixture
def tiny_decoder(family_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AutoencoderTiny:
    """Stage a narrow decoder with random weights for the family's latents."""
    monkeypatch.setenv("WOUNDRAY_WEIGHTS", str(tmp_path))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tiny = AutoencoderTiny(
            encoder_block_out_channels=(8, 8, 8, 8),
            decoder_block_out_channels=(8, 8, 8, 8),
            num_encoder_blocks=(1, 1, 1, 1),
            num_decoder_blocks=(1, 1, 1, 1),
        )
    tiny.save_pretrained(tmp_path / ("taesdxl" if family_base.name == "sdxl" else "taesd"))
    decoder: AutoencoderTiny = tiny.eval()
    return decoder


@pytest.mark.parametrize("family_base", ["sd15", "sdxl"], indirect=True)
def test_a_staged_tiny_decoder_decodes(family_base: Path, tiny_decoder: AutoencoderTiny) -> None:
    vae, latents = load_vae(family_base, device=CPU), noise(2, 4, 8, 8)
    for choice, expected in (
        ("auto", tiny_decoder.decode(latents, return_dict=False)[0]),
        ("tiny", tiny_decoder.decode(latents, return_dict=False)[0]),
        ("vae", decode(vae, latents)),
    ):
        perceptual_networks = make_perceptual_networks(LITE0.model_copy(update={"perceptual_decoder": choice}), vae)
        assert perceptual_networks is not None
        torch.testing.assert_close(perceptual_networks.decode(latents), expected)


@pytest.mark.parametrize("family_base", ["sd15", "sdxl"], indirect=True)
def test_a_tiny_decoder_that_is_not_staged_is_named(
    family_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WOUNDRAY_WEIGHTS", str(tmp_path))
    with pytest.raises(UserError, match=r"perceptual_decoder: no tiny decoder in .*/taesd(xl)?; stage one there"):
        make_perceptual_networks(
            LITE0.model_copy(update={"perceptual_decoder": "tiny"}), load_vae(family_base, device=CPU)
        )


@pytest.mark.parametrize("family_base", ["sd21-v"], indirect=True)
@pytest.mark.parametrize("network", ["lite0", "vgg16"])
def test_the_term_reaches_the_adapter_through_tiny_decoder_and_either_network(
    family_base: Path, tiny_decoder: AutoencoderTiny, trunk: Vgg16Trunk, network: str, tmp_path: Path
) -> None:
    config = family_config(family_base)
    precomputed = precompute(config, tmp_path / "precomputed", device=CPU, progress=lambda *_: None)
    unet = load_unet(precomputed.base, dtype=torch.float32, device=CPU)
    parameters = add_adapter(unet, config.lora, seed=0)
    seen: nn.Module = trunk if network == "vgg16" else Lite0Trunk()
    perceptual_networks = PerceptualNetworks(partial(_decoded, tiny_decoder), seen)
    photos = torch.arange(2)
    draws = draw_random_inputs(photos, precomputed.latent_cache, precomputed.schedule, config, random_stream(0, 1, 1))
    _, perceptual = steps.compute_losses(
        steps.LossContext(unet, perceptual_networks, precomputed.latent_cache, precomputed.schedule, config), draws
    )
    perceptual.backward()
    ends = ("to_v.lora_B.default.weight", "to_out.0.lora_B.default.weight")
    gradients = [p.grad for name, p in parameters.items() if name.endswith(ends)]
    assert gradients
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in gradients)


def _decoded(tiny: AutoencoderTiny, latents: Tensor) -> Tensor:
    images: Tensor = tiny.decode(latents, return_dict=False)[0]
    return images
