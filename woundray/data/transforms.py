"""Square views of a wound, the box with a margin: crop, zoom, shift, flip and colour jitter by a seed."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from woundray.data.dataset import Box

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Augmentation:
    """Ranges of random augmentation.

    Attributes:
        margin_min, margin_max: margin on each side, share of the box.
        flip: mirror with probability 0.5.
        scale: smallest and largest zoom factor.
        jitter: brightness, contrast and saturation change by a factor in 1 +- jitter. Hue is kept: it shows the phase.
    """

    margin_min: float
    margin_max: float
    flip: bool
    scale: tuple[float, float]
    jitter: float


def view(picture: Picture, box: Box | None, *, size_px: int, augmentation: Augmentation, seed: int) -> Picture:
    """Return an augmented view, uint8 (size_px, size_px, 3); the same for the same arguments."""
    generator = np.random.default_rng(seed)
    margin = generator.uniform(augmentation.margin_min, augmentation.margin_max)
    scale = generator.uniform(*augmentation.scale)
    side, (middle_x, middle_y) = _square(picture, box, margin)
    play = side * abs(scale - 1) / 2
    shift_x, shift_y = generator.uniform(-play, play, size=2)
    image = _crop_and_resize(picture, side * scale, middle_x + shift_x, middle_y + shift_y, size_px)
    if augmentation.flip and generator.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        factor = 1 + generator.uniform(-augmentation.jitter, augmentation.jitter)
        if augmentation.jitter:
            image = enhance(image).enhance(factor)
    return np.asarray(image, dtype=np.uint8)


def plain_view(picture: Picture, box: Box | None, *, size_px: int, margin: float) -> Picture:
    """Return the centred view without augmentation, uint8 (size_px, size_px, 3)."""
    side, middle = _square(picture, box, margin)
    return np.asarray(_crop_and_resize(picture, side, *middle, size_px), dtype=np.uint8)


def _square(picture: Picture, box: Box | None, margin: float) -> tuple[float, tuple[float, float]]:
    """Return side and centre of the square around a box with its margin; without a box the largest centred square."""
    height, width = picture.shape[:2]
    if box is None:
        return float(min(height, width)), (width / 2, height / 2)
    left, top, right, bottom = box
    side = max(right - left, bottom - top) * (1 + 2 * margin)
    return side, ((left + right) / 2, (top + bottom) / 2)


def _crop_and_resize(picture: Picture, side: float, middle_x: float, middle_y: float, size_px: int) -> Image.Image:
    """Crop a square and resize it with antialiasing. It is shifted into the image; if it is too large, the image is
    extended by mirroring.
    """
    height, width = picture.shape[:2]
    left = _shift_inside(middle_x - side / 2, side, width)
    top = _shift_inside(middle_y - side / 2, side, height)
    pad = int(np.ceil(max(0.0, -left, -top, left + side - width, top + side - height)))
    if pad:
        picture = np.pad(picture, ((pad, pad), (pad, pad), (0, 0)), mode="symmetric")
    box = (left + pad, top + pad, left + side + pad, top + side + pad)
    return Image.fromarray(picture).resize((size_px, size_px), Image.Resampling.BICUBIC, box=box)


def _shift_inside(start: float, side: float, length: int) -> float:
    """Return the start of an interval of length `side`, shifted into 0..length; centred if it is longer than that."""
    if side > length:
        return (length - side) / 2
    return min(max(start, 0.0), length - side)
