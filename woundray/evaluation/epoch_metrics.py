"""Scores of an epoch: a few metrics, from one pass of one network over the generated images."""

from torch import Tensor

from woundray.evaluation.embedders import Embedder, embed
from woundray.evaluation.real_reference import RealReference
from woundray.metrics.frechet import frechet_distance
from woundray.metrics.kid import kid
from woundray.metrics.real_baseline import z
from woundray.metrics.score_names import frechet_name, score_name


def score(images: Tensor, reference: RealReference, embedder: Embedder) -> dict[str, float]:
    """Score generated images, uint8 (N, 3, H, W), against photographs of held-out patients.

    Fréchet distance and its z over the baseline; kernel distance; share of images that look like copies of training
    photographs and that of held-out photographs; probability p of such an excess; `copies_flag`: 1 where p is below
    quality.copies.p_value.
    """
    features, real = embed(embedder, images), reference.held_out.features
    name = frechet_name(embedder.name)
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
