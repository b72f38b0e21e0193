"""Image style of a simulated clinic: camera, light, objects in the image, and skin tones of its patients."""

from __future__ import annotations

from dataclasses import astuple, dataclass

import numpy as np


@dataclass(frozen=True)
class Clinic:
    """Parameters that all images of a clinic share. Probabilities (`p_*`) are per image, in 0 .. 1."""

    warmth_stops: float  # white balance: log2 of red gain over blue gain
    tint_stops: float  # white balance: log2 of green gain
    exposure_stops: float
    contrast: float  # 1 leaves the tone curve as it is
    saturation: float  # 1 leaves colours as they are
    vignette: float  # share of light lost at the corners, 0 .. 1
    light_azimuth_deg: float  # direction of the light; 0 is the right side, 90 the bottom
    light_elevation_deg: float  # 90 is straight above the wound
    light_softness: float  # ambient share of the light, 0 .. 1
    share_mean: float  # share of the image width that the wound fills; 0.25 .. 0.7
    share_spread: float  # half width of the share's uniform distribution
    tone_mean: float  # Fitzpatrick skin type, 1 .. 6
    tone_sd: float
    background_hue: float  # of drape, sheet or floor; 0 .. 1, red at both ends
    background_saturation: float  # 0 .. 1
    background_value: float  # 0 .. 1
    glove_hue: float  # 0 .. 1
    p_background: float
    p_gauze: float
    p_ruler: float
    p_glove: float
    p_blur: float
    noise_sd: float  # sensor noise at 128 px, in shares of full scale

    @classmethod
    def sample(cls, generator: np.random.Generator) -> Clinic:
        """Sample a clinic: each field uniform between `LOWEST` and `HIGHEST`."""
        bounds = zip(astuple(LOWEST), astuple(HIGHEST), strict=True)
        return cls(*(generator.uniform(low, high) for low, high in bounds))


LOWEST = Clinic(
    warmth_stops=-0.35,
    tint_stops=-0.10,
    exposure_stops=-0.45,
    contrast=0.85,
    saturation=0.75,
    vignette=0.0,
    light_azimuth_deg=-180.0,
    light_elevation_deg=35.0,
    light_softness=0.25,
    share_mean=0.32,
    share_spread=0.02,
    tone_mean=1.2,
    tone_sd=0.3,
    background_hue=0.0,
    background_saturation=0.0,
    background_value=0.15,
    glove_hue=0.45,
    p_background=0.1,
    p_gauze=0.0,
    p_ruler=0.0,
    p_glove=0.0,
    p_blur=0.0,
    noise_sd=0.002,
)

HIGHEST = Clinic(
    warmth_stops=0.55,
    tint_stops=0.08,
    exposure_stops=0.35,
    contrast=1.25,
    saturation=1.25,
    vignette=0.45,
    light_azimuth_deg=180.0,
    light_elevation_deg=75.0,
    light_softness=0.75,
    share_mean=0.62,
    share_spread=0.12,
    tone_mean=5.8,
    tone_sd=1.4,
    background_hue=1.0,
    background_saturation=0.7,
    background_value=0.95,
    glove_hue=0.80,
    p_background=0.9,
    p_gauze=0.35,
    p_ruler=0.35,
    p_glove=0.35,
    p_blur=0.4,
    noise_sd=0.022,
)

# The clinic of the built-in demo study: the limb on teal drapes, warm light dark at the corners, skin types IV to V.
# Light and blur are chosen so that its images have the power spectrum of real wound photographs at 128 px.
HOME_CLINIC = Clinic(
    warmth_stops=0.5,
    tint_stops=-0.02,
    exposure_stops=0.05,
    contrast=1.1,
    saturation=1.18,
    vignette=0.45,
    light_azimuth_deg=-130.0,
    light_elevation_deg=60.0,
    light_softness=0.62,
    share_mean=0.42,
    share_spread=0.04,
    tone_mean=4.4,
    tone_sd=0.5,
    background_hue=0.48,
    background_saturation=0.65,
    background_value=0.55,
    glove_hue=0.72,
    p_background=0.9,
    p_gauze=0.03,
    p_ruler=0.03,
    p_glove=0.03,
    p_blur=0.2,
    noise_sd=0.012,
)
