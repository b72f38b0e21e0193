"""Display of a study while it runs: a live table on a terminal, plain lines elsewhere."""

import itertools
import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from woundray.config import Config
from woundray.results.trials import TrialResult, apply_event, best_trial, by_number
from woundray.tracking.journal import EpochReported, Event, FinalistScored, Journal, TrialEnded

_POLL_S = 0.2
_COLUMN_GAP = 2  # spaces between columns
_EXTRA_LINES = 4  # lines of the table besides trials: title, headings, caption, cursor

Trials = tuple[TrialResult, ...]

log = logging.getLogger(__name__)


class Display(Protocol):
    """Shows the trials after each event."""

    def show(self, event: Event, trials: Trials) -> None:
        """Show all trials, or the change by the event."""

    def close(self) -> None:
        """Restore the terminal."""


class LiveTable:
    """Table with one row per trial, updated in place; its caption has the progress of the study and the time left."""

    def __init__(self, console: Console, config: Config) -> None:
        self._config = config
        self._started_s = time.monotonic()
        self._at_start: float | None = None
        self._live = Live(console=console, refresh_per_second=4)
        self._live.start()

    def show(self, event: Event, trials: Trials) -> None:
        share = share_done(trials, self._config)
        if self._at_start is None:  # above 0 in a resumed study
            self._at_start = share
        size = self._live.console.size
        rendered = table(trials, self._config, size.width, size.height)
        left = time_left(share, self._at_start, time.monotonic() - self._started_s)
        rendered.caption = f"{self._config.metrics.objective}, lower is better   {share:.0%} done{left}"
        self._live.update(rendered)

    def close(self) -> None:
        self._live.stop()


class Lines:
    """Plain display: one line per epoch, and one at the end of a trial."""

    def __init__(self, console: Console, config: Config) -> None:
        self._config = config
        self._console = console

    def show(self, event: Event, trials: Trials) -> None:
        text = line(event, trials, self._config)
        if text:
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None: ...


