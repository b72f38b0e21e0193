"""SVG charts: learning curves, score against references, importance, parallel coordinates, dose-response.

Colours are CSS variables with defaults.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from woundray.metrics.real_baseline import RealBaseline
from woundray.results.trials import TrialResult

STYLE = Markup(
    "<style>.c{font:12px system-ui,sans-serif;fill:var(--ink,#222)}.m{fill:var(--soft,#777)}"
    ".g{stroke:var(--line,#ddd);fill:none}.t{stroke:var(--soft,#999);fill:none;stroke-width:1.5;opacity:.55}"
    ".b{stroke:var(--accent,#0b6a6a);fill:none;stroke-width:2.5}.d{fill:var(--accent,#0b6a6a)}"
    ".o{fill:var(--soft,#999)}.f{fill:var(--accent,#0b6a6a);opacity:.16}.a{font-weight:600;fill:var(--accent,#0b6a6a)}"
    "</style>"
)
_WIDTH = 720


@dataclass(frozen=True)
class Scale:
    """Linear map of values to pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return round(self.start + self.share(value) * (self.end - self.start), 1)

    def share(self, value: float) -> float:
        """Return the relative position of a value between the ends, 0..1; 0.5 if they are equal."""
        return (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5

    def ticks(self, most: int = 5) -> list[float]:
        """Return round values inside the range."""
        step = _round_step((self.high - self.low) / most or 1.0)
        first = math.ceil(self.low / step)
        return [number * step for number in range(first, math.floor(self.high / step) + 1)]


def learning_curves(trials: Sequence[TrialResult], best: TrialResult | None, objective: str, base: float) -> Markup:
    """Draw the objective by epoch, a line for each trial, the best one thick; the base model's score dashed."""
    lines = [
        (trial, [(report.epoch, report.metrics[objective]) for report in trial.reports])
        for trial in trials
        if trial.reports
    ]
    if not lines:
        return Markup("")
    values = [value for _, points in lines for _, value in points] + [base]
    pad = (max(values) - min(values)) * 0.08 or 1.0
    y = Scale(min(values) - pad, max(values) + pad, 300, 16)
    x = Scale(1, max(2, *(epoch for _, points in lines for epoch, _ in points)), 56, _WIDTH - 110)
    parts = []
    for tick in y.ticks():
        parts.append(_line(x.start, y(tick), x.end, y(tick), "g"))
        parts.append(_text(x.start - 8, y(tick) + 4, f"{tick:g}", "c m", "end"))
    for epoch in sorted({round(tick) for tick in x.ticks(8)}):
        parts.append(_text(x(epoch), 320, str(epoch), "c m", "middle"))
    parts.append(_text((x.start + x.end) / 2, 340, "epoch", "c m", "middle"))
    parts.append(Markup('<path class="t" stroke-dasharray="5 4" d="M{} {}H{}"/>').format(x.start, y(base), x.end))
    labels = [(y(base), "base model", "c m")]
    for trial, points in sorted(lines, key=lambda line: line[0] == best):
        style, dot = ("b", "d") if trial == best else ("t", "o")
        path = "L".join(f"{x(epoch)} {y(value)}" for epoch, value in points)
        parts.append(Markup('<path class="{}" d="M{}"/>').format(style, path))
        parts += [
            Markup('<circle class="{}" cx="{}" cy="{}" r="{}"><title>{}</title></circle>').format(
                dot,
                x(epoch),
                y(value),
                3.5 if trial == best else 2.5,
                f"trial {trial.number}, epoch {epoch}: {value:.4g}",
            )
            for epoch, value in points
        ]
        if trial == best or x(points[-1][0]) == x.end:  # shorter lines end left of the labels
            labels.append((y(points[-1][1]), f"trial {trial.number}", "c a" if trial == best else "c m"))
    parts += [_text(x.end + 10, place + 4, label, style, "start") for place, label, style in _spread_labels(labels)]
    return _svg(350, parts, f"{objective} by epoch")


def score_axis(best: float, base: float, real_baseline: RealBaseline, objective: str) -> Markup:
    """Draw best trial, base model and photographs of other patients on one axis that begins at 0."""
    x = Scale(0, max(best, base) * 1.04, 16, _WIDTH - 16)
    low, high = x(max(0.0, real_baseline.mean - 2 * real_baseline.sd)), x(real_baseline.mean + 2 * real_baseline.sd)
    parts = [
        Markup('<rect class="f" x="{}" y="34" width="{}" height="24"/>').format(low, round(high - low, 1)),
        _line(x.start, 46, x.end, 46, "g"),
        Markup('<circle class="o" cx="{}" cy="46" r="5"/><circle class="d" cx="{}" cy="46" r="6"/>').format(
            x(base), x(best)
        ),
        _text(x(0), 78, "0", "c m", "start"),
        _text(low, 78, f"photographs {real_baseline.mean:.3g} ± {real_baseline.sd:.2g}", "c m", "start"),
        _text(x(best), 22, f"best trial {best:.4g}", "c a", "end"),
        _text(x(base), 78, f"base model {base:.4g}", "c m", "end"),
    ]
    return _svg(88, parts, f"{objective}: photographs, best trial and base model")


@dataclass(frozen=True)
class Dose:
    """Gain at a ratio of synthetic images, with its own interval and the one that covers all ratios jointly."""

    ratio: float
    gain: float
    interval: tuple[float, float]
    jointly: tuple[float, float]


def dose_response(doses: Sequence[Dose]) -> Markup:
    """Draw gains with their intervals by ratio, and the line of no gain."""
    ends = [0.0, *(end for dose in doses for end in (*dose.interval, *dose.jointly))]
    pad = (max(ends) - min(ends)) * 0.08 or 0.1
    y = Scale(min(ends) - pad, max(ends) + pad, 250, 16)
    x = Scale(-0.5, len(doses) - 0.5, 56, _WIDTH - 16)
    parts = []
    for tick in y.ticks():
        parts.append(_line(x.start, y(tick), x.end, y(tick), "g"))
        parts.append(_text(x.start - 8, y(tick) + 4, f"{tick:+.2f}" if abs(tick) > 1e-9 else "0", "c m", "end"))
    parts.append(_line(x.start, y(0), x.end, y(0), "t"))
    for index, dose in enumerate(doses):
        across = x(index)
        parts.append(_line(across, y(dose.jointly[0]), across, y(dose.jointly[1]), "t"))
        parts.append(_line(across, y(dose.interval[0]), across, y(dose.interval[1]), "b"))
        parts.append(
            Markup('<circle class="d" cx="{}" cy="{}" r="5"><title>{}</title></circle>').format(
                across, y(dose.gain), f"x{dose.ratio:g}: {dose.gain:+.3f}"
            )
        )
        parts.append(_text(across + 10, y(dose.gain) + 4, f"{dose.gain:+.3f}", "c a", "start"))
        parts.append(_text(across, 272, f"x{dose.ratio:g}", "c m", "middle"))
    parts.append(_text((x.start + x.end) / 2, 292, "synthetic pictures for each photograph", "c m", "middle"))
    return _svg(300, parts, "gain in kappa by ratio of synthetic pictures")


def importance(shares: dict[str, float]) -> Markup:
    """Draw the importance of each setting as a bar."""
    x = Scale(0, max([*shares.values(), 1e-9]), 220, _WIDTH - 60)
    parts = []
    for row, (name, share) in enumerate(shares.items()):
        top = 8 + 26 * row
        parts.append(_text(210, top + 13, name, "c", "end"))
        shape = '<rect class="d" x="220" y="{}" width="{}" height="16" rx="2"/>'
        parts.append(Markup(shape).format(top, round(max(1.0, x(share) - 220), 1)))
        parts.append(_text(x(share) + 8, top + 13, f"{share:.0%}", "c m", "start"))
    return _svg(16 + 26 * len(shares), parts, "importance of settings")


def parallel_coordinates(trials: Sequence[TrialResult], best: TrialResult | None, objective: str) -> Markup:
    """Draw an axis for each searched setting and one for the objective, a line for each trial."""
    scored = [trial for trial in trials if trial.best_score is not None]
    scores = [trial.best_score for trial in scored]
    names = list(dict.fromkeys(name for trial in scored for name in trial.values))
    if not scored or not names:
        return Markup("")
    columns = [[trial.values.get(name) for trial in scored] for name in names]
    places = [_positions(column) for column in columns]
    places.append(_positions(scores))
    ends = [_axis_ends(column) for column in columns] + [_axis_ends(scores)]
    x = Scale(0, len(names), 50, _WIDTH - 50)
    parts = []
    for number, (name, (low, high)) in enumerate(zip([*names, objective], ends, strict=True)):
        short = name.rsplit(".", 1)[-1].replace("_", " ")
        parts.append(_line(x(number), 44, x(number), 250, "g"))
        parts.append(_text(x(number), 16 + 13 * (number % 2), short, "c", "middle"))
        parts.append(_text(x(number), 268, low, "c m", "middle"))
        parts.append(_text(x(number), 42, high, "c m", "middle"))
    for row, trial in sorted(enumerate(scored), key=lambda pair: pair[1] == best):
        points = [(x(number), places[number][row]) for number in range(len(names) + 1)]
        path = "L".join(f"{across} {250 - 200 * up:.1f}" for across, up in points if up is not None)
        text = '<path class="{}" d="M{}"><title>trial {}</title></path>'
        parts.append(Markup(text).format("b" if trial == best else "t", path, trial.number))
    return _svg(280, parts, "settings and score of each trial")


def _positions(values: Sequence[object]) -> list[float | None]:
    """Return positions on an axis, 0..1: numbers by size (logarithmic above a factor of 30), others in sorted order."""
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) == sum(value is not None for value in values) and numbers:
        wide = min(numbers) > 0 and max(numbers) / min(numbers) > 30
        shown = [math.log(value) if wide else float(value) for value in numbers]
        scale = Scale(min(shown), max(shown), 0.0, 1.0)
        found = iter(shown)
        return [None if value is None else scale.share(next(found)) for value in values]
    kinds = sorted({str(value) for value in values if value is not None})
    scale = Scale(0, len(kinds) - 1, 0.0, 1.0)
    return [None if value is None else scale.share(kinds.index(str(value))) for value in values]


