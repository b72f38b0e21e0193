"""What the packaged tiny model was trained by: the distance that keeps its decoder sharp, and its growth."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torchvision.transforms.functional import gaussian_blur

from woundray.data.phantoms.render import render_cohort
from woundray.models.tiny_architecture import MICRO, build_tiny


@pytest.fixture(scope="module")
def pretrain_vae():  # type: ignore[no-untyped-def]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[1] / "scripts"))
        import pretrain_vae

        yield pretrain_vae
        drop_scripts()


@pytest.fixture(scope="module")
def pretrain_grow():  # type: ignore[no-untyped-def]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[1] / "scripts"))
        import pretrain_grow

        yield pretrain_grow
        drop_scripts()


def drop_scripts() -> None:
    for name in [name for name in sys.modules if name.startswith("pretrain_") or name == "textures"]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    """NCHW in -1..1."""
    cohort = render_cohort({"P": 4}, seed=0, size_px=64)
    return torch.stack([torch.tensor(phantom.picture) for phantom in cohort[:4]]).permute(0, 3, 1, 2) / 127.5 - 1


def test_a_picture_is_no_distance_from_itself(pretrain_vae, pictures: torch.Tensor) -> None:  # type: ignore[no-untyped-def]
    content, style = pretrain_vae.Perceptual(64)(pictures, pictures)
    assert (float(content), float(style)) == pytest.approx((0, 0), abs=1e-6)


def test_style_asks_for_texture_and_not_for_its_place(pretrain_vae, pictures: torch.Tensor) -> None:  # type: ignore[no-untyped-def]
    """Blur is content's way out of doubt: moved texture costs it more. Style holds the opposite."""
    perceptual = pretrain_vae.Perceptual(64)
    content_moved, style_moved = perceptual(pictures.roll((5, 5), (2, 3)), pictures)
    content_blurred, style_blurred = perceptual(gaussian_blur(pictures, 5, 1.5), pictures)

    assert content_moved > content_blurred
    assert style_blurred > 2 * style_moved


def test_only_what_is_drawn_has_a_gradient(pretrain_vae, pictures: torch.Tensor) -> None:  # type: ignore[no-untyped-def]
    drawn, true = (0.9 * pictures).requires_grad_(), pictures.clone().requires_grad_()
    sum(pretrain_vae.Perceptual(64)(drawn, true)).backward()

    assert drawn.grad is not None and torch.isfinite(drawn.grad).all() and drawn.grad.abs().sum() > 0
    assert true.grad is None


@torch.no_grad()
def test_a_grown_vae_keeps_the_old_latents(pretrain_grow, pictures: torch.Tensor) -> None:  # type: ignore[no-untyped-def]
    old = build_tiny(0, MICRO).vae
    grown = pretrain_grow.grow_vae(old, 6)
    wanted, found = (vae.encode(pictures).latent_dist for vae in (old, grown))

    assert found.mean.shape == (len(pictures), 6, 8, 8)
    torch.testing.assert_close(found.mean[:, :4], wanted.mean)
    torch.testing.assert_close(found.logvar[:, :4], wanted.logvar)
    assert found.mean[:, 4:].std() > 5 * found.std[:, 4:].mean()  # the decoder has something to heed


@torch.no_grad()
def test_the_noise_of_grown_latents_is_that_of_their_training(pretrain_grow, pictures: torch.Tensor) -> None:  # type: ignore[no-untyped-def]
    vae = pretrain_grow.grow_vae(build_tiny(0, MICRO).vae, 6)
    pretrain_grow.set_noise(vae)
    noise = vae.encode(pictures).latent_dist.std * vae.config["scaling_factor"]

    torch.testing.assert_close(noise, torch.full_like(noise, pretrain_grow.LATENT_NOISE))


@torch.no_grad()
def test_a_grown_unet_predicts_what_the_old_one_did(pretrain_grow) -> None:  # type: ignore[no-untyped-def]
    base = build_tiny(0, MICRO)
    grown = pretrain_grow.grow_unet(base.unet, 6)
    latents = torch.randn(2, 6, 8, 8, generator=torch.Generator().manual_seed(0))
    text = torch.zeros(2, 4, MICRO.text_width)
    wanted, found = base.unet(latents[:, :4], 500, text).sample, grown(latents, 500, text).sample

    torch.testing.assert_close(found[:, :4], wanted)
    assert not found[:, 4:].any()


@torch.no_grad()
def test_scaled_latents_are_made_of_unit_spread_and_the_pictures_stay(
    pretrain_grow,  # type: ignore[no-untyped-def]
    pretrain_vae,  # type: ignore[no-untyped-def]
    pictures: torch.Tensor,
) -> None:
    vae = pretrain_grow.grow_vae(build_tiny(0, MICRO).vae, 6)
    before = vae.decode(vae.encode(pictures).latent_dist.mean).sample
    old = vae.encode(pictures).latent_dist.mean[:, :4]
    drawn = SimpleNamespace(phantoms=torch.arange(len(pictures)), centres=lambda numbers: pictures[numbers])
    pretrain_vae.normalise_latents(vae, drawn, 2, held=4)
    latents = vae.encode(pictures).latent_dist.mean

    torch.testing.assert_close(vae.decode(latents).sample, before, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(latents[:, :4], old)
    spread = (latents * vae.config["scaling_factor"])[:, 4:].std((0, 2, 3))
    torch.testing.assert_close(spread, torch.ones(2), atol=1e-3, rtol=1e-3)
