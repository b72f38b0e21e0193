"""Pictures + reference -> scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from woundray.metrics.bars import Floor, real_floor, z
from woundray.metrics.features import Extractor, frechet_name
from woundray.metrics.frechet import frechet_distance


@dataclass(frozen=True)
class Reference:
    """What generated pictures are held against: features (M, d) of held-out patients' photographs, and the floor."""

    features: NDArray[np.float32]
    floor: Floor


def make_reference(
    held_out: Tensor,
    everything: Tensor,
    patients: Sequence[str],
    extractor: Extractor,
    *,
    n: int,
    repeats: int,
    seed: int,
) -> Reference:
    """Features of the held-out pictures, and the real-against-real floor at n pictures a side.

    held_out: uint8 (M, 3, H, W); everything: uint8 (N, 3, H, W), all real pictures of the phase, from which two sides
    without a common patient are dealt `repeats` times; patients: the patient (or group) of each of these.
    """
    floor = real_floor(
        extractor(everything).numpy(), patients, n=n, repeats=repeats, seed=seed, distance=frechet_distance
    )
    return Reference(extractor(held_out).numpy(), floor)


def score(pictures: Tensor, reference: Reference, extractor: Extractor) -> dict[str, float]:
    """Scores of generated pictures, uint8 (N, 3, H, W): the Frechet distance and its z over the floor."""
    name = frechet_name(extractor)
    value = frechet_distance(extractor(pictures).numpy(), reference.features)
    return {name: value, f"{name}_z": z(value, reference.floor)}


def best_epoch(history: Sequence[Mapping[str, float]], objective: str, min_delta: float = 0.0) -> int:
    """Epoch of the lowest score; an epoch takes the lead only if it is lower by more than min_delta."""
    best = history[0]
    for entry in history[1:]:
        if entry[objective] < best[objective] - min_delta:
            best = entry
    return int(best["epoch"])
