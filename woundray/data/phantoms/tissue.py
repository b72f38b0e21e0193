"""Simulated patient: skin tone, wound outline and tissues, and the surface that is rendered from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from woundray.data.phantoms.noise_fields import Field, fractal_noise, lattice_noise, step

_TILE_PX, _TILE_RADII = 128, 4.0  # the patient's texture repeats after 4 wound radii
_ANGLES = np.linspace(-np.pi, np.pi, 721)

# sRGB colours of skin, Fitzpatrick types I to VI
FITZPATRICK_RGB = np.array(
    [
        (0.93, 0.77, 0.70),
        (0.89, 0.70, 0.60),
        (0.80, 0.60, 0.47),
        (0.66, 0.46, 0.34),
        (0.47, 0.31, 0.23),
        (0.29, 0.19, 0.15),
    ]
)

# Tissues: slough, necrosis, granulation, epithelium. Two sRGB colours each, the tissue varies between them.
_TISSUE_RGB = np.array(
    [
        [(0.87, 0.77, 0.46), (0.62, 0.50, 0.24)],
        [(0.09, 0.07, 0.07), (0.27, 0.18, 0.11)],
        [(0.80, 0.20, 0.19), (0.47, 0.05, 0.07)],
        [(0.91, 0.60, 0.57), (0.78, 0.41, 0.41)],
    ]
)
_TISSUE_GLOSS = np.array([0.8, 0.35, 1.0, 0.25])

# Dirichlet concentrations of the tissues' shares by phase
_TISSUE_SHARES = {"I": (5.0, 4.0, 1.6, 0.05), "P": (0.8, 0.1, 12.0, 0.8), "R": (0.3, 0.08, 0.7, 10.0)}


def linear(srgb: NDArray[np.float64]) -> Field:
    """Convert sRGB 0 .. 1 to linear light by a gamma of 2.2."""
    return np.asarray(np.clip(srgb, 0, 1) ** 2.2, dtype=np.float32)


@dataclass(frozen=True)
class Patient:
    """Skin and wound of a patient; lengths in mean wound radii, amounts in 0 .. 1."""

    skin: Field  # (3,) linear RGB
    tone: float  # Fitzpatrick skin type, 1 .. 6
    log_radius: NDArray[np.float64]  # outline: log of the radius at each of `_ANGLES`
    axis: float  # direction of the limb, radians
    texture: Field  # (_TILE_PX, _TILE_PX, 8), periodic noise of the patient
    size: float  # of the wound, relative to the clinic's usual share of the image
    shares: NDArray[np.float64]  # (4,) of slough, necrosis, granulation, epithelium
    erythema: float
    maceration: float
    callus: float
    stain: float  # brown haemosiderin around the wound
    scale: float  # dry flakes
    scarring: float
    depth: float

    @classmethod
    def sample(cls, generator: np.random.Generator, phase: str, tone_mean: float, tone_sd: float) -> Patient:
        """Sample a patient of a clinic with these skin tones; skin and outline do not depend on the phase."""
        tone = float(np.clip(generator.normal(tone_mean, tone_sd), 1, 6))
        base = np.array([np.interp(tone, np.arange(1, 7), FITZPATRICK_RGB[:, c]) for c in range(3)])
        base *= 1 + generator.normal(0, (0.02, 0.025, 0.035))
        # A random closed outline: harmonics that fall with their order, over an ellipse
        order = np.arange(2, 19)[:, None]
        amplitude = generator.normal(0, 0.36, (17, 1)) / order**1.5
        harmonics = (amplitude * np.cos(order * _ANGLES + generator.uniform(0, 2 * np.pi, (17, 1)))).sum(0)
        aspect, tilt = generator.uniform(1.0, 1.55), generator.uniform(0, np.pi)
        ellipse = np.hypot(np.cos(_ANGLES - tilt) / aspect, np.sin(_ANGLES - tilt) * aspect)
        axis, size = generator.uniform(0, np.pi), generator.uniform(0.9, 1.12)
        coarse = fractal_noise(generator, _TILE_PX, (3, 6, 12, 24, 48), 0.62, count=6)
        fine = fractal_noise(generator, _TILE_PX, (18, 36, 60), 0.7, count=2)
        # Parameters that depend on the phase
        shares = generator.dirichlet(_TISSUE_SHARES[phase])
        largest = {"I": (1.0, 0.7, 0.5), "P": (0.55, 0.8, 0.9), "R": (0.35, 0.35, 0.7)}[phase]
        erythema, maceration, callus = generator.uniform((0.35 * largest[0], 0, 0), largest)
        deepest = {"I": 0.30, "P": 0.22, "R": 0.04}[phase]
        return cls(
            skin=linear(base),
            tone=tone,
            log_radius=harmonics - np.log(ellipse),
            axis=float(axis),
            texture=np.moveaxis(np.concatenate([coarse, fine]), 0, -1).copy(),
            size=float(size * (0.85 if phase == "R" else 1.0)),
            shares=shares,
            erythema=float(erythema),
            maceration=float(maceration),
            callus=float(callus),
            stain=float(generator.uniform(0, 0.8) * (generator.random() < 0.4)),
            scale=float(generator.uniform(0, 1)),
            scarring=float(generator.uniform(0.5, 1)) if phase == "R" else 0.0,
            depth=float(generator.uniform(0.4, 1)) * deepest,
        )

    def outline(self) -> NDArray[np.float64]:
        """Return points (2, 721) of the wound's edge: x and y in mean wound radii."""
        points: NDArray[np.float64] = np.exp(self.log_radius) * np.stack([np.cos(_ANGLES), np.sin(_ANGLES)])
        return points

    def texture_at(self, x: Field, y: Field) -> Field:
        """Return the patient's noises (8, H, W) at wound coordinates (H, W), bilinear and periodic."""
        column = (x * (_TILE_PX / _TILE_RADII)).ravel()
        row = (y * (_TILE_PX / _TILE_RADII)).ravel()
        left, top = np.floor(column), np.floor(row)
        right_share, bottom_share = (column - left)[:, None], (row - top)[:, None]
        j0, i0 = left.astype(np.int64) % _TILE_PX, top.astype(np.int64) % _TILE_PX
        j1, i1 = (j0 + 1) % _TILE_PX, (i0 + 1) % _TILE_PX
        tile = self.texture.reshape(-1, self.texture.shape[-1])
        upper = tile[i0 * _TILE_PX + j0]
        upper += (tile[i0 * _TILE_PX + j1] - upper) * right_share
        lower = tile[i1 * _TILE_PX + j0]
        lower += (tile[i1 * _TILE_PX + j1] - lower) * right_share
        upper += (lower - upper) * bottom_share
        return np.ascontiguousarray(upper.T).reshape(-1, *x.shape)


