"""Sentences of a measurement's report, the same in the terminal, in `result.md` and on the page."""

import math
from collections import Counter

from woundray.config import EffectConfig
from woundray.downstream.outcome import Outcome
from woundray.downstream.protocol import Measurement
from woundray.downstream.statistics import Estimate, detectable_gain

_MOST_REFUSED = 0.5  # share of pictures beyond which a measurement says nothing of good ones
_SIZES = (1, 2, 4)  # times the patients of this study, in the table of power


def call(outcome: Outcome, measurement: Measurement, config: EffectConfig) -> tuple[str, str]:
    """The verdict, and what it rests on."""
    verdict = outcome.verdict
    rests_on = f" (at ratio {config.primary_ratio:g}, fixed beforehand). {verdict.words}"
    refused = list(measurement.refused.values())
    if min(refused, default=0.0) > _MOST_REFUSED:
        rests_on += (
            f" But the filter refused {_range(refused)} of the pictures that were used: this generator does not draw "
            "such pictures, and more patients would not change that. Train longer, or use a larger base model."
        )
    return verdict.call, rests_on


def design(measurement: Measurement, config: EffectConfig) -> str:
    """How many photographs and patients, which classifier, and what a gain is a gain over."""
    cohort = measurement.cohort
    times = Counter(measurement.recipes).most_common()
    chosen = ", ".join(f"{recipe} in {count} of {len(measurement.folds)}" for recipe, count in times)
    dealt = f" dealt {measurement.repeats} times" if measurement.repeats > 1 else ""
    return (
        f"{len(cohort.photos)} photographs of {cohort.patients} groups of patients, {config.folds} folds"
        f"{dealt}, {config.seeds} seeds; classifier {config.classifier}; kappa {config.kappa}. Intervals: 95 %, BCa, "
        "over patients. Gains: over the best control, chosen for each fold by the other folds "
        f"({chosen}), so that a control may look "
        "better over all folds than the one that was chosen."
    )


def findings(outcome: Outcome, measurement: Measurement) -> list[str]:
    """The curve, the folds, what could have been seen, and which pictures were used."""
    folds = outcome.over_folds
    found = [
        f"Dose-response: kappa {signed(outcome.slope)} for each synthetic picture a real one. With all ratios covered "
        f"at once: {_curve(outcome)}.",
        f"Over folds (corrected t): {folds.mean:+.3f} ({folds.low:+.3f} to {folds.high:+.3f}), "
        f"p = {folds.p_value:.2g}.",
        f"Gain that is found in four cases of five: {_power(outcome, measurement.cohort.patients)}.",
    ]
    return [*found, *filtered(measurement)]


def filtered(measurement: Measurement) -> list[str]:
    """What the filter passed, and which pictures were used then; nothing where it passed all."""
    passed, refused = list(measurement.passed.values()), list(measurement.refused.values())
    if min(passed) == 1:
        return []
    share = f"The filter passed {_range(passed)} of the pictures that were drawn for a fold and phase."
    if max(refused) == 0:
        return [f"{share} Only pictures that it passed were used."]
    return [
        f"{share} That is too few: {_range(refused)} of the pictures that were used are ones that it refused, the "
        "first that were drawn."
    ]


def signed(estimate: Estimate) -> str:
    """`+0.031 (-0.020 to +0.080)`."""
    return f"{estimate.value:+.3f} ({estimate.low:+.3f} to {estimate.high:+.3f})"


def _range(shares: list[float]) -> str:
    low, high = f"{min(shares):.0%}", f"{max(shares):.0%}"
    return low if low == high else f"{low} to {high}"


def _curve(outcome: Outcome) -> str:
    return ", ".join(f"x{arm.ratio:g} {signed(arm.gain_jointly)}" for arm in outcome.arms if arm.gain_jointly)


def _power(outcome: Outcome, patients: int) -> str:
    sd = outcome.gain.sd
    return ", ".join(f"{detectable_gain(sd / math.sqrt(k)):.3f} with {k * patients} patients" for k in _SIZES)
