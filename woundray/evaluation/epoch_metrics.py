"""The scores of an epoch: cheap, from one pass of one network over the generated pictures."""

from torch import Tensor

from woundray.evaluation.embedders import Embedder, embed, score_name
from woundray.evaluation.real_reference import RealReference
from woundray.metrics.extractors import frechet_name
from woundray.metrics.frechet import frechet_distance
from woundray.metrics.kid import kid
from woundray.metrics.real_baseline import z


def score(pictures: Tensor, reference: RealReference, embedder: Embedder) -> dict[str, float]:
    """Scores of generated pictures, uint8 (N, 3, H, W), against photographs of held-out patients.

    The Frechet distance and its z over the floor; the kernel distance; the share of pictures that look like copies
    of training photographs beside the share of held-out photographs that do, the chance p of such an excess, and
    `copies_flag`: 1 where p is below its bar.
    """
    features, real = embed(embedder, pictures), reference.held_out.features
    name = frechet_name(embedder)
    distance = frechet_distance(features.distance, real.distance)
    copies = reference.copy_rate(features)
    return {
        name: distance,
        f"{name}_z": z(distance, reference.real_baseline),
        score_name("kid", embedder.name): kid(features.distance, real.distance),
        "copy_rate": copies.rate,
        "copy_rate_held_out": copies.held_out_rate,
        "copies_p_value": copies.p_value,
        "copies_flag": float(copies.p_value < reference.copies.p_value),
    }
