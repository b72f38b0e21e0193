"""Procedural pictures with the statistics of natural ones, to teach a VAE more than phantoms.

Dead leaves (Lee, Mumford, Huang, "Occlusion Models for Natural Images", IJCV 2001) give edges at all scales
and occlusion, fields of power spectrum 1/f^a (Field, JOSA A 1987) give texture. Networks learn from both much
of what they learn from photographs (Baradad et al., "Learning to See by Looking at Noise", NeurIPS 2021).
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

Floats = NDArray[np.float32]

# sRGB in 0..1: skin from light to dark, granulation, slough, necrosis, pale epithelium, cloth and gloves.
BODY_COLOURS = np.array(
    [
        [0.93, 0.78, 0.70],
        [0.85, 0.65, 0.55],
        [0.72, 0.52, 0.42],
        [0.55, 0.37, 0.28],
        [0.36, 0.24, 0.18],
        [0.70, 0.16, 0.15],
        [0.50, 0.08, 0.09],
        [0.80, 0.70, 0.38],
        [0.12, 0.09, 0.08],
        [0.92, 0.68, 0.68],
        [0.25, 0.45, 0.62],
        [0.90, 0.90, 0.88],
    ],
    dtype=np.float32,
)


def texture(rng: np.random.Generator, size_px: int) -> NDArray[np.uint8]:
    """Draw one picture, uint8 HWC of `size_px` squared: a pattern, its light, a camera's blur and noise."""
    patterns = (dead_leaves, power_law_picture, gradient, stripes, polygons)
    pattern = patterns[rng.choice(len(patterns), p=(0.55, 0.15, 0.08, 0.10, 0.12))]
    scale = rng.choice((1.0, 1.25, 1.75))  # drawn larger and shrunk: edges from hard to smooth
    drawn_px = int(size_px * scale)
    picture = _mute(rng, pattern(rng, drawn_px)) * _lighting(rng, drawn_px)
    if rng.random() < 0.3:
        picture = ndimage.gaussian_filter(picture, (*[rng.uniform(0.3, 2.5)] * 2, 0))
    shrunk = Image.fromarray(_to_uint8(picture)).resize((size_px, size_px), Image.Resampling.LANCZOS)
    sensor_noise = rng.exponential(0.01) * rng.standard_normal((size_px, size_px, 3), dtype=np.float32)
    return _to_uint8(np.asarray(shrunk, dtype=np.float32) / 255 + sensor_noise)


def dead_leaves(rng: np.random.Generator, size_px: int) -> Floats:
    """Textured ellipses, polygons and blobs that cover one another, their radii from a power law."""
    canvas = power_law_picture(rng, size_px)
    surfaces = [power_law_picture(rng, size_px) for _ in range(2)]
    smallest, largest = 0.012 * size_px, rng.uniform(0.15, 0.5) * size_px
    exponent = rng.uniform(1.5, 3.0)
    for radius in sorted(_power_law(rng, exponent, smallest, largest, int(rng.integers(30, 250))), reverse=True):
        centre_y, centre_x = rng.uniform(0, size_px, 2)
        rows = slice(max(0, int(centre_y - radius)), min(size_px, int(centre_y + radius) + 1))
        columns = slice(max(0, int(centre_x - radius)), min(size_px, int(centre_x + radius) + 1))
        y, x = np.ogrid[rows, columns]
        inside = _leaf(rng, (y - centre_y) / radius, (x - centre_x) / radius)
        surface = surfaces[rng.integers(2)]
        detail = surface[rows, columns] - surface.mean((0, 1))
        leaf = _colour(rng) + rng.uniform(0, 1.2) * detail
        canvas[rows, columns] = np.where(inside[..., None], leaf, canvas[rows, columns])
    return canvas


def power_law_picture(rng: np.random.Generator, size_px: int) -> Floats:
    """A field of spectrum 1/f^a in luminance and weaker ones in two colour axes, about a mean colour."""
    luminance = _power_law_field(rng, size_px, rng.uniform(0.6, 1.8))
    chroma = [_power_law_field(rng, size_px, rng.uniform(0.8, 1.8)) for _ in range(2)]
    axes = rng.normal(0, 0.5, (2, 3)).astype(np.float32)  # each colour axis' direction in RGB
    colourful = rng.uniform(0, 0.35)
    field = luminance[..., None] + colourful * (chroma[0][..., None] * axes[0] + chroma[1][..., None] * axes[1])
    return np.asarray(_colour(rng) + rng.uniform(0.03, 0.22) * field, dtype=np.float32)


def gradient(rng: np.random.Generator, size_px: int) -> Floats:
    """A linear or radial ramp through three colours."""
    y, x = np.mgrid[-1 : 1 : size_px * 1j, -1 : 1 : size_px * 1j]
    angle, centre = rng.uniform(0, 2 * np.pi), rng.uniform(-1, 1, 2)
    linear = x * np.cos(angle) + y * np.sin(angle)
    ramp = linear if rng.random() < 0.5 else np.hypot(x - centre[0], y - centre[1])
    stops = np.linspace(ramp.min(), ramp.max(), 3)
    colours = np.stack([_colour(rng) for _ in stops])
    return np.stack([np.interp(ramp, stops, colours[:, c]) for c in range(3)], -1).astype(np.float32)


