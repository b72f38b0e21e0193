"""DINOv2 and SSCD: refused unless they are the published files, and computed as published."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from woundray.errors import UserError
from woundray.metrics.staged_extractors import Dinov2, Sscd
from woundray.system.checksums import file_sha256

BLOCKS, WIDTH, HEADS, PATCH_PX = 12, 384, 6, 14


def pictures() -> Tensor:
    return torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def random_vit() -> dict[str, Tensor]:
    """A state with the names of the published file."""
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, WIDTH), "mask_token": (1, WIDTH), "pos_embed": (1, 37 * 37 + 1, WIDTH),
        "patch_embed.proj.weight": (WIDTH, 3, PATCH_PX, PATCH_PX), "patch_embed.proj.bias": (WIDTH,),
        "norm.weight": (WIDTH,), "norm.bias": (WIDTH,),
    }  # fmt: skip
    layers = {
        "norm1.weight": (WIDTH,), "norm1.bias": (WIDTH,), "norm2.weight": (WIDTH,), "norm2.bias": (WIDTH,),
        "attn.qkv.weight": (3 * WIDTH, WIDTH), "attn.qkv.bias": (3 * WIDTH,),
        "attn.proj.weight": (WIDTH, WIDTH), "attn.proj.bias": (WIDTH,),
        "mlp.fc1.weight": (4 * WIDTH, WIDTH), "mlp.fc1.bias": (4 * WIDTH,),
        "mlp.fc2.weight": (WIDTH, 4 * WIDTH), "mlp.fc2.bias": (WIDTH,),
        "ls1.gamma": (WIDTH,), "ls2.gamma": (WIDTH,),
    }  # fmt: skip
    shapes |= {f"blocks.{block}.{name}": shape for block in range(BLOCKS) for name, shape in layers.items()}
    generator = torch.Generator().manual_seed(0)
    return {name: 0.05 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def class_token(state: dict[str, Tensor], images: Tensor) -> Tensor:
    """The vision transformer of Dosovitskiy et al. 2021 with layer scale, written out."""
    x = functional.interpolate(images.float(), (224, 224), mode="bicubic", antialias=True).clamp(0, 255) / 255
    mean, sd = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (x - mean.view(1, 3, 1, 1)) / sd.view(1, 3, 1, 1)
    x = functional.conv2d(x, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=PATCH_PX)
    places = state["pos_embed"][:, 1:].view(1, 37, 37, WIDTH).permute(0, 3, 1, 2)
    x = x + functional.interpolate(places, (16, 16), mode="bicubic", align_corners=False)
    first = (state["cls_token"] + state["pos_embed"][:, :1]).expand(len(images), -1, -1)
    x = torch.cat([first, x.flatten(2).transpose(1, 2)], dim=1)
    for block in range(BLOCKS):
        own = {name.removeprefix(f"blocks.{block}."): t for name, t in state.items() if f"blocks.{block}." in name}
        y = functional.layer_norm(x, (WIDTH,), own["norm1.weight"], own["norm1.bias"], eps=1e-6)
        qkv = functional.linear(y, own["attn.qkv.weight"], own["attn.qkv.bias"])
        q, k, v = qkv.unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        y = torch.softmax(q @ k.transpose(2, 3) / (WIDTH // HEADS) ** 0.5, dim=-1) @ v
        y = functional.linear(y.transpose(1, 2).flatten(2), own["attn.proj.weight"], own["attn.proj.bias"])
        x = x + own["ls1.gamma"] * y
        y = functional.layer_norm(x, (WIDTH,), own["norm2.weight"], own["norm2.bias"], eps=1e-6)
        y = functional.gelu(functional.linear(y, own["mlp.fc1.weight"], own["mlp.fc1.bias"]))
        x = x + own["ls2.gamma"] * functional.linear(y, own["mlp.fc2.weight"], own["mlp.fc2.bias"])
    return functional.layer_norm(x, (WIDTH,), state["norm.weight"], state["norm.bias"], eps=1e-6)[:, 0]


def test_dinov2_computes_as_published_and_takes_only_its_file(tmp_path: Path) -> None:
    file, state = tmp_path / "dinov2_vits14_pretrain.pth", random_vit()
    with pytest.raises(UserError, match=r"python -m woundray\.fetch dinov2"):
        Dinov2(file)
    torch.save(state, file)
    with pytest.raises(UserError, match="other sha256"):
        Dinov2(file)
    extractor = Dinov2(file, sha256=file_sha256(file))
    features = extractor(pictures())
    torch.testing.assert_close(features, class_token(state, pictures()), rtol=1e-3, atol=1e-4)
    assert features.shape == (2, extractor.dim)
    with pytest.raises(UserError, match="greyscale"):
        extractor(pictures()[:, :1])


class Means(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3))


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
def test_sscd_sees_imagenets_scale_and_takes_only_its_file(tmp_path: Path) -> None:
    file = tmp_path / "sscd_disc_mixup.torchscript.pt"
    torch.jit.script(Means()).save(file)  # type: ignore[no-untyped-call]
    with pytest.raises(UserError, match="other sha256"):
        Sscd(file)
    extractor = Sscd(file, sha256=file_sha256(file))
    grey = torch.full((1, 3, 40, 40), 128, dtype=torch.uint8)
    expected = (128 / 255 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(extractor(grey)[0], expected, rtol=1e-4, atol=1e-4)
