"""Which pictures are good enough to be used, each judged alone."""

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


def heuristics(pictures: Tensor, config: HeuristicsConfig) -> dict[str, Passes]:
    """Simple checks of uint8 (N, 3, H, W): name of each enabled check -> (N,), True where a picture passes."""
    check_images(pictures)
    values = pictures.float() / 255
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


def hold(threshold: Threshold | None, values: Values) -> Passes:
    """(N,), True where a value is on the right side of the threshold; without a threshold everywhere."""
    return np.array([threshold is None or threshold.holds(value) for value in values], dtype=bool)


def usable(metrics: Mapping[str, Passes], simple: Mapping[str, Passes], config: FilteringConfig, n: int) -> Passes:
    """(N,), True for pictures that pass every simple check, and of the configured metrics as many as are asked for.

    A metric that was not taken (LPIPS without weights) is left out of the count.
    """
    if not config.enabled:
        return np.ones(n, dtype=bool)
    taken = [metrics[name] for name in config.metrics if name in metrics]
    passed = np.sum(taken, axis=0) if taken else np.zeros(n, dtype=int)
    wanted = {"all": len(taken), "any": min(1, len(taken)), "min_passing": min(config.min_passing_metrics, len(taken))}
    return np.asarray((passed >= wanted[config.strategy]) & np.all([np.ones(n, dtype=bool), *simple.values()], axis=0))
