"""Smooth random fields that do not depend on the resolution."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]

_SUBSAMPLES = 4  # positions per pixel and side that are averaged
_LATTICE_SD = 0.479  # sd of a bicubic B-spline surface over white noise of sd 1


@lru_cache(maxsize=256)
def _spline_weights(size_px: int, cells: int) -> Field:
    """Return weights (size_px, cells) of periodic cubic B-splines, averaged over the area of each pixel."""
    position = (np.arange(size_px * _SUBSAMPLES) + 0.5) / (size_px * _SUBSAMPLES) * cells
    distance = np.abs(position[:, None] - np.arange(cells)[None, :])
    distance = np.minimum(distance, cells - distance)
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    weights = np.where(distance < 1, near, far)
    pixels: Field = weights.reshape(size_px, _SUBSAMPLES, cells).mean(axis=1).astype(np.float32)
    return pixels


def lattice_noise(generator: np.random.Generator, size_px: int, rows: int, columns: int, count: int = 1) -> Field:
    """Sample periodic fields (count, size_px, size_px) of about mean 0 and sd 1, with `rows` x `columns` bumps.

    The same generator state gives the same fields at every `size_px`, averaged over the pixels.
    """
    lattice = generator.standard_normal((count, rows, columns), dtype=np.float32)
    surface = _spline_weights(size_px, rows) @ lattice @ _spline_weights(size_px, columns).T
    return np.asarray(surface / _LATTICE_SD, dtype=np.float32)


def fractal_noise(
    generator: np.random.Generator, size_px: int, cells: tuple[int, ...], gain: float = 0.6, count: int = 1
) -> Field:
    """Return the sum of lattice noises of `cells` bumps per side, each octave `gain` times the last; sd about 1."""
    field = np.zeros((count, size_px, size_px), dtype=np.float32)
    for octave, bumps in enumerate(cells):
        field += gain**octave * lattice_noise(generator, size_px, bumps, bumps, count)
    power = sum(gain ** (2 * octave) for octave in range(len(cells)))
    return np.asarray(field / np.sqrt(power), dtype=np.float32)


def step(start: float, end: float, value: Field) -> Field:
    """Return the smoothstep of `value`: 0 at `start`, 1 at `end` (`end` may be below `start`)."""
    share = np.clip((value - np.float32(start)) / np.float32(end - start), 0, 1)
    return np.asarray(share * share * (3 - 2 * share), dtype=np.float32)
