"""Signal leak: the signal of training images left in the last noise step, which sampling must therefore begin with."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

LEAK_NAME = "signal_leak.safetensors"
_CELLS = 4  # a side: finer detail is lost in the last step's noise


@dataclass(frozen=True)
class SignalLeak:
    """Colours and layout of a set of images, as a normal distribution of their latents' low frequencies.

    Stable Diffusion's last training step still holds 7 % of the image's amplitude (abar = 0.0047), so a model reads
    colours, brightness and layout from it. Sampled from pure noise, images have those of an average noise instead,
    however long an adapter is trained; with a signal of the training images' own distribution they have theirs
    (Everaert et al., "Exploiting the Signal-Leak Bias in Diffusion Models", WACV 2024, arXiv 2309.15842, sec. 4).
    No photograph can be recovered from it: it holds means and covariances of 4 x 4 cells a channel.

    Attributes:
        mean: (C, 4, 4), of scaled latents.
        spread: (16 C, 16 C), symmetric; its square is the covariance.
    """

    mean: Tensor
    spread: Tensor

    @classmethod
    def fit(cls, latents: Tensor) -> "SignalLeak":
        """Fit mean and covariance to scaled latents (N, C, h, w). With N = 1 the covariance is 0."""
        cells = functional.adaptive_avg_pool2d(latents.double(), _CELLS)
        values, vectors = torch.linalg.eigh(torch.cov(cells.flatten(1).T, correction=0))
        spread = vectors * values.clamp(min=0).sqrt() @ vectors.T
        return cls(cells.mean(0).float(), spread.float())

    def sample(self, generator: torch.Generator, height: int, width: int) -> Tensor:
        """Sample a signal (C, height, width)."""
        cells = self.mean + (self.spread @ torch.randn(len(self.spread), generator=generator)).view_as(self.mean)
        return functional.interpolate(cells[None], (height, width), mode="bicubic")[0]

    def write(self, folder: Path) -> None:
        """Write LEAK_NAME into a folder."""
        save_file({"mean": self.mean, "spread": self.spread}, folder / LEAK_NAME)

    @classmethod
    def read(cls, folder: Path) -> "SignalLeak | None":
        """Read what `write` wrote; return None if there is no such file."""
        path = folder / LEAK_NAME
        return cls(**load_file(path)) if path.is_file() else None
