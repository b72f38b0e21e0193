"""A measurement as `result.html`, one file that asks nothing of the network; no photograph is in it."""

from datetime import datetime
from pathlib import Path

from woundray.config import EffectConfig
from woundray.downstream import sentences
from woundray.downstream.outcome import ArmScores, Outcome
from woundray.downstream.protocol import Measurement
from woundray.reporting import charts
from woundray.reporting.html import template


def write_page(outcome: Outcome, measurement: Measurement, config: EffectConfig, folder: Path, *, title: str) -> None:
    """Writes `result.html` into the folder."""
    cohort = measurement.cohort
    mixed = [arm for arm in outcome.arms if arm.gain_jointly is not None]
    primary = next(arm for arm in mixed if arm.ratio == config.primary_ratio)
    best = next(arm for arm in outcome.arms if arm.name == "best control")
    page = template("effect.html").render(
        title=title,
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
        filtered=sentences.filtered(measurement),
        written=datetime.now().astimezone(),
    )
    (folder / "result.html").write_text(page, encoding="utf-8")


def _point(arm: ArmScores) -> charts.Dose:
    assert arm.gain is not None and arm.gain_jointly is not None, arm.name
    each, jointly = arm.gain, arm.gain_jointly
    return charts.Dose(arm.ratio, each.value, (each.low, each.high), (jointly.low, jointly.high))
