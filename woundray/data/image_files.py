"""Read photographs of any format, mode, orientation and colour space as upright sRGB; write PNG files."""

import struct
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from woundray.data.colour_profiles import to_srgb
from woundray.data.notes import Notes
from woundray.errors import UserError
from woundray.system.atomic_files import atomic_path

SUFFIXES = {
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".tif", ".tiff", ".bmp", ".webp", ".gif"),
    *(".heic", ".heif", ".hif", ".avif", ".jp2"),
}
MIN_SIDE_PX = 32
MAX_PIXELS = 50_000_000
_ORIENTATION, _UPRIGHT = 0x0112, 1
TURNED = "turned upright by the camera's note, its box is taken as of the upright picture"
_DARK = 4096  # of 65,536: 12 bits of a camera written as 16
# Pillow and its plugins raise each of these for damaged files
_DAMAGED = (OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, struct.error)


class PhotoError(UserError):
    """Image that can not be used; the message names the file and the reason."""


@dataclass(frozen=True)
class LoadedPhoto:
    """Image, uint8 HWC RGB, and whether it was rotated by its EXIF orientation."""

    pixels: NDArray[np.uint8]
    turned: bool


def read_photo(path: Path, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Read an image as upright sRGB, uint8 HWC RGB (see `open_photo`)."""
    return open_photo(path, Notes(), max_pixels=max_pixels).pixels


def open_photo(path: Path, notes: Notes, *, max_pixels: int = MAX_PIXELS) -> LoadedPhoto:
    """Read an image as upright sRGB, and note what was converted.

    EXIF orientation is applied. Colours are converted to sRGB by the embedded profile. Grey, palette and CMYK become
    RGB. 16-bit values are scaled by 1/257, not clipped. Transparent parts become white. Of several images in a file the
    first is read.

    Raises:
        PhotoError: missing, empty, truncated, no image, more than max_pixels, or a side under 32 px.
    """
    try:
        if path.stat().st_size == 0:
            raise PhotoError(f"{path}: empty file")
        _register_heif(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about size, which max_pixels limits, and damaged metadata
            with Image.open(path) as image:
                width, height = image.size
                if width * height > max_pixels:
                    raise PhotoError(f"{path}: {width} x {height} px is more than data.max_pixels {max_pixels}")
                if min(width, height) < MIN_SIDE_PX:
                    raise PhotoError(f"{path}: {width} x {height} px; a side should have {MIN_SIDE_PX} px or more")
                if getattr(image, "n_frames", 1) > 1 and image.format in ("GIF", "TIFF", "PNG", "WEBP", "AVIF"):
                    notes.add("several pictures in one file, the first is taken", path.name)
                image.load()
                turned = image.getexif().get(_ORIENTATION, _UPRIGHT) in range(2, 9)
                upright = ImageOps.exif_transpose(image)
                return LoadedPhoto(np.asarray(_to_rgb(upright, path.name, notes), dtype=np.uint8), turned)
    except UnidentifiedImageError:
        raise PhotoError(f"{path}: not a picture that can be read") from None
    except Image.DecompressionBombError:
        raise PhotoError(f"{path}: more pixels than data.max_pixels {max_pixels}") from None
    except _DAMAGED as error:
        raise PhotoError(f"{path}: damaged: {error}") from None


def write_photo(picture: NDArray[np.uint8], path: Path) -> None:
    """Write a uint8 HWC RGB image as a PNG file without metadata, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")


def _register_heif(path: Path) -> None:
    """Register the HEIF plugin of Pillow if a file is HEIF by its first bytes; importing it takes time."""
    with path.open("rb") as file:
        kind = file.read(12)[4:]
    if kind.startswith(b"ftyp") and kind[4:7] in (b"hei", b"hev", b"mif", b"msf"):
        from pillow_heif import register_heif_opener

        register_heif_opener()


def _to_rgb(image: Image.Image, file: str, notes: Notes) -> Image.Image:
    """Convert an image of any mode to RGB in sRGB. Raises ValueError if its values have no known meaning."""
    if image.mode.startswith("I;16") or image.mode == "I":
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("32-bit pixels have no known range; save as 8 or 16 bit")
        if 0 < values.max() < _DARK:
            notes.add("16 bits that are all dark: 12 bits or fewer may be meant, and are not made lighter", file)
        # 16 bit => 8 bit: 65535 / 257 = 255
        grey = Image.fromarray((values.astype(np.float64) / 257).round().clip(0, 255).astype(np.uint8))
        grey.info = image.info
        return to_srgb(grey, file, notes)
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range; save as 8 or 16 bit")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        alpha = np.asarray(rgba.getchannel("A"))
        if not alpha.any():
            raise ValueError("nothing but transparent pixels; save it without transparency")
        if alpha.min() < 255:
            notes.add("transparent parts show white", file)
        colours = rgba.convert("RGB") if image.mode != "LA" else rgba.getchannel("R")
        colours.info = image.info
        white = Image.new("RGB", rgba.size, "white")
        return Image.composite(to_srgb(colours, file, notes), white, rgba.getchannel("A"))
    if image.mode not in ("RGB", "L", "CMYK"):  # palettes, black and white, YCbCr, RGBX ...
        plain = image.convert("L" if image.mode == "1" else "RGB")
        plain.info = image.info
        image = plain
    return to_srgb(image, file, notes)
