"""Reading photographs as they come: any mode, any orientation; a bad one is refused with its reason."""

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from woundray.errors import UserError

SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"}
MIN_SIDE_PX = 32
MAX_PIXELS = 50_000_000


class PhotoError(UserError):
    """A picture that can not be used; the message names the file and the reason."""


def read_photo(path: Path, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """The upright picture, uint8 HWC RGB.

    EXIF orientation is applied; grey, palette and CMYK become RGB; 16-bit values are scaled by 1/257, not clipped;
    what is transparent shows white.

    Raises:
        PhotoError: missing, empty, truncated, no picture, more than max_pixels, a side under 32 px.
    """
    try:
        if path.stat().st_size == 0:
            raise PhotoError(f"{path}: empty file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of size, where max_pixels decides, and of damaged metadata
            with Image.open(path) as image:
                width, height = image.size
                if width * height > max_pixels:
                    raise PhotoError(f"{path}: {width} x {height} px is more than data.max_pixels {max_pixels}")
                if min(width, height) < MIN_SIDE_PX:
                    raise PhotoError(f"{path}: {width} x {height} px; a side should have {MIN_SIDE_PX} px or more")
                image.load()
                return np.asarray(_to_rgb(ImageOps.exif_transpose(image)), dtype=np.uint8)
    except UnidentifiedImageError:
        raise PhotoError(f"{path}: not a picture that can be read") from None
    except Image.DecompressionBombError:
        raise PhotoError(f"{path}: more pixels than data.max_pixels {max_pixels}") from None
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises each of them for damaged files
        raise PhotoError(f"{path}: damaged: {error}") from None


def write_photo(picture: NDArray[np.uint8], path: Path) -> None:
    """uint8 HWC RGB -> a PNG file without metadata, written beside and renamed into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.part")
    Image.fromarray(picture).save(beside, format="PNG")
    beside.replace(path)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        # 16 bit => 8 bit: 65535 / 257 = 255
        values = np.asarray(image).astype(np.float64) / 257
        return Image.fromarray(values.round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range; save as 8 or 16 bit")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")
