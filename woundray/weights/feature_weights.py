"""Weights files of feature extractors: name -> address, SHA-256, licence, and path on this machine."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FeatureWeights:
    """Public weights file.

    Attributes:
        size_mb: 10^6 bytes; None if it is not published.
    """

    url: str
    sha256: str
    licence: str
    size_mb: float | None = None

    @property
    def file_name(self) -> str:
        """Name of the file in `checkpoints_home()`."""
        return self.url.rsplit("/", 1)[1]


WEIGHTS = {
    "inception": FeatureWeights(
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
        "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        "Apache-2.0",
    ),
    "vgg16": FeatureWeights(
        "https://download.pytorch.org/models/vgg16-397923af.pth",
        "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        "BSD-3-Clause",
        size_mb=553.4,
    ),
    "alexnet": FeatureWeights(
        "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
        "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        "BSD-3-Clause",
        size_mb=244.4,
    ),
    "squeezenet": FeatureWeights(
        "https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth",
        "b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
        "BSD-3-Clause",
        size_mb=5.0,
    ),
    "sscd": FeatureWeights(
        "https://dl.fbaipublicfiles.com/sscd-copy-detection/sscd_disc_mixup.torchscript.pt",
        "9f26bd4c848cc19b73d2ae92eea6e04886f61a7b764ceb7a13aeee62e6a6db56",
        "MIT",
    ),
    "dinov2": FeatureWeights(
        "https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth",
        "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
        "Apache-2.0",
    ),
}
ALIASES = {"lpips": "alexnet"}
"""Other names. The package lpips contains its linear weights; its default backbone is AlexNet."""
LPIPS_TRUNKS = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet"}
"""Value of quality.lpips.network -> name of the backbone's weights."""


def checkpoints_home() -> Path:
    """Return the folder that torch.hub, torchvision and torch-fidelity use: $TORCH_HOME/hub/checkpoints."""
    home = os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "torch"
    return Path(home).expanduser() / "hub/checkpoints"


def without_alias(name: str) -> str:
    """Return the name in `WEIGHTS` of an alias such as lpips; any other name as it is."""
    return ALIASES.get(name, name)


def staging_path(name: str) -> Path:
    """Return the path that the file of a name or alias is downloaded to."""
    return checkpoints_home() / WEIGHTS[without_alias(name)].file_name