def table(trials: Trials, config: Config, width: int = 0, height: int = 0) -> Table:
    """Return the table of trials: state, epochs, scores, and searched settings.

    Args:
        trials: all trials.
        config: configuration of the study.
        width: columns of the terminal; 0: no limit. If the settings do not fit next to the scores, those of the best
            and of running trials are in one column that folds: a score is never cut.
        height: rows of the terminal; 0: no limit. If not all trials fit, the best, running ones and the last are shown.
    """
    best = best_trial(trials, config.metrics.objective)
    names = list(dict.fromkeys(name for trial in trials for name in trial.values))
    leaves = [name.rsplit(".", 1)[-1].replace("_", " ") for name in names]
    settings = [leaf if leaves.count(leaf) == 1 else name for leaf, name in zip(leaves, names, strict=True)]
    headings = ["trial", "state", "epoch", "last", "best"]
    scores = {trial.id: _scores(trial, config) for trial in trials}
    values = {trial.id: [_value(trial.values.get(name)) for name in names] for trial in trials}
    scores_width, settings_width = _width(headings, scores.values()), _width(settings, values.values())
    settings_fit = not width or scores_width + settings_width <= width

    rendered = Table(box=None, header_style="bold", padding=(0, _COLUMN_GAP, 0, 0))
    for heading in headings:
        rendered.add_column(heading, justify="left" if heading == "state" else "right", no_wrap=True, overflow="fold")
    for heading in settings if settings_fit else ["settings"]:
        rendered.add_column(heading, justify="right" if settings_fit else "left", no_wrap=settings_fit, overflow="fold")

    folded = {}
    for trial in trials if not settings_fit else ():
        if trial == best or trial.status == "running":
            pairs = zip(settings, values[trial.id], strict=True)
            folded[trial.id] = ", ".join(f"{name} {value}" for name, value in pairs if value)
    column = max(1, width - scores_width - _COLUMN_GAP)
    lines = {trial.id: 1 + len(folded.get(trial.id, "")) // column for trial in trials}
    shown = _fitting_trials(trials, best, lines, height - _EXTRA_LINES) if height else trials
    for trial in shown:
        cells = values[trial.id] if settings_fit else [folded.get(trial.id, "")]
        style = "bold green" if trial == best else "red" if trial.status == "failed" else ""
        rendered.add_row(*scores[trial.id], *cells, style=style)
    if len(shown) < len(trials):
        rendered.title = f"{len(trials) - len(shown)} of {len(trials)} trials are not shown: the terminal is too low"
    return rendered


def _scores(trial: TrialResult, config: Config) -> list[str]:
    """Return the cells of a trial up to its scores."""
    epochs = f"{trial.epochs}/{config.training.epochs}"
    return [str(trial.number), _state(trial), epochs, _score(trial.last_score), _score(trial.best_score)]


def _width(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> int:
    """Return the width of a part of the table, in characters."""
    return sum(max(map(len, column)) + _COLUMN_GAP for column in zip(headings, *rows, strict=True))


def _fitting_trials(trials: Trials, best: TrialResult | None, lines: Mapping[str, int], max_lines: int) -> Trials:
    """Return as many trials as fit on the lines: first the best, then running ones, then the last."""
    order = sorted(trials, key=lambda trial: (trial != best, trial.status != "running", -trial.number))
    fitting = [total <= max_lines for total in itertools.accumulate(lines[trial.id] for trial in order)]
    return tuple(sorted(order[: max(1, sum(fitting))], key=lambda trial: trial.number))


def share_done(trials: Trials, config: Config) -> float:
    """Return the share of epochs that are done, 0 to 1; epochs that ASHA saves count as done."""
    searched = any(trial.values for trial in trials)
    total = max(len(trials), config.study.trials if searched else 1)
    done = sum(1.0 if trial.status != "running" else trial.epochs / config.training.epochs for trial in trials)
    return done / total


def time_left(share: float, at_start: float, elapsed_s: float) -> str:
    """Return `, about 12 min left` at the pace since the start; empty: the pace is unknown, or all is done."""
    if share <= at_start or share >= 1:
        return ""
    left_s = elapsed_s * (1 - share) / (share - at_start)
    return f", about {left_s / 3600:.1f} h left" if left_s > 5400 else f", about {left_s / 60:.0f} min left"


def line(event: Event, trials: Trials, config: Config) -> str:
    """Return the change by an event, `trial 3  epoch 2/6  fd_lite0 61.2  best 58.9 (trial 1)`; empty: nothing."""
    if not isinstance(event, EpochReported | FinalistScored | TrialEnded):
        return ""
    [trial] = [trial for trial in trials if trial.id == event.trial]
    objective = config.metrics.objective
    best = best_trial(trials, objective)
    standing = f"  best {_score(best.score(objective))} (trial {best.number})" if best else ""
    start = f"trial {trial.number}  epoch {trial.epochs}/{config.training.epochs}"
    if isinstance(event, EpochReported):
        warning = "  copies" if trial.reports[-1].metrics.get("copies_flag") else ""
        return f"{start}  {objective} {_score(trial.last_score)}{warning}{standing}"
    if isinstance(event, FinalistScored):
        again = f"trial {trial.number}  {event.pictures} new pictures"
        return f"{again}  {objective} {_score(event.metrics[objective])}{'  copies' if trial.copies else ''}{standing}"
    return f"{start}  {_state(trial)}{f': {trial.reason}' if trial.reason else ''}{standing}"


def _state(trial: TrialResult) -> str:
    if trial.copies:
        return "copies"
    return "stopped early" if trial.stopped_early else trial.status


def _score(score: float | None) -> str:
    return "" if score is None else f"{score:.4g}"


def _value(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


class OnChange(Protocol):
    """Listener that is called with all trials by number after each event."""

    def __call__(self, trials: Trials, /) -> None: ...


class _PipeSafeConsole(Console):
    """Console that raises BrokenPipeError for a closed pipe; rich's own console ends the thread."""

    def on_broken_pipe(self) -> None:
        """Raise the error again; rich calls this while it handles it."""
        raise BrokenPipeError


class JournalFollower:
    """Thread that reads a study's journal while it is written, shows the trials and calls the listeners."""

    def __init__(
        self,
        journal: Journal,
        config: Config,
        on_change: Sequence[OnChange] = (),
        console: Console | None = None,
    ) -> None:
        console = console or _PipeSafeConsole(stderr=True)
        self._journal = journal
        self._objective = config.metrics.objective
        self._on_change = on_change
        self._display: Display = LiveTable(console, config) if console.is_terminal else Lines(console, config)
        self._trials: dict[str, TrialResult] = {}
        self._display_failed = False
        self._offset = 0
        for _ in self._new_events():  # events of an earlier session: read, and not shown again
            pass
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="study-progress", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._display.close()

    def _follow(self) -> None:
        """Show new events until the end of the block; the target of the thread."""
        while True:
            last = self._ended.wait(_POLL_S)
            for event in self._new_events():
                self._notify(event)
            if last:
                return

    def _new_events(self) -> Iterator[Event]:
        """Yield the events since the last call, and apply them to the trials."""
        for event, offset in self._journal.read(self._offset):
            self._offset = offset
            self._trials = apply_event(self._trials, event, self._objective)
            yield event

    def _notify(self, event: Event) -> None:
        """Show an event, and call the listeners."""
        trials = by_number(self._trials)
        if not self._display_failed:
            try:
                self._display.show(event, trials)
            except OSError:  # a closed pipe or terminal: the study goes on without a display
                self._display_failed = True
        for listener in self._on_change:
            try:
                listener(trials)
            except Exception:  # an error of a listener must not end the display
                log.exception("listener of the study failed")
