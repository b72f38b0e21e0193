"""Rules of the image filter: simple checks of pixels, and how the metrics of an image decide."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from woundray.config import FilteringConfig, HeuristicsConfig
from woundray.metrics.extractors import check_images
from woundray.metrics.threshold import Threshold

Passes = NDArray[np.bool_]
Values = NDArray[np.float64]

BLACK, WHITE = 0.05, 0.95  # of full brightness


def heuristics(images: Tensor, config: HeuristicsConfig) -> dict[str, Passes]:
    """Run simple checks on uint8 (N, 3, H, W): name of each enabled check -> (N,), True where an image passes."""
    check_images(images)
    values = images.float() / 255
    brightness = values.mean(dim=1).flatten(1)  # N x pixels
    highest = values.amax(dim=1)
    saturation = ((highest - values.amin(dim=1)) / highest.clamp(min=1e-6)).flatten(1)
    mean = brightness.mean(dim=1)
    found = {}
    blank, light, flat = config.check_blank_images, config.check_brightness, config.check_saturation
    if blank.enabled:
        black, white = ((part.float().mean(dim=1)) for part in (brightness < BLACK, brightness > WHITE))
        found["blank"] = (black <= blank.max_black_ratio) & (white <= blank.max_white_ratio)
    if light.enabled:
        found["brightness"] = (mean >= light.min_mean_brightness) & (mean <= light.max_mean_brightness)
    if flat.enabled:
        found["flat"] = saturation.std(dim=1) >= flat.min_std_saturation
    return {name: passes.cpu().numpy() for name, passes in found.items()}


def within_threshold(threshold: Threshold | None, values: Values) -> Passes:
    """Return (N,), True where a value meets the threshold; without a threshold True everywhere."""
    return np.array([threshold is None or threshold.holds(value) for value in values], dtype=bool)


def passes_filter(
    metrics: Mapping[str, Passes], simple: Mapping[str, Passes], config: FilteringConfig, n: int
) -> Passes:
    """Return (N,), True for images that pass every simple check and as many metrics as `config.strategy` requires.

    A metric of `config.metrics` that was not computed (LPIPS without weights) is not counted.
    """
    if not config.enabled:
        return np.ones(n, dtype=bool)
    computed = [metrics[name] for name in config.metrics if name in metrics]
    passed = np.sum(computed, axis=0) if computed else np.zeros(n, dtype=int)
    count = len(computed)
    required = {"all": count, "any": min(1, count), "min_passing": min(config.min_passing_metrics, count)}
    return np.asarray(
        (passed >= required[config.strategy]) & np.all([np.ones(n, dtype=bool), *simple.values()], axis=0)
    )
