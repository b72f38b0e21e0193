"""Weights files of feature extractors that are no part of any package: where they come from and where they lie."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Weights:
    """One public file, known by its sha256.

    Attributes:
        size_mb: 10^6 bytes; None where it was not published.
    """

    url: str
    sha256: str
    licence: str
    size_mb: float | None = None

    @property
    def file_name(self) -> str:
        """Name in the folder of checkpoints."""
        return self.url.rsplit("/", 1)[1]


WEIGHTS = {
    "inception": Weights(
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
        "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        "Apache-2.0",
    ),
    "vgg16": Weights(
        "https://download.pytorch.org/models/vgg16-397923af.pth",
        "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        "BSD-3-Clause",
        size_mb=553.4,
    ),
    "alexnet": Weights(
        "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
        "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        "BSD-3-Clause",
        size_mb=244.4,
    ),
    "squeezenet": Weights(
        "https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth",
        "b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
        "BSD-3-Clause",
        size_mb=5.0,
    ),
    "sscd": Weights(
        "https://dl.fbaipublicfiles.com/sscd-copy-detection/sscd_disc_mixup.torchscript.pt",
        "9f26bd4c848cc19b73d2ae92eea6e04886f61a7b764ceb7a13aeee62e6a6db56",
        "MIT",
    ),
    "dinov2": Weights(
        "https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth",
        "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
        "Apache-2.0",
    ),
}
ALIASES = {"lpips": "alexnet"}
"""LPIPS brings its linear weights along; its trunk is AlexNet unless another is asked for."""
LPIPS_TRUNKS = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet"}
"""quality.lpips.network -> name of its trunk's weights."""


def checkpoints_home() -> Path:
    """The folder in which torch.hub, torchvision and torch-fidelity look: $TORCH_HOME/hub/checkpoints."""
    home = os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "torch"
    return Path(home).expanduser() / "hub/checkpoints"


def path_of(name: str) -> Path:
    """Where the file of a name or alias lies once it is staged."""
    return checkpoints_home() / WEIGHTS[ALIASES.get(name, name)].file_name
