"""Photographs under free licences that the tiny base's autoencoder learns from: the wallpapers of Debian packages.

No patient's photograph is among them. Needs a Debian or Ubuntu machine, for `apt-get download` and `dpkg`.
"""

import io
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PACKAGES = {
    "plasma-workspace-wallpapers": "GPL-2+",
    "lomiri-wallpapers": "CC-BY-4.0, CC-BY-SA-3.0, CC-BY-SA-4.0, CC0-1.0",
    "lomiri-wallpapers-16.04": "CC-BY-4.0, CC-BY-SA-3.0, CC-BY-SA-4.0, CC0-1.0",
    "lomiri-wallpapers-20.04": "CC-BY-4.0, CC-BY-SA-3.0, CC-BY-SA-4.0, CC0-1.0",
    "ukui-wallpapers": "CC-BY-SA-3.0",
    "mate-backgrounds": "CC-BY-SA-4.0, GPL-2+",
}
"""Licences of the pictures, by package (Debian 12), as the packages' own copyright files state them."""

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_SMALLEST_PX, _LARGEST_PX = 300, 2600  # of the shorter side: below are thumbnails; larger ones are reduced
_TRIES = 4  # crops of which the one with the most detail is taken: wallpapers are sky and flat colour in large part


def fetch_photos(folder: Path) -> list[Path]:
    """Download and unpack PACKAGES below `folder`, once; one picture of each wallpaper, sorted by name."""
    unpacked = folder / "unpacked"
    if not unpacked.exists():
        partial = folder / "unpacked.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        subprocess.run(["apt-get", "download", *PACKAGES], cwd=partial, check=True)
        for archive in sorted(partial.glob("*.deb")):
            subprocess.run(["dpkg", "-x", archive, partial], check=True)
            archive.unlink()
        partial.rename(unpacked)
    paths = [path for path in sorted(unpacked.rglob("*")) if path.suffix.lower() in _SUFFIXES and path.is_file()]
    return _largest_of_each([path for path in paths if path.stem != "screenshot"])


def _largest_of_each(paths: list[Path]) -> list[Path]:
    """The largest file of each wallpaper that lies in several sizes, such as 1080x1920.jpg and 3840x2160.jpg."""
    largest: dict[str, Path] = {}
    for path in paths:
        name = re.sub(r"[_-]?\d{3,4}x\d{3,4}(_Portrait)?$", "", str(path.with_suffix("")))
        if name not in largest or path.stat().st_size > largest[name].stat().st_size:
            largest[name] = path
    return sorted(path for path in largest.values() if _shorter_px(path) >= _SMALLEST_PX)


def _shorter_px(path: Path) -> int:
    with Image.open(path) as file:
        return min(file.size)


def draw_crops(paths: list[Path], count: int, side_px: int, seed: int) -> NDArray[np.uint8]:
    """Random crops of photographs, uint8 (count, side_px, side_px, 3), photographs in turn.

    A crop shows between side_px pixels and the whole of the shorter side. Half of them are turned in hue or paled or
    both; a third are enlarged from 40 to 80 % of their size and a half go through JPEG, as clinics' photographs do.
    """
    found = np.empty((count, side_px, side_px, 3), dtype=np.uint8)
    for number, path in enumerate(paths):
        rows = range(number, count, len(paths))
        with Image.open(path) as file:
            photo = file.convert("RGB")
        if min(photo.size) > _LARGEST_PX:
            photo = photo.reduce(min(photo.size) // _LARGEST_PX + 1)
        for row in rows:
            generator = np.random.default_rng([seed, row])
            crops = [_crop(photo, side_px, generator) for _ in range(_TRIES)]
            found[row] = np.asarray(_spoiled(max(crops, key=_detail), generator))
    return found


def _crop(photo: Image.Image, side_px: int, generator: np.random.Generator) -> Image.Image:
    shorter = min(photo.size)
    side = round(float(np.exp(generator.uniform(np.log(min(side_px, shorter)), np.log(shorter)))))
    left, top = (int(generator.integers(0, length - side + 1)) for length in photo.size)
    return photo.resize((side_px, side_px), Image.Resampling.LANCZOS, (left, top, left + side, top + side), 3.0)


def _detail(crop: Image.Image) -> float:
    """Mean absolute difference of neighbouring pixels, of 255."""
    levels = np.asarray(crop.convert("L"), dtype=np.float64)
    return float(np.abs(np.diff(levels, axis=0)).mean() + np.abs(np.diff(levels, axis=1)).mean())


def _spoiled(crop: Image.Image, generator: np.random.Generator) -> Image.Image:
    side_px = crop.width
    if generator.random() < 0.5:
        hue, saturation, value = crop.convert("HSV").split()
        turn, paled = int(generator.integers(0, 256)), generator.uniform(0.4, 1.0)
        hue = hue.point([(level + turn) % 256 for level in range(256)])
        saturation = saturation.point([int(level * paled) for level in range(256)])
        crop = Image.merge("HSV", (hue, saturation, value)).convert("RGB")
    if generator.random() < 1 / 3:
        small = int(side_px * generator.uniform(0.4, 0.8))
        crop = crop.resize((small, small), Image.Resampling.BOX).resize((side_px, side_px), Image.Resampling.BICUBIC)
    if generator.random() < 0.5:
        file = io.BytesIO()
        crop.save(file, "JPEG", quality=int(generator.integers(40, 96)))
        crop = Image.open(file).convert("RGB")
    return crop
