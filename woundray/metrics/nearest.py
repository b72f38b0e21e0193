"""Most similar real image of each generated image."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from woundray.metrics.feature_checks import Matrix


@dataclass(frozen=True)
class Nearest:
    """Of each generated picture its most similar real one: `index` (N,), and how similar or far: `value` (N,)."""

    index: NDArray[np.int64]
    value: Matrix


def nearest(pairs: Matrix, *, highest: bool) -> Nearest:
    """Most similar column of each row of `pairs` (N, M): the highest of a similarity, the lowest of a distance."""
    index = pairs.argmax(axis=1) if highest else pairs.argmin(axis=1)
    return Nearest(index, np.take_along_axis(pairs, index[:, None], axis=1)[:, 0])