def _axis_ends(values: Sequence[object]) -> tuple[str, str]:
    """Return the labels of the lower and upper end of an axis."""
    known = [value for value in values if value is not None]
    if all(isinstance(value, int | float) for value in known):
        return f"{min(known):.3g}", f"{max(known):.3g}"  # type: ignore[type-var]
    kinds = sorted({str(value) for value in known})
    return kinds[0], kinds[-1]


def _spread_labels(labels: list[tuple[float, str, str]], gap_px: float = 14) -> list[tuple[float, str, str]]:
    """Move labels down so that none covers another."""
    placed: list[tuple[float, str, str]] = []
    for y, label, style in sorted(labels):
        lowest = placed[-1][0] + gap_px if placed else y
        placed.append((max(y, lowest), label, style))
    return placed


def _round_step(size: float) -> float:
    """Return 1, 2 or 5 times a power of ten, at least `size`."""
    power = 10.0 ** math.floor(math.log10(size))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= size * 0.999)


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> Markup:
    return Markup('<path class="{}" d="M{} {}L{} {}"/>').format(style, x1, y1, x2, y2)


def _text(x: float, y: float, text: str, style: str, anchor: str) -> Markup:
    return Markup('<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>').format(style, x, y, anchor, text)


def _svg(height: int, parts: Sequence[Markup], title: str) -> Markup:
    head = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {} {}" role="img" aria-label="{}">'
    return Markup(head).format(_WIDTH, height, escape(title)) + STYLE + Markup("").join(parts) + Markup("</svg>")