@dataclass
class Surface:
    """Surface of skin, wound and objects in an image of H x W pixels; lengths in half image widths."""

    albedo: Field  # (3, H, W), linear RGB 0 .. 1
    height: Field  # (H, W)
    gloss: Field  # (H, W), 0 dry .. 1 wet
    light: Field  # (H, W), share of the light that is not shadowed

    def cover(self, mask: Field, albedo: Field, height: Field, gloss: float) -> None:
        """Cover the surface with an object where `mask` (H, W) is 1."""
        self.albedo += (albedo - self.albedo) * mask
        self.height += (height - self.height) * mask
        self.gloss += (np.float32(gloss) - self.gloss) * mask
        self.light += (1 - self.light) * mask


def skin_and_wound(patient: Patient, generator: np.random.Generator, x: Field, y: Field, radius: float) -> Surface:
    """Return the patient's surface at wound coordinates `x`, `y` (H, W).

    Fine skin texture depends on `generator`, all else on the patient.

    Args:
        radius: mean wound radius, half image widths.
    """
    size_px = x.shape[0]
    noise = patient.texture_at(x, y)
    angle = np.arctan2(y, x)
    outline = np.exp(np.interp(angle, _ANGLES, patient.log_radius)).astype(np.float32)
    slope = np.gradient(patient.log_radius, _ANGLES)
    steepness = np.interp(angle, _ANGLES, np.sqrt(1 + slope**2)).astype(np.float32)
    distance = (np.hypot(x, y) - outline) / steepness + 0.025 * noise[6]  # < 0 inside the wound

    surface = _skin(patient, generator, noise, distance, size_px)
    _surroundings(patient, noise, distance, angle, surface)
    _bed(patient, noise, distance, surface)
    surface.height *= np.float32(radius)
    return surface


def _skin(patient: Patient, generator: np.random.Generator, noise: Field, distance: Field, size_px: int) -> Surface:
    """Return healthy skin with mottling, pores, creases and redness around the wound."""
    pores = fractal_noise(generator, size_px, (40, 80), 0.8)[0]
    creases = lattice_noise(generator, size_px, 9, 34)[0] + lattice_noise(generator, size_px, 30, 7)[0]
    creases = np.exp(-((creases / 0.35) ** 2))
    halo = patient.erythema * np.exp(-np.clip(distance, 0, None) / 0.5) * (0.95 + 0.25 * noise[4])
    redness = np.clip(halo + 0.10 * noise[5], -0.3, 1)
    brown = np.clip(patient.stain * step(1.3, 0.1, distance) * (0.5 + 0.5 * noise[3]), 0, 1)
    brightness = 1 + 0.10 * noise[5] + 0.05 * noise[4] + 0.035 * pores - 0.05 * creases
    albedo = np.stack(
        [
            patient.skin[0] * brightness * (1 - 0.05 * redness) * (1 - 0.45 * brown),
            patient.skin[1] * brightness * (1 - 0.55 * redness) * (1 - 0.62 * brown),
            patient.skin[2] * brightness * (1 - 0.48 * redness) * (1 - 0.72 * brown),
        ]
    )
    height = 0.005 * pores - 0.007 * creases + 0.022 * noise[5]
    gloss = np.full_like(height, 0.10)
    return Surface(albedo, height, gloss, np.ones_like(height))


