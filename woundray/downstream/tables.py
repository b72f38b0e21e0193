"""Terminal tables of a measurement, for 80 columns."""

from rich.console import Group
from rich.table import Table
from rich.text import Text

from woundray.downstream import sentences
from woundray.downstream.outcome import ArmScores, EffectReport, Outcome
from woundray.downstream.statistics import Estimate


def as_tables(report: EffectReport) -> Group:
    """Return the verdict, kappa and gain of each arm, its other scores, and the findings."""
    verdict, grounds = sentences.verdict_sentence(report)
    parts: list[Text | Table] = [
        Text(report.title, style="bold"),
        Text.assemble((verdict, "bold"), grounds),
        Text(sentences.design_sentence(report)),
        _gains(report.outcome),
        _scores(report.outcome, report.measurement.cohort.phases),
        *map(Text, sentences.finding_sentences(report)),
    ]
    return Group(*(shown for part in parts for shown in (part, Text())))


def _gains(outcome: Outcome) -> Table:
    table = _table("arm", "kappa", "95 % interval", "gain", "95 % interval")
    for arm in outcome.arms:
        gain = (f"{arm.gain.value:+.3f}", _interval(arm.gain, "+.3f")) if arm.gain else ("", "")
        table.add_row(arm.name, f"{arm.kappa.value:.3f}", _interval(arm.kappa, ".3f"), *gain)
    return table


def _scores(outcome: Outcome, phases: tuple[str, ...]) -> Table:
    table = _table("arm", "quadratic\nkappa", "macro\nF1", "accuracy", *(f"recall\n{phase}" for phase in phases))
    for arm in outcome.arms:
        table.add_row(arm.name, *_figures(arm))
    return table


def _figures(arm: ArmScores) -> list[str]:
    scores = [arm.quadratic_kappa.value, arm.macro_f1, arm.accuracy]
    return [f"{value:.3f}" for value in scores] + [f"{recall:.2f}" for recall in arm.recalls]


def _table(name: str, *headings: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(name, no_wrap=True, vertical="bottom")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _interval(estimate: Estimate, form: str) -> str:
    return f"{estimate.low:{form}} to {estimate.high:{form}}"
