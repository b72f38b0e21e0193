"""PNG files with text metadata.

Own code beside torchvision.io.write_png, which writes no text chunks and no file atomically.
"""

import io
from collections.abc import Mapping
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from woundray.system.atomic_files import atomic_path


def write_png(image: Tensor, path: Path, texts: Mapping[str, str] | None = None) -> None:
    """Write a uint8 image (3, H, W) to a PNG file with text chunks by keyword, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(encode_png(image, texts or {}))


def encode_png(image: Tensor, texts: Mapping[str, str]) -> bytes:
    """Encode a uint8 image (3, H, W) as PNG; texts by keyword become tEXt chunks, or iTXt where not Latin-1."""
    chunks, file = PngInfo(), io.BytesIO()
    for keyword, text in texts.items():
        chunks.add_text(keyword, text)
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, format="PNG", pnginfo=chunks)
    return file.getvalue()