def _surroundings(patient: Patient, noise: Field, distance: Field, angle: Field, surface: Surface) -> None:
    """Add callus, macerated rim, dry flakes, and creases of a contracting scar."""
    rim = np.exp(-(((distance - 0.13) / 0.13) ** 2))
    pale = np.array([0.80, 0.70, 0.47], dtype=np.float32)[:, None, None]  # yellow horn, linear RGB
    callus = patient.callus * step(0.55, 0.05, distance + 0.12 * noise[5]) * 0.55
    lightened = (0.35 + 0.65 * surface.albedo.mean(axis=0)) * pale
    surface.albedo += (lightened - surface.albedo) * callus
    surface.height += 0.10 * patient.callus * rim
    # Maceration: soaked white skin next to the wound, in patches
    white = np.array([0.86, 0.80, 0.70], dtype=np.float32)[:, None, None]
    soaked = patient.maceration * step(0.26, 0.04, distance + 0.09 * noise[4]) * step(-1.2, 0.6, noise[3])
    surface.albedo += (white - surface.albedo) * (0.85 * soaked)
    surface.gloss += 0.35 * soaked
    # Dry flakes
    flakes = patient.scale * step(1.9, 3.2, noise[7] + 0.7 * noise[4]) * 0.45
    surface.albedo += (white - surface.albedo) * flakes
    surface.height += 0.02 * flakes
    # Creases towards a contracting scar
    rays = np.cos(13 * angle + 1.6 * noise[5]) * 0.5 + 0.5
    lines = patient.scarring * rays**6 * np.exp(-np.abs(distance) / 0.4) * step(0.0, 0.3, distance + 0.35)
    surface.height -= 0.035 * lines
    surface.albedo *= 1 - 0.16 * lines


def _bed(patient: Patient, noise: Field, distance: Field, surface: Surface) -> None:
    """Add the wound bed: four tissues mixed by noise, with depth, texture and gloss."""
    inside = step(0.02, -0.06, distance)
    deep = step(0.0, -0.35, distance)
    # Weight of each tissue at a pixel: its share, its noise, and its typical distance from the edge
    depth_bias = np.array([0.2, 1.2, -0.3, -1.2], dtype=np.float32)[:, None, None] * (deep - 0.5)
    weight = np.log(patient.shares + 1e-3).astype(np.float32)[:, None, None] + 0.9 * noise[:4] + depth_bias
    weight = np.exp(3.0 * (weight - weight.max(axis=0)))
    weight /= weight.sum(axis=0)
    # Colour of each tissue varies at several scales; new epithelium has some of the patient's skin tone
    variation = np.clip(0.45 + 0.24 * noise[4] + 0.16 * noise[7] + 0.16 * noise[5], 0, 1)
    colours = linear(_TISSUE_RGB)  # tissue, end, RGB
    colours[3] = 0.72 * colours[3] + 0.28 * patient.skin
    first = np.tensordot(colours[:, 0], weight, axes=(0, 0))
    second = np.tensordot(colours[:, 1], weight, axes=(0, 0))
    bed = first + (second - first) * variation
    surface.albedo += (bed - surface.albedo) * inside
    # A dark undercut line where a deep bed meets its rim
    undercut = np.exp(-(((distance + 0.035) / 0.035) ** 2)) * min(1.0, 4 * patient.depth)
    surface.albedo *= 1 - 0.5 * undercut * (0.6 + 0.4 * np.tanh(noise[5]))
    # Granulation is cobbled, slough stringy, necrosis leathery, epithelium smooth
    cobbles = np.abs(noise[7]) * (0.032 * weight[2] + 0.022 * weight[0] + 0.014 * weight[1])
    surface.height -= patient.depth * step(0.02, -0.22, distance)
    surface.height += (cobbles + 0.022 * noise[6] * (1 - weight[3])) * inside
    wet = np.tensordot(_TISSUE_GLOSS.astype(np.float32), weight, axes=(0, 0))
    surface.gloss += (wet - surface.gloss) * inside
