"""Nearest real image of each generated image, from a matrix of all pairs."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from woundray.metrics.feature_checks import Matrix


@dataclass(frozen=True)
class Nearest:
    """Most similar real image of each generated one: its `index` (N,) and the similarity or distance `value` (N,)."""

    index: NDArray[np.int64]
    value: Matrix


def nearest(pairs: Matrix, *, highest: bool) -> Nearest:
    """Return the best column of each row of `pairs` (N, M): the highest similarity, or the lowest distance."""
    index = pairs.argmax(axis=1) if highest else pairs.argmin(axis=1)
    return Nearest(index, np.take_along_axis(pairs, index[:, None], axis=1)[:, 0])
