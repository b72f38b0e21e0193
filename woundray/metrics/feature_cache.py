"""Feature cache: files of features, keyed by the content of the images and the extractor."""

import hashlib
import logging
import os
import tempfile
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from woundray.metrics.extractors import Extractor, check_images, text_sha256

log = logging.getLogger(__name__)


def cached_features(extractor: Extractor, images: Tensor, folder: Path) -> Tensor:
    """Return `extractor(images)`, read from `folder` if these images were passed to this extractor before.

    A file that cannot be read is computed and written again.
    """
    check_images(images)
    pixels = hashlib.sha256(images.cpu().contiguous().numpy().data).hexdigest()
    key = text_sha256(f"{extractor.content_hash} {tuple(images.shape)} {pixels}")
    file = folder / f"{extractor.name}-{key[:32]}.safetensors"
    if file.is_file():
        try:
            return load_file(file)["features"]
        except SafetensorError as error:
            log.warning("%s: damaged (%s), measured again", file, error)

    features = extractor(images)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        save_file({"features": features.contiguous()}, Path(scratch) / file.name)
        os.replace(Path(scratch) / file.name, file)
    return features
