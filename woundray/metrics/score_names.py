"""Names of scores: the features that a score was computed on are part of its name."""

INCEPTION = "inception"
"""Name of the extractor whose scores have the plain names of the literature."""


def frechet_name(extractor: str) -> str:
    """Return the name of the Fréchet distance on an extractor's features: `fid` for Inception, else `fd_<extractor>`.

    extractor: `name` of an extractor or embedder.
    """
    return "fid" if extractor == INCEPTION else f"fd_{extractor}"


def score_name(score: str, extractor: str) -> str:
    """Return the name of another score on an extractor's features: `kid` for Inception, else `kid_<extractor>`."""
    return score if extractor == INCEPTION else f"{score}_{extractor}"
