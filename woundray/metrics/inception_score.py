"""Inception score: confident class of each image, diverse classes over all images.

It is reported only: corrupted images can score higher than real ones.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import log_softmax, logsumexp

from woundray.metrics.feature_checks import feature_matrix


def inception_score(logits: ArrayLike) -> float:
    """Return exp(mean KL(p(class | image) || p(class))) of logits (N, classes), over all images (splits = 1).

    Salimans et al. 2016, section 4. From 1 to min(N, classes), and biased downwards at small N. Logarithms of
    probabilities are logits too. Raises UserError for fewer than 2 images or values that are not finite.
    """
    log_p = log_softmax(feature_matrix(logits, "logits"), axis=1)
    log_marginal = logsumexp(log_p, axis=0) - np.log(len(log_p))
    divergence = np.sum(np.exp(log_p) * (log_p - log_marginal), axis=1)
    return float(np.exp(divergence.mean()))