def stripes(rng: np.random.Generator, size_px: int) -> Floats:
    """Bent waves in Gaussian windows on a smooth ground: cloth, hair, lines of skin."""
    picture = gradient(rng, size_px)
    y, x = np.mgrid[-1 : 1 : size_px * 1j, -1 : 1 : size_px * 1j]
    bend = rng.uniform(0, 1.5) * _power_law_field(rng, size_px, 2.0)
    for _ in range(rng.integers(1, 9)):
        angle, cycles = rng.uniform(0, np.pi), np.exp(rng.uniform(np.log(2), np.log(30)))
        wave = np.sin(np.pi * cycles * (x * np.cos(angle) + y * np.sin(angle)) + bend)
        wave = np.sign(wave) if rng.random() < 0.3 else wave
        centre, width = rng.uniform(-1, 1, 2), rng.uniform(0.2, 2.0)
        window = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * width**2))
        share = (window * (0.5 + 0.5 * wave) * rng.uniform(0.3, 1.0))[..., None]
        picture = (1 - share) * picture + share * _colour(rng)
    return np.asarray(picture, dtype=np.float32)


def polygons(rng: np.random.Generator, size_px: int) -> Floats:
    """Flat polygons and lines with hard edges on a ramp: rulers, labels, bandages."""
    image = Image.fromarray(_to_uint8(gradient(rng, size_px)))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(3, 30)):
        corners = rng.uniform(0, size_px, 2) + rng.normal(0, rng.uniform(0.03, 0.4) * size_px, (rng.integers(3, 7), 2))
        points = [(float(px), float(py)) for px, py in corners]
        fill = tuple(int(v) for v in _to_uint8(_colour(rng)))
        if rng.random() < 0.25:
            draw.line(points, fill=fill, width=int(rng.integers(1, 6)))
        else:
            draw.polygon(points, fill=fill)
    return np.asarray(np.asarray(image) / 255, dtype=np.float32)


def _leaf(rng: np.random.Generator, y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Inside of a random star-shaped outline in the unit disc: ellipse, polygon or wavy blob."""
    angle, flat = rng.uniform(0, np.pi), rng.uniform(0.35, 1.0)
    along, across = x * np.cos(angle) + y * np.sin(angle), (y * np.cos(angle) - x * np.sin(angle)) / flat
    distance, turn = np.hypot(along, across), np.arctan2(across, along)
    kind = rng.integers(3)
    if kind == 0:
        return np.asarray(distance < 1)
    corners = rng.integers(3, 8)
    if kind == 1:
        sector = 2 * np.pi / corners
        return np.asarray(distance * np.cos(np.mod(turn, sector) - sector / 2) < np.cos(sector / 2))
    return np.asarray(distance < 0.8 + 0.2 * np.sin(corners * turn + rng.uniform(0, 6)))


def _power_law(rng: np.random.Generator, exponent: float, low: float, high: float, count: int) -> list[float]:
    """Draws of density r^-exponent on [low, high], by the inverse of the distribution; exponent not 1."""
    power = 1 - exponent
    return [float(r) for r in (low**power + rng.random(count) * (high**power - low**power)) ** (1 / power)]


def _power_law_field(rng: np.random.Generator, size_px: int, exponent: float) -> Floats:
    """Gaussian field of amplitude spectrum 1/f^exponent, mean 0, standard deviation 1, HW."""
    spectrum = np.fft.rfft2(rng.standard_normal((size_px, size_px)))
    frequency = np.hypot(np.fft.fftfreq(size_px)[:, None], np.fft.rfftfreq(size_px)[None])
    frequency[0, 0] = np.inf
    field = np.fft.irfft2(spectrum / frequency**exponent, s=(size_px, size_px))
    return np.asarray(field / field.std(), dtype=np.float32)


def _lighting(rng: np.random.Generator, size_px: int) -> Floats:
    """A smooth gain about 1, HW1: uneven light and vignetting."""
    y, x = np.mgrid[-1 : 1 : size_px * 1j, -1 : 1 : size_px * 1j]
    slope_y, slope_x, vignette = rng.normal(0, 0.1), rng.normal(0, 0.1), rng.exponential(0.08)
    return np.asarray(1 + slope_y * y + slope_x * x - vignette * (x**2 + y**2), dtype=np.float32)[..., None]


def _mute(rng: np.random.Generator, picture: Floats) -> Floats:
    """Draw saturation and contrast in to what cameras see of the world: mostly greyish, about one mean."""
    grey = picture.mean(-1, keepdims=True)
    muted = grey + rng.uniform(0.2, 1.0) * (picture - grey)
    mean = muted.mean((0, 1))
    return np.asarray(mean + rng.uniform(0.4, 1.0) * (muted - mean), dtype=np.float32)


def _colour(rng: np.random.Generator) -> Floats:
    """RGB in 0..1: three of four are colours of the body with some spread, the others any."""
    if rng.random() < 0.75:
        chosen = BODY_COLOURS[rng.integers(len(BODY_COLOURS))] * rng.normal(1, 0.12) + rng.normal(0, 0.05, 3)
        return np.asarray(chosen, dtype=np.float32).clip(0, 1)
    return rng.random(3, dtype=np.float32)


def _to_uint8(picture: Floats) -> NDArray[np.uint8]:
    return np.asarray(picture.clip(0, 1) * 255 + 0.5, dtype=np.uint8)
