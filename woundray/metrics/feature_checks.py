"""Validation of feature matrices: finite, one row an image."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from woundray.errors import UserError

Matrix = NDArray[np.float64]
Rows = NDArray[np.int64]  # row indices


def feature_matrix(features: ArrayLike, what: str, *, at_least: int = 2) -> Matrix:
    """Return `features` (N, d) as float64.

    Raises UserError, which begins with `what`, where they are no matrix, have fewer than `at_least` rows, or hold a
    value that is not finite.
    """
    matrix = np.asarray(features, dtype=np.float64)
    if matrix.ndim != 2:
        raise UserError(f"{what}: features have shape {matrix.shape}; give one row a picture, (N, d)")
    if len(matrix) < at_least:
        raise UserError(f"{what}: {len(matrix)} pictures; give at least {at_least}")
    broken = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
    if len(broken):
        raise UserError(
            f"{what}: features of {len(broken)} pictures are not finite (first: row {broken[0]}); "
            "leave these pictures out or look for NaN in what made them"
        )
    return matrix


def same_width(x: Matrix, y: Matrix) -> None:
    """Raise UserError unless two feature matrices have equally many columns."""
    if x.shape[1] != y.shape[1]:
        raise UserError(f"features have {x.shape[1]} and {y.shape[1]} columns; take both from the same extractor")
