"""Background, objects, light and camera model of a drawn wound photograph."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from woundray.data.phantoms.clinic import Clinic
from woundray.data.phantoms.noise_fields import Field, fractal_noise, lattice_noise, step
from woundray.data.phantoms.tissue import Surface, linear


@dataclass(frozen=True)
class Limb:
    """Position of the limb in the image."""

    axis: float  # direction of the limb, radians
    reach: float  # largest distance of the wound's edge from its centre, half image widths


@dataclass(frozen=True)
class Frame:
    """Pixel coordinates and light direction of one image."""

    x: Field  # (H, W), half image widths from the centre, to the right
    y: Field  # (H, W), downwards
    light: Field  # (3,), unit vector towards the light: x right, y down, z to the camera


def _hsv(hue: float, saturation: float, value: float) -> Field:
    """Return the linear RGB (3, 1, 1) of a hue, saturation and value in 0 .. 1."""
    saturation, value = float(np.clip(saturation, 0, 1)), float(np.clip(value, 0, 1))
    return linear(np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value)))[:, None, None]


def light_direction(clinic: Clinic, generator: np.random.Generator) -> Field:
    """Sample the unit vector (3,) towards the light of one image, as in `Frame`."""
    azimuth = np.deg2rad(clinic.light_azimuth_deg + generator.normal(0, 18))
    elevation = np.deg2rad(np.clip(clinic.light_elevation_deg + generator.normal(0, 6), 25, 85))
    return np.array(
        [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)],
        dtype=np.float32,
    )


def add_limb(surface: Surface, clinic: Clinic, generator: np.random.Generator, frame: Frame, limb: Limb) -> None:
    """Curve the skin around a limb, and add cloth behind it."""
    x, y, light, axis, reach = frame.x, frame.y, frame.light, limb.axis, limb.reach
    size_px = x.shape[0]
    in_sight = generator.random() < clinic.p_background
    half_width = generator.uniform(reach + 0.16, reach + 0.55) if in_sight else generator.uniform(2.0, 3.2)
    offset = generator.uniform(-1, 1) * max(half_width - reach - 0.08, 0) * (0.9 if in_sight else 0.4)
    end = generator.uniform(0.1, 1.2) if in_sight else 3.0
    wobble = 0.05 * lattice_noise(generator, size_px, 4, 4)[0]
    folds = fractal_noise(generator, size_px, (3, 6), 0.5)[0] + 0.6 * lattice_noise(generator, size_px, 3, 8)[0]
    weave = fractal_noise(generator, size_px, (48, 96), 0.8)[0]
    hue, saturation, value = generator.normal(0, (0.015, 0.05, 0.07))

    def edge_share(x: Field, y: Field) -> Field:  # 0 on the limb's axis, 1 at its edge
        along = np.cos(axis) * x + np.sin(axis) * y
        across = -np.sin(axis) * x + np.cos(axis) * y - offset + wobble
        beyond = np.clip(along - end + half_width * 0.6, 0, None)
        share: Field = np.hypot(across, beyond) / np.float32(half_width)
        return share

    share = edge_share(x, y)
    roundness = np.sqrt(np.clip(1 - share**2, 0.01, 1))
    surface.height += np.float32(half_width * 0.55) * roundness
    surface.light *= 1 - 0.25 * step(0.75, 1.0, share)  # skin at the edge faces away from the camera
    if not in_sight:
        return
    cloth = _hsv(
        clinic.background_hue + hue,
        clinic.background_saturation + saturation,
        0.05 + value + clinic.background_value,
    )
    cloth = cloth * (1 + 0.10 * np.abs(folds) + 0.05 * weave)
    behind = step(0.99, 0.99 + 0.03 / half_width, share)
    surface.cover(behind, cloth, 0.09 * np.abs(folds) + 0.004 * weave, 0.03)
    # Soft shadow of the limb on the cloth, and contact shadow
    shadow = step(1.45, 0.85, edge_share(x + 0.22 * light[0], y + 0.22 * light[1]))
    surface.light *= 1 - 0.6 * behind * np.maximum(shadow, step(1.25, 1.0, share))


def add_gauze(surface: Surface, generator: np.random.Generator, frame: Frame) -> None:
    """Add a gauze compress in a corner of the image."""
    x, y, light = frame.x, frame.y, frame.light
    size_px = x.shape[0]
    turn = np.pi / 4 + np.pi / 2 * generator.integers(4) + generator.normal(0, 0.25)
    edge = generator.uniform(0.92, 1.1) + 0.035 * fractal_noise(generator, size_px, (6, 12, 24), 0.6)[0]
    crumple = fractal_noise(generator, size_px, (5, 10, 20), 0.6)[0]

    def depth(x: Field, y: Field) -> Field:
        inward: Field = np.cos(turn) * x + np.sin(turn) * y - edge
        return inward

    surface.light *= 1 - 0.45 * step(-0.08, 0.06, depth(x + 0.10 * light[0], y + 0.10 * light[1]))
    weave = np.sin(70 * (x + 0.3 * y)) * np.sin(70 * (y - 0.3 * x))
    white = np.array([0.82, 0.80, 0.75], dtype=np.float32)[:, None, None] * (1 + 0.10 * weave + 0.05 * crumple)
    surface.cover(step(0.0, 0.03, depth(x, y)), white, surface.height + 0.05 + 0.03 * crumple, 0.02)


def add_ruler(surface: Surface, generator: np.random.Generator, frame: Frame) -> None:
    """Add a paper ruler with ticks along one side of the image."""
    x, y, light = frame.x, frame.y, frame.light
    turn = np.pi / 2 * generator.integers(4) + generator.normal(0, 0.05)
    start, pitch = generator.uniform(0.76, 0.84), generator.uniform(0.055, 0.09)
    along = -np.sin(turn) * x + np.cos(turn) * y + generator.uniform(0, 1)

    def depth(x: Field, y: Field) -> Field:
        inward: Field = np.cos(turn) * x + np.sin(turn) * y - np.float32(start)
        return inward

    inward = depth(x, y)
    tick = np.abs(along / pitch - np.round(along / pitch)) * pitch
    fifth = np.abs(np.round(along / pitch) % 5) < 0.5
    length = np.where(fifth, 0.13, 0.07).astype(np.float32)
    ink = step(0.014, 0.006, tick) * (inward < length)
    surface.light *= 1 - 0.4 * step(-0.05, 0.03, depth(x + 0.06 * light[0], y + 0.06 * light[1]))
    paper = np.array([0.84, 0.83, 0.78], dtype=np.float32)[:, None, None] * (1 - 0.9 * ink)
    surface.cover(step(0.0, 0.015, inward), paper, np.full_like(x, float(surface.height.mean())), 0.10)


def add_finger(surface: Surface, clinic: Clinic, generator: np.random.Generator, frame: Frame) -> None:
    """Add a gloved fingertip that reaches into the image."""
    x, y, light = frame.x, frame.y, frame.light
    turn = np.pi / 4 + np.pi / 2 * generator.integers(4) + generator.normal(0, 0.2)
    tip, width, side = generator.uniform(0.95, 1.1), generator.uniform(0.20, 0.28), generator.normal(0, 0.1)
    wrinkles = lattice_noise(generator, x.shape[0], 14, 14)[0]

    def from_bone(x: Field, y: Field) -> Field:  # 0 on the finger's axis, 1 at its edge
        along = np.cos(turn) * x + np.sin(turn) * y - tip - width
        across = -np.sin(turn) * x + np.cos(turn) * y - side
        share: Field = np.hypot(across, np.minimum(along, 0)) / np.float32(width)
        return share

    share = from_bone(x, y)
    surface.light *= 1 - 0.55 * step(1.35, 0.8, from_bone(x + 0.14 * light[0], y + 0.14 * light[1]))
    rubber = _hsv(clinic.glove_hue + generator.normal(0, 0.01), 0.6, 0.62) * (1 + 0.06 * wrinkles)
    bulge = np.float32(width) * np.sqrt(np.clip(1 - share**2, 0.02, 1))
    surface.cover(step(1.0, 0.93, share), rubber, bulge + 0.008 * wrinkles, 0.35)


def shade(surface: Surface, light: Field, softness: float) -> Field:
    """Shade the surface: light towards the camera (3, H, W) with diffuse part, occlusion and highlights."""
    size_px = surface.height.shape[0]
    slope_y, slope_x = np.gradient(surface.height, np.float32(2 / size_px))
    length = np.sqrt(1 + slope_x**2 + slope_y**2)
    facing = (light[2] - slope_x * light[0] - slope_y * light[1]) / length
    diffuse = softness + (1 - softness) * np.clip(facing, 0, None) / light[2]
    blurred = ndimage.gaussian_filter(surface.height, 0.035 * size_px, truncate=2.0)
    occlusion = np.clip(1 + 3.0 * (surface.height - blurred), 0.55, 1.08)
    half = light + np.array([0, 0, 1], dtype=np.float32)
    half /= np.linalg.norm(half)
    glint = np.clip((half[2] - slope_x * half[0] - slope_y * half[1]) / length, 0, 1)
    highlight = surface.gloss * (0.50 * glint**70 + 0.05 * glint**8) * surface.light
    return np.asarray(surface.albedo * (diffuse * occlusion * surface.light) + highlight, dtype=np.float32)


def photograph(scene: Field, clinic: Clinic, generator: np.random.Generator, frame: Frame) -> Field:
    """Convert linear light (3, H, W) to sRGB (3, H, W) in 0 .. 1 by the camera of the clinic."""
    size_px = scene.shape[1]
    # Exposure, white balance and vignette
    stops = clinic.exposure_stops + generator.normal(0, 0.12)
    warmth = clinic.warmth_stops + generator.normal(0, 0.04)
    gains = np.exp2(stops + np.array([warmth / 2, clinic.tint_stops, -warmth / 2])).astype(np.float32)
    gains = gains[:, None, None] * (1 - np.float32(clinic.vignette / 2) * (frame.x**2 + frame.y**2))
    # Lens: sometimes out of focus or moved
    blurred, sigma = generator.random() < clinic.p_blur, generator.uniform(0.008, 0.022)
    sigma = float(sigma) if blurred else 0.003
    picture = ndimage.gaussian_filter(scene * gains, (0, sigma * size_px, sigma * size_px), truncate=2.5)
    picture = np.clip(picture, 0, None) ** np.float32(1 / 2.2)
    picture = picture / (1 + np.clip(picture - 0.8, 0, None))  # highlights roll off instead of clipping
    # Tone curve and colour; chroma is softer than brightness, as after JPEG
    grey = np.tensordot(np.array([0.299, 0.587, 0.114], dtype=np.float32), picture, axes=(0, 0))
    chroma = ndimage.uniform_filter(picture - grey, (0, max(1, size_px // 64), max(1, size_px // 64)))
    grey = 0.5 + (grey - 0.5) * np.float32(clinic.contrast)
    picture = grey + chroma * np.float32(clinic.saturation)
    # Sensor noise for 128 px: smaller pixels are noisier
    noise_sd = clinic.noise_sd * size_px / 128
    noise = generator.standard_normal(picture.shape, dtype=np.float32)
    return np.asarray(np.clip(picture + np.float32(noise_sd) * noise, 0, 1), dtype=np.float32)
