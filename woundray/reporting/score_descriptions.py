"""Plain descriptions of scores, for the terminal, the report and docs/scores.md (which a test compares)."""

from collections.abc import Sequence

from woundray.metrics.score import Score

DESCRIPTIONS = {
    "fid": "distance of the pictures, as a set, to photographs of held-out patients, on Inception features",
    "fd": "distance of the pictures, as a set, to photographs of held-out patients, on other features",
    "kid": "the same distance by a kernel; 0 is expected of real photographs at any number of pictures",
    "mmd_rbf": "the same distance by a Gaussian kernel",
    "precision": "share of pictures that lie among the photographs",
    "density": "number of photographs around each picture, relative to photographs around each other",
    "recall": "share of photographs that lie among the pictures",
    "coverage": "share of photographs with a picture near by",
    "diversity": "difference of the pictures from one another",
    "copy_rate": "share of pictures that look like copies of training photographs",
    "train_gap": "how much nearer the pictures are to training photographs than to held-out ones",
    "mifid": "the distance of the set, raised where pictures lie very near to training photographs",
    "auth_pct": "share of pictures that are not nearer to a training photograph than its own neighbours are",
    "c_t": "test of whether pictures lie nearer to training photographs than held-out photographs do",
    "knn_share": "share of pictures that look like a wound",
    "ssim_nn": "structural similarity (SSIM) of each picture to its most similar photograph",
    "lpips_nn": "perceptual distance (LPIPS) of each picture to its most similar photograph",
    "inception_score": "how clearly the pictures fall into many classes of everyday objects",
    "usable": "share of pictures that pass the filter",
}
"""Name of a score, without the name of its features -> what it measures."""

_SHARES = ("precision", "recall", "coverage", "copy_rate", "knn_share", "usable")
NOT_EVALUATED = "not judged"
"""Entry in place of missed scores when a best trial could not be evaluated."""


def describe(score: str) -> str:
    """Return what a score measures, by its name with or without features (`kid_lite0`); empty for an unknown one."""
    names = [name for name in DESCRIPTIONS if score == name or score.startswith(f"{name}_")]
    return DESCRIPTIONS[max(names, key=len)] if names else ""


def missed_thresholds(missed: Sequence[str]) -> str:
    """Return a study's result against the thresholds in words; `missed`: names of scores, or NOT_EVALUATED alone."""
    if NOT_EVALUATED in missed:
        return "not checked: the best trial could not be evaluated"
    if not missed:
        return "every threshold that real photographs reach is reached"
    return "missed: " + ", ".join(f"{name} ({describe(name)})" if describe(name) else name for name in missed)


def missed_lines(scores: Sequence[Score]) -> list[str]:
    """Return a line for each score that misses a threshold which real photographs reach."""
    return [
        f"threshold missed: {score.name} {_figure(score.name, score.value)} "
        f"(photographs: {_figure(score.name, score.real_value)}): {describe(score.name)}"
        for score in scores
        if score.verdict == "fails"
    ]


def _figure(name: str, value: float | None) -> str:
    if value is None:
        return "not known"
    return f"{100 * value:.0f} %" if name.startswith(_SHARES) else f"{value:.3g}"
