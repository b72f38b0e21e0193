"""Savings and regret of early stopping, against trial-seconds, from one study without early stopping.

    python -m woundray.tune --phase I --trials 24 --study.startup_trials 24 --study.grace_epochs 6 --study.name full
    python scripts/regret.py woundray-runs/full docs/regret.png

The trials are replayed one after another in many random orders under each rule. Regret is the lowest score so far above
the lowest of all trials. The rule is that of asynchronous successive halving (Li et al. 2020, arXiv 1810.05934, alg. 2)
as Ray Tune has it: at epochs grace, grace x reduction, ... a trial goes on if it is among the best 1 / reduction of
those that came so far. What the sampler learns from finished trials is not replayed: values are drawn at random.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot as plt
from numpy.typing import NDArray
from scipy.stats import spearmanr

from woundray.search.study_folders import journal_path
from woundray.tracking.journal import EpochReported, Journal

SCORE, LOSS = "fd_lite0", "validation_loss"
TRIAL_S = 1.8  # what a trial costs beyond its epochs, docs/benchmarks.md
Curve = list[dict[str, float]]  # an epoch's metrics each


@dataclass(frozen=True)
class Rule:
    """Rule of early stopping: metric, first epoch (grace), and reduction (one trial in `reduction` continues)."""

    metric: str
    grace: int
    reduction: float

    def __str__(self) -> str:
        if not self.grace:
            return "no trial is stopped"
        return f"{self.metric}, grace {self.grace}, reduction {self.reduction:g}"

    def rungs(self, epochs: int) -> list[int]:
        """Return the epochs at which trials are compared, without the last one."""
        if not self.grace:
            return []
        steps = range(int(math.log(epochs / self.grace, self.reduction)) + 1)
        return [rung for rung in (round(self.grace * self.reduction**step) for step in steps) if rung < epochs]


NONE, DEFAULT = Rule(SCORE, 0, 2), Rule(SCORE, 1, 2)  # the default study's
RULES = (
    NONE,
    *(Rule(metric, grace, reduction) for metric in (SCORE, LOSS) for grace in (1, 2) for reduction in (2, 3, 4)),
)
SHOWN = (NONE, DEFAULT, Rule(SCORE, 1, 4), Rule(SCORE, 2, 2), Rule(LOSS, 1, 2))


def read_curves(study: Path) -> list[Curve]:
    """Read the epochs of each trial."""
    curves: dict[str, Curve] = {}
    for event in Journal(journal_path(study)).events():
        if isinstance(event, EpochReported):
            curves.setdefault(event.trial, []).append(event.metrics)
    longest = max(map(len, curves.values()))
    return [curve for curve in curves.values() if len(curve) == longest]


def replay(curves: Sequence[Curve], rule: Rule) -> list[tuple[float, float]]:
    """Return seconds so far and the lowest score so far, after each epoch."""
    rungs: dict[int, list[float]] = {epoch: [] for epoch in rule.rungs(len(curves[0]))}
    told, spent_s, lowest = [], 0.0, math.inf
    for curve in curves:
        spent_s += TRIAL_S
        for epoch, metrics in enumerate(curve, start=1):
            spent_s += metrics["seconds_training"] + metrics["seconds_scoring"]
            lowest = min(lowest, metrics[SCORE])
            told.append((spent_s, lowest))
            if epoch in rungs:
                before, value = rungs[epoch], metrics[rule.metric]
                cutoff = np.percentile(before, 100 / rule.reduction) if before else math.inf
                before.append(value)
                if value > cutoff:
                    break
    return told


@dataclass(frozen=True)
class Outcome:
    """Results of one rule over many orders.

    Mean regret at each time (times,), nan while an order has no score yet, and mean trial-seconds of the study.
    """

    regret: NDArray[np.float64]
    spent_s: float

    @classmethod
    def of(cls, curves: Sequence[Curve], rule: Rule, times_s: NDArray[np.float64], orders: int) -> "Outcome":
        """Replay the trials in `orders` random orders."""
        best = min(metrics[SCORE] for curve in curves for metrics in curve)
        rows, spent_s = np.full((orders, len(times_s)), np.nan), []
        for row in range(orders):
            order = np.random.default_rng(row).permutation(len(curves))
            seconds, lowest = np.array(replay([curves[index] for index in order], rule)).T
            known = np.searchsorted(seconds, times_s, side="right")
            rows[row, known > 0] = lowest[known[known > 0] - 1] - best
            spent_s.append(seconds[-1])
        return cls(rows.mean(axis=0), float(np.mean(spent_s)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--orders", type=int, default=500)
    arguments = parser.parse_args()
    curves = read_curves(arguments.study)
    epochs = len(curves[0])
    lowest = [min(metrics[SCORE] for metrics in curve) for curve in curves]
    print(f"{len(curves)} trials of {epochs} epochs: lowest {SCORE} {min(lowest):.1f} to {max(lowest):.1f}")
    for name in (SCORE, LOSS):
        ranks = [spearmanr([curve[epoch][name] for curve in curves], lowest).statistic for epoch in range(epochs)]
        print(
            f"Spearman of {name} at epochs 1 to {epochs} with the lowest score: " + " ".join(f"{r:.2f}" for r in ranks)
        )

    whole_s = max(seconds for seconds, _ in replay(curves, NONE))
    times_s = np.linspace(whole_s / 100, whole_s, 200)
    figure, axes = plt.subplots(figsize=(7.2, 4.2), layout="constrained")
    print(
        "rule, trial-seconds of the whole study, regret at an eighth, a quarter, half of the unstopped study's and then"
    )
    for rule in RULES:
        outcome = Outcome.of(curves, rule, times_s, arguments.orders)
        at = " ".join(f"{outcome.regret[int(share * 199)]:5.1f}" for share in (1 / 8, 1 / 4, 1 / 2, 1))
        print(f"{rule!s:44} {outcome.spent_s:6.0f} s   {at}")
        if rule in SHOWN:
            axes.plot(times_s, outcome.regret, label=str(rule), linewidth=2.5 if rule == DEFAULT else 1.2)
    axes.set(xlabel="trial-seconds", ylabel=f"regret in {SCORE}, mean of {arguments.orders} orders", ylim=(0, None))
    axes.legend(frameon=False)
    figure.savefig(arguments.picture, dpi=110)


if __name__ == "__main__":
    main()
