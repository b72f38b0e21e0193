"""Near-duplicates: pictures of one scene, whatever their patients are called."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

THUMBNAIL_PX = 24
# Correlation of thumbnails from which two pictures count as one scene. In 320 photographs of the Foot Ulcer
# Segmentation Challenge, cut to the wound, different wounds reach 0.894; one wound taken for two patients 0.91 to 0.94.
DUPLICATE_CORRELATION = 0.91
_BLOCK = 512


def thumbnail(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 HWC RGB -> (3 * THUMBNAIL_PX ** 2,) of mean 0 and length 1; the light's level and contrast cancel."""
    small = Image.fromarray(picture).resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BOX)
    values: NDArray[np.float32] = np.asarray(small, dtype=np.float32)
    values = values - values.mean(axis=(0, 1))
    length = max(float(np.linalg.norm(values)), 1e-6)
    return np.ravel(values / np.float32(length))


def near_duplicate_pairs(
    thumbnails: NDArray[np.float32], *, duplicate_correlation: float = DUPLICATE_CORRELATION
) -> list[tuple[int, int]]:
    """Index pairs (i < j) of thumbnails (N, d) that correlate by `duplicate_correlation` or more, as they are or mirrored."""
    return [
        (i, j) for i, j in similar_pairs(thumbnails, thumbnails, duplicate_correlation=duplicate_correlation) if i < j
    ]


def similar_pairs(
    first: NDArray[np.float32], second: NDArray[np.float32], *, duplicate_correlation: float = DUPLICATE_CORRELATION
) -> list[tuple[int, int]]:
    """Index pairs (i, j) of thumbnails (N, d) and (M, d) that correlate by `duplicate_correlation` or more, also mirrored."""
    side = first.reshape(len(first), THUMBNAIL_PX, THUMBNAIL_PX, 3)
    mirrored = side[:, :, ::-1].reshape(len(first), -1)
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(first), _BLOCK):  # a block at a time: N x M numbers may not fit into memory
        rows = slice(start, start + _BLOCK)
        correlations = np.maximum(first[rows] @ second.T, mirrored[rows] @ second.T)
        pairs += [
            (start + int(i), int(j)) for i, j in zip(*np.nonzero(correlations >= duplicate_correlation), strict=True)
        ]
    return pairs


def group_patients(patients: Sequence[str], pairs: Sequence[tuple[int, int]]) -> list[str]:
    """The group of each picture: patients whom a pair joins, directly or through others, are one group.

    It is named by its first patient in sorted order.
    """
    names = sorted(set(patients))
    number = {name: index for index, name in enumerate(names)}
    rows = [number[patients[i]] for i, _ in pairs]
    columns = [number[patients[j]] for _, j in pairs]
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(len(names), len(names)))
    _, label = connected_components(graph, directed=False)
    first: dict[int, str] = {}
    for name in names:
        first.setdefault(int(label[number[name]]), name)
    return [first[int(label[number[patient]])] for patient in patients]
