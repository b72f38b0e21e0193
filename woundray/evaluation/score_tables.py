"""Tables of scores for a terminal, and plain values of scores for JSON files."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from woundray.evaluation.paired_comparison import Difference
from woundray.metrics.score import Score

STYLES = {"passes": "green", "fails": "red"}


def score_table(scores: Sequence[Score]) -> Table:
    """Return a table with a row a score: value, value of real photographs (± sd), z, threshold, verdict, interval.

    Names and numbers are never truncated: in a narrow terminal, verdict and interval take several lines.
    """
    table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0))
    for heading in ("score", "value", "real", "z", "threshold"):
        table.add_column(heading, justify="left" if heading == "score" else "right", no_wrap=True, overflow="fold")
    for heading in ("verdict", "95 % interval"):
        table.add_column(heading, overflow="fold", min_width=len("meaningless"))
    for score in scores:
        table.add_row(
            score.name,
            _number(score.value),
            _real_baseline(score),
            "" if score.z is None else f"{score.z:+.1f}",
            "" if score.threshold is None else str(score.threshold),
            score.verdict,
            "" if score.low is None or score.high is None else f"{_number(score.low)} to {_number(score.high)}",
            style=STYLES.get(score.verdict, ""),
        )
    return table


def difference_table(differences: Sequence[Difference], names: Sequence[str]) -> Table:
    """Return a table with a row a score: value of the first set, and value and difference of each other set.

    Names and numbers are never truncated: in a narrow terminal, a difference takes several lines.
    """
    table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0))
    table.add_column("score", no_wrap=True, overflow="fold")
    table.add_column(names[0], justify="right", overflow="fold")
    for name in names[1:]:
        table.add_column(name, justify="right", overflow="fold")
        table.add_column("difference", justify="right", overflow="fold")
    for row in differences:
        cells = [_number(row.values[0])]
        for number, (difference, low, high) in enumerate(row.differences, start=1):
            text = f"{difference:+.3g} ({low:+.3g} to {high:+.3g})"
            cells += [_number(row.values[number]), f"[bold]{text}[/bold]" if row.significant(number) else text]
        table.add_row(row.name, *cells)
    return table


def score_values(score: Score) -> dict[str, Any]:
    """Return all fields of a score, with z, real value and verdict, as JSON types; None for infinite values."""
    derived = {"z": score.z, "real": score.real_value, "verdict": score.verdict}
    return {
        name: None if isinstance(value, float) and abs(value) == float("inf") else value
        for name, value in (asdict(score) | derived).items()
    }


def _real_baseline(score: Score) -> str:
    if score.real_baseline is not None:
        return f"{_number(score.real_baseline.mean)} ± {score.real_baseline.sd:.2g}"
    return "" if score.real is None else _number(score.real)


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) >= 0.01 or value == 0 else f"{value:.2g}"
