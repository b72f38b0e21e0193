"""A measurement as `result.json`, whose schema is stable, and as a Markdown table, `result.md`.

result.json, schema 1: `title`, `generator`, `settings` (of effect.*), `photographs`, `patients`, `phases`, `folds`
(of each the deal, the number of test patients, the best control, and the share of pictures that the filter passed, by
phase), `arms` (name, ratio, kappa, quadratic_kappa, gain, gain_jointly: each {value, low, high, sd} or null;
macro_f1, accuracy, recalls by phase, confusion with true phases in rows), `gain`, `over_folds`, `slope`, `verdict`.
What is not finite is null.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from woundray.config import EffectConfig
from woundray.effect.outcome import ArmScores, Outcome
from woundray.effect.page import write_page
from woundray.effect.protocol import Measurement
from woundray.effect.statistics import Estimate, detectable_gain
from woundray.training.checkpoint import write_json

SCHEMA = 1
_SIZES = (1, 2, 4)  # times the patients of this study, in the table of power


def write_outcome(
    outcome: Outcome, measurement: Measurement, config: EffectConfig, folder: Path, *, title: str, generator: str
) -> str:
    """Writes `result.json`, `result.md` and `result.html` into the folder, and gives the second's text."""
    facts = {
        "schema": SCHEMA,
        "title": title,
        "generator": generator,
        "settings": config.model_dump(mode="json"),
        **_sizes(measurement),
        "arms": [_arm(arm, measurement.cohort.phases) for arm in outcome.arms],
        **{name: _plain(asdict(getattr(outcome, name))) for name in ("gain", "over_folds", "slope", "verdict")},
    }
    write_json(facts, folder / "result.json")
    text = as_markdown(outcome, measurement, config, title=title)
    (folder / "result.md").write_text(text + "\n", encoding="utf-8")
    write_page(outcome, measurement, config, folder, title=title)
    return text


def as_markdown(outcome: Outcome, measurement: Measurement, config: EffectConfig, *, title: str) -> str:
    """The verdict first, then the table of arms, the curve, and what could have been seen."""
    cohort, verdict = measurement.cohort, outcome.verdict
    recalls = " | ".join(f"recall {phase}" for phase in cohort.phases)
    times = Counter(measurement.recipes).most_common()
    chosen = ", ".join(f"{recipe} in {count} of {len(measurement.folds)}" for recipe, count in times)
    dealt = f" dealt {measurement.deals} times" if measurement.deals > 1 else ""
    lines = [
        f"## {title}",
        "",
        f"**{verdict.call}** (at ratio {config.primary_ratio:g}, fixed beforehand). {verdict.words}",
        "",
        f"{len(cohort.photos)} photographs of {cohort.patients} groups of patients, {config.folds} folds"
        f"{dealt}, {config.seeds} seeds; classifier {config.classifier}; kappa {config.kappa}. Intervals: 95 %, BCa, "
        "over patients. Gains: over the best control, chosen for each fold by the other folds "
        f"({chosen}).",
        "",
        f"| arm | kappa | gain | quadratic kappa | macro F1 | accuracy | {recalls} |",
        "|---" * (6 + len(cohort.phases)) + "|",
        *(_row(arm) for arm in outcome.arms),
        "",
        f"Dose-response: kappa {_signed(outcome.slope)} for each synthetic picture a real one. With all ratios covered "
        f"at once: {_curve(outcome)}.",
        "",
        f"Over folds (corrected t): {outcome.over_folds.mean:+.3f} ({outcome.over_folds.low:+.3f} to "
        f"{outcome.over_folds.high:+.3f}), p = {outcome.over_folds.p_value:.2g}.",
        "",
        f"Gain that is found in four cases of five: {_power(outcome, cohort.patients)}.",
    ]
    passed = list(measurement.passed.values())
    if min(passed) < 1:
        lines += ["", f"The filter passed {min(passed):.0%} to {max(passed):.0%} of a pool's pictures."]
    return "\n".join(lines)


def _row(arm: ArmScores) -> str:
    cells = [
        arm.name,
        f"{arm.kappa.value:.3f} ({arm.kappa.low:.3f} to {arm.kappa.high:.3f})",
        _signed(arm.gain) if arm.gain else "",
        f"{arm.quadratic_kappa.value:.3f}",
        f"{arm.macro_f1:.3f}",
        f"{arm.accuracy:.3f}",
        *(f"{value:.2f}" for value in arm.recalls),
    ]
    return f"| {' | '.join(cells)} |"


def _signed(estimate: Estimate) -> str:
    return f"{estimate.value:+.3f} ({estimate.low:+.3f} to {estimate.high:+.3f})"


def _curve(outcome: Outcome) -> str:
    points = (f"x{arm.ratio:g} {_signed(arm.gain_jointly)}" for arm in outcome.arms if arm.gain_jointly)
    return ", ".join(points)


def _power(outcome: Outcome, patients: int) -> str:
    sd = outcome.gain.sd
    return ", ".join(f"{detectable_gain(sd / math.sqrt(k)):.3f} with {k * patients} patients" for k in _SIZES)


def _sizes(measurement: Measurement) -> dict[str, Any]:
    cohort = measurement.cohort
    groups = np.array(cohort.groups)
    folds = [
        {
            "number": fold.number,
            "deal": fold.deal,
            "test_patients": len(set(groups[fold.test])),
            "best_control": recipe,
            "passed": {phase: measurement.passed[fold.number, phase] for phase in cohort.phases},
        }
        for fold, recipe in zip(measurement.folds, measurement.recipes, strict=True)
    ]
    return {
        "photographs": len(cohort.photos),
        "patients": cohort.patients,
        "phases": list(cohort.phases),
        "folds": folds,
    }


def _arm(arm: ArmScores, phases: tuple[str, ...]) -> dict[str, Any]:
    values = asdict(arm) | {"recalls": dict(zip(phases, arm.recalls, strict=True)), "confusion": arm.confusion.tolist()}
    return _plain(values)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON's types: what is not finite is null."""
    return {
        name: _plain(value)
        if isinstance(value, dict)
        else (None if isinstance(value, float) and not math.isfinite(value) else value)
        for name, value in values.items()
    }
