"""Small pictures for tests of what is read: each of another scene, in any format."""

import io
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

ORIENTATION, EXIF, COLOUR_SPACE, INTEROPERABILITY = 0x0112, 0x8769, 0xA001, 0xA005
RED = (200, 60, 50)


def scene(number: int, side_px: int = 40) -> Image.Image:
    """Noise of a seed: no two look alike."""
    draw = np.random.default_rng(number)
    return Image.fromarray(draw.integers(0, 256, (side_px, side_px, 3), dtype=np.uint8))


def flat(colour: object = RED, mode: str = "RGB", side_px: int = 40) -> Image.Image:
    return Image.new(mode, (side_px, side_px), colour)  # type: ignore[arg-type]


def encoded(image: Image.Image, kind: str = "PNG", **how: Any) -> bytes:
    if kind == "HEIF":
        from pillow_heif import register_heif_opener

        register_heif_opener()
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


def profile(name: str) -> bytes:
    """`sRGB`, or a profile of matrix and gamma like Display P3, or a grey one of gamma 1."""
    if name == "sRGB":
        return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    if name == "grey":
        return _icc("Grey Gamma 1.0", b"GRAY", {b"kTRC": _gamma(1.0)})
    # D50-adapted primaries of Display P3 (SMPTE EG 432-1)
    primaries = {b"rXYZ": (0.51512, 0.24120, -0.00105), b"gXYZ": (0.29198, 0.69225, 0.04189)}
    primaries |= {b"bXYZ": (0.15710, 0.06657, 0.78407)}
    curves = dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), _gamma(2.2))
    return _icc("Display P3", b"RGB ", {tag: _xyz(*value) for tag, value in primaries.items()} | curves)


def _icc(name: str, space: bytes, tags: Mapping[bytes, bytes]) -> bytes:
    """A display profile of version 2 (ICC.1:2001-04)."""
    text = name.encode() + b"\0"
    description = b"desc" + bytes(4) + struct.pack(">I", len(text)) + text + bytes(4 + 4 + 2 + 1 + 67)
    white = _xyz(0.9642, 1.0, 0.8249)
    tags = {b"desc": description, b"cprt": b"text" + bytes(4) + b"none\0", b"wtpt": white, **tags}
    body, table = b"", b""
    start = 128 + 4 + 12 * len(tags)
    for tag, data in tags.items():
        table += tag + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I4sI4s4s4s", start + len(body), bytes(4), 0x02400000, b"mntr", space, b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">iii", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def _xyz(x: float, y: float, z: float) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">iii", *(round(value * 65536) for value in (x, y, z)))


def _gamma(value: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(value * 256)) + bytes(2)


def exif_of(*, orientation: int = 1, uncalibrated: bool = False, index: str = "") -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    if uncalibrated:
        exif.get_ifd(EXIF)[COLOUR_SPACE] = 65535
    if index:
        exif.get_ifd(EXIF)[INTEROPERABILITY] = {1: index}
    return exif.tobytes()


def png_16_bit_rgb(values: NDArray[np.uint16]) -> bytes:
    """Pillow does not write it: (H, W, 3)."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def put(root: Path, files: Mapping[str, bytes | Image.Image]) -> None:
    """Writes files; pictures by the endings of their names."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            kind = {"jpg": "JPEG", "jpeg": "JPEG", "jpe": "JPEG", "jfif": "JPEG", "tif": "TIFF", "heic": "HEIF"}
            ending = path.suffix[1:].lower()
            path.write_bytes(encoded(content, kind.get(ending, ending.upper())))
