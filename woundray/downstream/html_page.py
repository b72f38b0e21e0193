"""`result.html` of a measurement: one file without photographs and without requests to a network."""

from datetime import datetime
from pathlib import Path

from woundray.downstream import sentences
from woundray.downstream.outcome import ArmScores, EffectReport
from woundray.reporting import charts
from woundray.reporting.html import template


def write_page(report: EffectReport, folder: Path) -> None:
    """Write `result.html` into the folder."""
    outcome, measurement, config = report.outcome, report.measurement, report.config
    cohort = measurement.cohort
    mixed = [arm for arm in outcome.arms if arm.gain_jointly is not None]
    primary = next(arm for arm in mixed if arm.ratio == config.primary_ratio)
    best = next(arm for arm in outcome.arms if arm.name == "best control")
    page = template("effect.html").render(
        title=report.title,
        phases=cohort.phases,
        photographs=len(cohort.photos),
        patients=cohort.patients,
        repeats=measurement.repeats,
        config=config,
        verdict=outcome.verdict,
        over_folds=outcome.over_folds,
        curve=charts.dose_response([_point(arm) for arm in mixed]),
        arms=[vars(arm) | {"is_primary": arm is primary} for arm in outcome.arms],
        compared=(best, primary),
        filter_sentences=sentences.filter_sentences(measurement),
        written=datetime.now().astimezone(),
    )
    (folder / "result.html").write_text(page, encoding="utf-8")


def _point(arm: ArmScores) -> charts.Dose:
    assert arm.gain is not None and arm.gain_jointly is not None, arm.name
    each, jointly = arm.gain, arm.gain_jointly
    return charts.Dose(arm.ratio, each.value, (each.low, each.high), (jointly.low, jointly.high))
