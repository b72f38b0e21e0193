"""Feature cache on disk, keyed by image content: an image shared by folds, seeds and arms is embedded once."""

import hashlib
import secrets
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from woundray.evaluation.embedders import Embedder
from woundray.metrics.extractors import check_images


class PictureFeatures:
    """Embedder with a cache of features in a folder; several processes may use one folder."""

    def __init__(self, embedder: Embedder, folder: Path) -> None:
        self._embedder = embedder
        self.name, self.dim, self.parts = embedder.name, embedder.dim, embedder.parts
        self.content_hash = embedder.content_hash
        self._folder = folder / hashlib.sha256(embedder.content_hash.encode()).hexdigest()[:16]
        self._folder.mkdir(parents=True, exist_ok=True)
        self._read: set[Path] = set()
        self._known: dict[str, Tensor] = {}

    def __call__(self, images: Tensor) -> Tensor:
        """Return features (N, dim), float32 on the CPU, of uint8 NCHW RGB images."""
        check_images(images)
        names = [hashlib.sha256(picture.tobytes()).hexdigest() for picture in np.ascontiguousarray(images.numpy())]
        if not all(name in self._known for name in names):
            self._read_new_files()
        missing = {name: row for row, name in enumerate(names) if name not in self._known}
        if missing:
            features = self._embedder(images[list(missing.values())])
            found = dict(zip(missing, features, strict=True))
            temporary = self._folder / f".{secrets.token_hex(8)}.part"
            save_file({name: row.contiguous() for name, row in found.items()}, temporary)
            file = temporary.with_name(temporary.name[1:].replace(".part", ".safetensors"))
            temporary.replace(file)
            self._read.add(file)
            self._known |= found
        return torch.stack([self._known[name] for name in names])

    def _read_new_files(self) -> None:
        for file in sorted(set(self._folder.glob("*.safetensors")) - self._read):
            self._known |= load_file(file)
            self._read.add(file)
