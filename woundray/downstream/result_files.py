"""A measurement as `result.json`, whose schema is stable, and as a Markdown table, `result.md`.

result.json, schema 1: `title`, `generator`, `settings` (of effect.*), `photographs`, `patients`, `phases`, `folds`
(of each the deal, the number of test patients, the best control; by phase the share of drawn pictures that the filter
passed, and the share of used ones that it had refused), `arms` (name, ratio, kappa, quadratic_kappa, gain,
gain_jointly: each {value, low, high, sd} or null; macro_f1, accuracy, recalls by phase, confusion with true phases in
rows), `gain`, `over_folds`, `slope`, `verdict`. What is not finite is null.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from woundray.config import EffectConfig
from woundray.downstream import sentences
from woundray.downstream.html_page import write_page
from woundray.downstream.outcome import ArmScores, Outcome
from woundray.downstream.protocol import Measurement
from woundray.system.atomic_files import write_json

SCHEMA = 1


def write_outcome(
    outcome: Outcome, measurement: Measurement, config: EffectConfig, folder: Path, *, title: str, generator: str
) -> None:
    """Writes `result.json`, `result.md` and `result.html` into the folder."""
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


def as_markdown(outcome: Outcome, measurement: Measurement, config: EffectConfig, *, title: str) -> str:
    """The verdict first, then the table of arms, the curve, and what could have been seen."""
    verdict, grounds = sentences.call(outcome, measurement, config)
    phases = measurement.cohort.phases
    recalls = " | ".join(f"recall {phase}" for phase in phases)
    lines = [
        f"## {title}",
        "",
        f"**{verdict}**{grounds}",
        "",
        sentences.design(measurement, config),
        "",
        f"| arm | kappa | gain | quadratic kappa | macro F1 | accuracy | {recalls} |",
        "|---" * (6 + len(phases)) + "|",
        *(_row(arm) for arm in outcome.arms),
    ]
    for finding in sentences.findings(outcome, measurement):
        lines += ["", finding]
    return "\n".join(lines)


def _row(arm: ArmScores) -> str:
    cells = [
        arm.name,
        f"{arm.kappa.value:.3f} ({arm.kappa.low:.3f} to {arm.kappa.high:.3f})",
        sentences.signed(arm.gain) if arm.gain else "",
        f"{arm.quadratic_kappa.value:.3f}",
        f"{arm.macro_f1:.3f}",
        f"{arm.accuracy:.3f}",
        *(f"{value:.2f}" for value in arm.recalls),
    ]
    return f"| {' | '.join(cells)} |"


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
            "refused": {phase: measurement.refused[fold.number, phase] for phase in cohort.phases},
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
