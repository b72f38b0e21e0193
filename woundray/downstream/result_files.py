"""Result files of a measurement: `result.json` (stable schema) and `result.md` (a Markdown table).

result.json, schema 1: `title`, `generator`, `settings` (of effect.*), `photographs`, `patients`, `phases`, `folds`
(`number`, `deal`: index of the random split, `test_patients`, `best_control`; by phase `passed`: share of generated
images that passed the filter, `refused`: share of the used images that failed it), `arms` (name, ratio, kappa,
quadratic_kappa, gain, gain_jointly: each {value, low, high, sd} or null; macro_f1, accuracy, recalls by phase,
confusion with true phases in rows), `gain`, `over_folds`, `slope`, `verdict`. Values that are not finite are null.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from woundray.downstream import sentences
from woundray.downstream.html_page import write_page
from woundray.downstream.outcome import ArmScores, EffectReport
from woundray.downstream.protocol import Measurement
from woundray.system.atomic_files import write_json

SCHEMA = 1


def write_report(report: EffectReport, folder: Path) -> None:
    """Write `result.json`, `result.md` and `result.html` into the folder."""
    outcome, measurement = report.outcome, report.measurement
    facts = {
        "schema": SCHEMA,
        "title": report.title,
        "generator": report.generator,
        "settings": report.config.model_dump(mode="json"),
        **_sizes(measurement),
        "arms": [_arm(arm, measurement.cohort.phases) for arm in outcome.arms],
        **{
            name: _finite_or_null(asdict(getattr(outcome, name))) for name in ("gain", "over_folds", "slope", "verdict")
        },
    }
    write_json(facts, folder / "result.json")
    (folder / "result.md").write_text(as_markdown(report) + "\n", encoding="utf-8")
    write_page(report, folder)


def as_markdown(report: EffectReport) -> str:
    """Return the report as Markdown: verdict, table of arms, dose-response curve, and detectable gain."""
    verdict, grounds = sentences.verdict_sentence(report)
    phases = report.measurement.cohort.phases
    recalls = " | ".join(f"recall {phase}" for phase in phases)
    lines = [
        f"## {report.title}",
        "",
        f"**{verdict}**{grounds}",
        "",
        sentences.design_sentence(report),
        "",
        f"| arm | kappa | gain | quadratic kappa | macro F1 | accuracy | {recalls} |",
        "|---" * (6 + len(phases)) + "|",
        *(_row(arm) for arm in report.outcome.arms),
    ]
    for finding in sentences.finding_sentences(report):
        lines += ["", finding]
    return "\n".join(lines)


def _row(arm: ArmScores) -> str:
    cells = [
        arm.name,
        f"{arm.kappa.value:.3f} ({arm.kappa.low:.3f} to {arm.kappa.high:.3f})",
        sentences.format_estimate(arm.gain) if arm.gain else "",
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
            "deal": fold.repeat,
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
    return _finite_or_null(values)


def _finite_or_null(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values as JSON types; None for those that are not finite."""
    return {
        name: _finite_or_null(value)
        if isinstance(value, dict)
        else (None if isinstance(value, float) and not math.isfinite(value) else value)
        for name, value in values.items()
    }
