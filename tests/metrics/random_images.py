"""Random images for tests of pairs of images."""

import torch
from torch import Tensor


def pictures(n: int, seed: int, height: int = 64, width: int = 72) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, 9, 9, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear") * 200
    return (smooth + 50 * torch.rand(n, 3, height, width, generator=generator)).to(torch.uint8)


def similar_pictures() -> tuple[Tensor, Tensor]:
    x, y = pictures(3, seed=0), pictures(4, seed=1)
    y[2] = (x[1].float() * 0.8 + 20).to(torch.uint8)  # one near-copy
    y[3] = 37  # one flat
    return x, y
