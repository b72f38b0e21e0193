"""Near-duplicates: images of one scene, found by the correlation of their thumbnails."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

THUMBNAIL_PX = 24
# Smallest correlation of thumbnails at which two images are near-duplicates. In 320 photographs of the Foot Ulcer
# Segmentation Challenge, cropped to the wound, different wounds reach 0.894; one wound under two patients 0.91 to 0.94.
DUPLICATE_CORRELATION = 0.91
_BLOCK = 512


def thumbnail(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the thumbnail (3 * THUMBNAIL_PX ** 2,) of a uint8 HWC RGB image, with mean 0 and length 1.

    The normalisation removes brightness and contrast of the light.
    """
    small = Image.fromarray(picture).resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BOX)
    values: NDArray[np.float32] = np.asarray(small, dtype=np.float32)
    values = values - values.mean(axis=(0, 1))
    length = max(float(np.linalg.norm(values)), 1e-6)
    return np.ravel(values / np.float32(length))


def near_duplicate_pairs(
    thumbnails: NDArray[np.float32], *, min_correlation: float = DUPLICATE_CORRELATION
) -> list[tuple[int, int]]:
    """Return index pairs (i < j) of thumbnails (N, d) that correlate by `min_correlation` or more, also mirrored."""
    return [(i, j) for i, j in similar_pairs(thumbnails, thumbnails, min_correlation=min_correlation) if i < j]


def similar_pairs(
    first: NDArray[np.float32], second: NDArray[np.float32], *, min_correlation: float = DUPLICATE_CORRELATION
) -> list[tuple[int, int]]:
    """Return index pairs (i, j) of thumbnails (N, d) and (M, d) that correlate by `min_correlation` or more.

    The mirrored thumbnail of the first is compared, too.
    """
    images = first.reshape(len(first), THUMBNAIL_PX, THUMBNAIL_PX, 3)
    mirrored = images[:, :, ::-1].reshape(len(first), -1)
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(first), _BLOCK):  # in blocks: N x M numbers may not fit into memory
        rows = slice(start, start + _BLOCK)
        correlations = np.maximum(first[rows] @ second.T, mirrored[rows] @ second.T)
        pairs += [(start + int(i), int(j)) for i, j in zip(*np.nonzero(correlations >= min_correlation), strict=True)]
    return pairs


def group_patients(patients: Sequence[str], pairs: Sequence[tuple[int, int]]) -> list[str]:
    """Return the group of each image: patients who are connected by pairs, directly or indirectly, are one group.

    A group has the name of its first patient in sorted order.
    """
    names = sorted(set(patients))
    number = {name: index for index, name in enumerate(names)}
    label = component_labels([(number[patients[i]], number[patients[j]]) for i, j in pairs], len(names))
    first: dict[int, str] = {}
    for name in names:
        first.setdefault(label[number[name]], name)
    return [first[label[number[patient]]] for patient in patients]


def component_labels(edges: Sequence[tuple[int, int]], nodes: int) -> list[int]:
    """Return the connected component of each node 0 .. nodes - 1 of an undirected graph."""
    rows, columns = zip(*edges, strict=True) if edges else ((), ())
    graph = coo_array((np.ones(len(edges)), (rows, columns)), shape=(nodes, nodes))
    return [int(label) for label in connected_components(graph, directed=False)[1]]
