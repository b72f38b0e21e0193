"""What the packaged tiny model was trained by: the distance that keeps its decoder sharp."""

import sys
from pathlib import Path

import pytest
import torch
from torchvision.transforms.functional import gaussian_blur

from woundray.data.phantoms.render import render_cohort


@pytest.fixture(scope="module")
def pretrain_vae():  # type: ignore[no-untyped-def]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[1] / "scripts"))
        import pretrain_vae

        yield pretrain_vae
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
