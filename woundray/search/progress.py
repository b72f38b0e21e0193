"""Shows a study while it runs: a live table on a terminal, plain lines elsewhere."""

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
from woundray.results.trials import TrialResult, best_trial, by_number, update
from woundray.tracking.journal import EpochReported, Event, FinalistScored, Journal, TrialEnded

_POLL_S = 0.2
_COLUMN_GAP = 2  # blanks between columns
_EXTRA_LINES = 4  # lines of a table that are no trials: title, headings, caption, cursor

Trials = tuple[TrialResult, ...]

log = logging.getLogger(__name__)


class Display(Protocol):
    """Draws the trials after each event."""

    def show(self, event: Event, trials: Trials) -> None:
        """Draws all trials, or tells what the event changed."""

    def close(self) -> None:
        """Leaves the terminal as it was."""


class LiveTable:
    """One row a trial, drawn anew in place; below it how far the study is, and how long it may still take."""

    def __init__(self, console: Console, config: Config) -> None:
        self._config = config
        self._started_s = time.monotonic()
        self._at_start: float | None = None
        self._live = Live(console=console, refresh_per_second=4)
        self._live.start()

    def show(self, event: Event, trials: Trials) -> None:
        share = share_done(trials, self._config)
        if self._at_start is None:  # above 0 for a study that is resumed
            self._at_start = share
        size = self._live.console.size
        drawn = table(trials, self._config, size.width, size.height)
        left = time_left(share, self._at_start, time.monotonic() - self._started_s)
        drawn.caption = f"{self._config.metrics.objective}, lower is better   {share:.0%} done{left}"
        self._live.update(drawn)

    def close(self) -> None:
        self._live.stop()


class Lines:
    """One line an epoch, and one when a trial ends."""

    def __init__(self, console: Console, config: Config) -> None:
        self._config = config
        self._console = console

    def show(self, event: Event, trials: Trials) -> None:
        text = line(event, trials, self._config)
        if text:
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None: ...


def table(trials: Trials, config: Config, width: int = 0, height: int = 0) -> Table:
    """All trials: state, epochs, scores, and the values that were searched.

    Args:
        width: columns of the terminal. Where the settings do not fit beside the scores, those of running trials and of
            the best share a column that folds: a score is never cut. 0: no end.
        height: rows of the terminal. Where not all trials fit, the best, those that run and the last ones are shown. 0:
            no end.
    """
    best = best_trial(trials, config.metrics.objective)
    names = list(dict.fromkeys(name for trial in trials for name in trial.values))
    leaves = [name.rsplit(".", 1)[-1].replace("_", " ") for name in names]
    settings = [leaf if leaves.count(leaf) == 1 else name for leaf, name in zip(leaves, names, strict=True)]
    headings = ["trial", "state", "epoch", "last", "best"]
    scores = {trial.id: _scores(trial, config) for trial in trials}
    values = {trial.id: [_value(trial.values.get(name)) for name in names] for trial in trials}
    of_scores, of_settings = (_width(head, cells.values()) for head, cells in ((headings, scores), (settings, values)))
    beside = not width or of_scores + of_settings <= width

    drawn = Table(box=None, header_style="bold", padding=(0, _COLUMN_GAP, 0, 0))
    for heading in headings:
        drawn.add_column(heading, justify="left" if heading == "state" else "right", no_wrap=True, overflow="fold")
    for heading in settings if beside else ["settings"]:
        drawn.add_column(heading, justify="right" if beside else "left", no_wrap=beside, overflow="fold")

    folded = {}
    for trial in trials if not beside else ():
        if trial == best or trial.status == "running":
            pairs = zip(settings, values[trial.id], strict=True)
            folded[trial.id] = ", ".join(f"{name} {value}" for name, value in pairs if value)
    lines = {trial.id: 1 + len(folded.get(trial.id, "")) // max(1, width - of_scores - _COLUMN_GAP) for trial in trials}
    shown = _fitting_trials(trials, best, lines, height - _EXTRA_LINES) if height else trials
    for trial in shown:
        cells = values[trial.id] if beside else [folded.get(trial.id, "")]
        style = "bold green" if trial == best else "red" if trial.status == "failed" else ""
        drawn.add_row(*scores[trial.id], *cells, style=style)
    if len(shown) < len(trials):
        drawn.title = f"{len(trials) - len(shown)} of {len(trials)} trials are not shown: the terminal is too low"
    return drawn


def _scores(trial: TrialResult, config: Config) -> list[str]:
    epochs = f"{trial.epochs}/{config.training.epochs}"
    return [str(trial.number), _state(trial), epochs, _score(trial.last_score), _score(trial.best_score)]


def _width(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> int:
    """Columns that a part of the table takes."""
    return sum(max(map(len, column)) + _COLUMN_GAP for column in zip(headings, *rows, strict=True))


def _fitting_trials(trials: Trials, best: TrialResult | None, lines: Mapping[str, int], most: int) -> Trials:
    """As many trials as there are lines for: the best, those that run, the last ones."""
    order = sorted(trials, key=lambda trial: (trial != best, trial.status != "running", -trial.number))
    fitting = [total <= most for total in itertools.accumulate(lines[trial.id] for trial in order)]
    return tuple(sorted(order[: max(1, sum(fitting))], key=lambda trial: trial.number))


def share_done(trials: Trials, config: Config) -> float:
    """How much of a study's or run's epochs are done, 0 to 1; those that ASHA spared count as done."""
    searched = any(trial.values for trial in trials)
    total = max(len(trials), config.study.trials if searched else 1)
    done = sum(1.0 if trial.status != "running" else trial.epochs / config.training.epochs for trial in trials)
    return done / total


def time_left(share: float, at_start: float, elapsed_s: float) -> str:
    """`, about 12 min left` at the pace since the start; empty while there is none."""
    if share <= at_start or share >= 1:
        return ""
    left_s = elapsed_s * (1 - share) / (share - at_start)
    return f", about {left_s / 3600:.1f} h left" if left_s > 5400 else f", about {left_s / 60:.0f} min left"


def line(event: Event, trials: Trials, config: Config) -> str:
    """What an event changed, as `trial 3  epoch 2/6  fd_lite0 61.2  best 58.9 (trial 1)`; empty: nothing."""
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
    """Is told all trials so far, in the order of start."""

    def __call__(self, trials: Trials, /) -> None: ...


class _PipeSafeConsole(Console):
    """A console that leaves it to its user what becomes of a pipe that nobody reads; rich's own ends the thread."""

    def on_broken_pipe(self) -> None:
        """Called by rich while it handles the error."""
        raise BrokenPipeError


class JournalFollower:
    """A thread that reads a study's journal while it is written, and shows it."""

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
        for _ in self._new_events():  # of a study that is resumed: known, not shown again
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
        while True:
            last = self._ended.wait(_POLL_S)
            for event in self._new_events():
                self._tell(event)
            if last:
                return

    def _new_events(self) -> Iterator[Event]:
        """What was written since the last call; the trials follow it."""
        for event, offset in self._journal.read(self._offset):
            self._offset = offset
            self._trials = update(self._trials, event, self._objective)
            yield event

    def _tell(self, event: Event) -> None:
        trials = by_number(self._trials)
        if not self._display_failed:
            try:
                self._display.show(event, trials)
            except OSError:  # a pipe that nobody reads, or a terminal that was closed: the study goes on
                self._display_failed = True
        for listener in self._on_change:
            try:
                listener(trials)
            except Exception:  # a listener that fails must not end the display of a study that goes on
                log.exception("listener of the study failed")
