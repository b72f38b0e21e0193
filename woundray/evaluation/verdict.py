"""Verdict on the images of a study, in plain words, from the report of an evaluation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from woundray.config import Config

MIN_USABLE_SHARE = 0.05
"""Smallest share of images that pass the filter at which generating with the filter is worthwhile."""

_REASONS = {
    "knn_share": "too few look like wounds",
    "copy_rate": "too many look like copies of photographs",
    "ssim_nn": "unlike every photograph by SSIM",
    "lpips_nn": "unlike every photograph by LPIPS",
}


@dataclass(frozen=True)
class Verdict:
    """Verdict on the images of a study.

    Attributes:
        usable: the images can be generated with the filter and tried on a classifier.
        line: the verdict in one sentence, with the numbers that it is based on.
        next: recommended next step.
        filtered: enough images pass to generate with the filter.
    """

    usable: bool
    line: str
    next: str
    filtered: bool = True


def verdict_of(evaluation: Mapping[str, Any] | None, config: Config, *, ended: bool = True) -> Verdict:
    """Return the verdict on images of a configuration.

    Args:
        evaluation: `report.json` of the best checkpoint; None: it was not evaluated.
        ended: whether the study has finished.
    """
    practice = config.data.root is None
    if evaluation is None or not ended:
        line = "the best trial's pictures could not be evaluated" if ended else "the study has not ended"
        after = "give more photographs, or raise validation.pictures" if ended else "go on with `tune --resume`"
        return Verdict(False, f"not known: {line}", after, filtered=False)
    scores = {score["name"]: score for score in evaluation["scores"]}
    usable, pictures = scores["usable"], evaluation["pictures"]
    passed = f"{round(usable['value'] * pictures)} of {pictures} pictures pass the filter"
    if usable["real"] is not None:
        passed += f", {usable['real']:.0%} of photographs do"
    missed = [name for name, score in scores.items() if score["verdict"] == "fails"]
    filtered = usable["value"] >= MIN_USABLE_SHARE
    if practice:
        return Verdict(
            False,
            f"practice only: drawn wounds, no photographs ({passed})",
            "run it on your photographs: `python -m woundray.prepare --raw raw --out data`",
            filtered,
        )
    if config.model.base == "tiny":
        return Verdict(
            False,
            f"not usable: the tiny model is for practice ({passed})",
            "use a GPU and Stable Diffusion: `python -m woundray.fetch sd21`, then the same command",
            filtered,
        )
    if not filtered:
        return Verdict(
            False,
            f"not usable: {passed}",
            "look at the pictures; train longer (training.epochs), with more trials, or on a larger base model",
            filtered,
        )
    if missed:
        reasons = ", ".join(_REASONS.get(name, name) for name in missed)
        return Verdict(
            False,
            f"usable with care, through the filter only: {passed}; photographs pass what these fail: {reasons}",
            "look at the pictures, then measure whether they help: `python -m woundray.augment`",
            filtered,
        )
    return Verdict(
        True,
        f"usable to train a classifier with: {passed}, and every threshold that photographs hold is held",
        "measure whether they help: `python -m woundray.augment`",
        filtered,
    )
