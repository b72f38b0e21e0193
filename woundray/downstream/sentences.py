"""Sentences of a measurement's report, used in the terminal, in `result.md` and in `result.html`."""

import math
from collections import Counter

from woundray.downstream.outcome import EffectReport, Outcome
from woundray.downstream.protocol import Measurement
from woundray.downstream.statistics import Estimate, detectable_gain

_MOST_REFUSED = 0.5  # share of refused pictures above which a measurement says nothing about good ones
_SIZES = (1, 2, 4)  # multiples of this study's patients, for the detectable gain


def verdict_sentence(report: EffectReport) -> tuple[str, str]:
    """Return the verdict and the grounds for it."""
    verdict = report.outcome.verdict
    grounds = f" (at ratio {report.config.primary_ratio:g}, fixed beforehand). {verdict.words}"
    refused = list(report.measurement.refused.values())
    if min(refused, default=0.0) > _MOST_REFUSED:
        grounds += (
            f" But the filter refused {_range(refused)} of the pictures that were used: this generator does not draw "
            "such pictures, and more patients would not change that. Train longer, or use a larger base model."
        )
    return verdict.call, grounds


def design_sentence(report: EffectReport) -> str:
    """Return numbers of photographs and patients, the classifier, and the control that gains are measured against."""
    measurement, config = report.measurement, report.config
    cohort = measurement.cohort
    times = Counter(measurement.recipes).most_common()
    chosen = ", ".join(f"{recipe} in {count} of {len(measurement.folds)}" for recipe, count in times)
    repeated = f" split {measurement.repeats} times" if measurement.repeats > 1 else ""
    return (
        f"{len(cohort.photos)} photographs of {cohort.patients} groups of patients, {config.folds} folds"
        f"{repeated}, {config.seeds} seeds; classifier {config.classifier}; kappa {config.kappa}. Intervals: 95 %, "
        f"BCa, over patients. Gains: over the best control, chosen for each fold on the other folds ({chosen}), so "
        "that another control may look better over all folds than the one that was chosen."
    )


def finding_sentences(report: EffectReport) -> list[str]:
    """Return dose-response, gain over folds, detectable gain, and the share of pictures that passed the filter."""
    outcome, measurement = report.outcome, report.measurement
    folds = outcome.over_folds
    found = [
        f"Dose-response: kappa {format_estimate(outcome.slope)} for one more synthetic picture per photograph. "
        f"With all ratios covered at once: {_curve(outcome)}.",
        f"Over folds (corrected t): {folds.mean:+.3f} ({folds.low:+.3f} to {folds.high:+.3f}), "
        f"p = {folds.p_value:.2g}.",
        f"Gain that is found in four cases of five: {_power(outcome, measurement.cohort.patients)}.",
    ]
    return [*found, *filter_sentences(measurement)]


def filter_sentences(measurement: Measurement) -> list[str]:
    """Return the share of pictures that passed the filter, and which were used; nothing where all passed."""
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


def format_estimate(estimate: Estimate) -> str:
    """Return an estimate with its interval: `+0.031 (-0.020 to +0.080)`."""
    return f"{estimate.value:+.3f} ({estimate.low:+.3f} to {estimate.high:+.3f})"


def _range(shares: list[float]) -> str:
    low, high = f"{min(shares):.0%}", f"{max(shares):.0%}"
    return low if low == high else f"{low} to {high}"


def _curve(outcome: Outcome) -> str:
    return ", ".join(f"x{arm.ratio:g} {format_estimate(arm.gain_jointly)}" for arm in outcome.arms if arm.gain_jointly)


def _power(outcome: Outcome, patients: int) -> str:
    sd = outcome.gain.sd
    return ", ".join(f"{detectable_gain(sd / math.sqrt(k)):.3f} with {k * patients} patients" for k in _SIZES)
