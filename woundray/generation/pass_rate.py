"""Counts of one checkpoint's pictures while they are drawn, and whether it is worth going on."""

from collections import Counter
from dataclasses import dataclass, field

from scipy.stats import binomtest

from woundray.evaluation.verdict import FEWEST_USABLE

CHECKS = {
    "knn": "unlike a wound",
    "copies": "like a copy of a photograph",
    "ssim": "unlike every photograph (SSIM)",
    "lpips": "unlike every photograph (LPIPS)",
    "blank": "black or white",
    "brightness": "too dark or too bright",
    "flat": "of one colour",
}
"""What the filter's checks refuse, in words."""

_CONFIDENCE = 0.95


@dataclass
class PassRate:
    """Pictures of one checkpoint.

    Attributes:
        there: wanted pictures that were in the folder before.
        tries: pictures that are drawn at most for each one that is wanted.
        refused_photographs: share of held-out photographs that the filter refuses; None: no filter.
        known: passed and all pictures of an earlier evaluation of the checkpoint, (0, 0) where there was none.
    """

    phase: str
    wanted: int
    there: int = 0
    tries: int = 1
    drawn: int = 0
    kept: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    refused_photographs: float | None = None
    known: tuple[int, int] = (0, 0)

    @property
    def short(self) -> int:
        """Pictures that are wanting."""
        return self.wanted - self.there - self.kept

    @property
    def most(self) -> int:
        """Pictures that are drawn at most."""
        return (self.wanted - self.there) * self.tries

    def too_few_pass(self) -> bool:
        """Whether fewer than one picture in 20, or in `tries` if these are more, passes, with 95 % confidence.

        By the one-sided exact interval of a share (Clopper & Pearson 1934), earlier evaluation counted.
        """
        passed, drawn = self.kept + self.known[0], self.drawn + self.known[1]
        if self.refused_photographs is None or drawn == 0:
            return False
        interval = binomtest(passed, drawn, alternative="less").proportion_ci(_CONFIDENCE, method="exact")
        return bool(interval.high < min(FEWEST_USABLE, 1 / self.tries))

    def progress(self, elapsed_s: float) -> str:
        """`kept 3 of 20, 48 drawn; refused 40 unlike a wound; about 4 min left`."""
        text = f"kept {self.kept + self.there} of {self.wanted}, {self.drawn} drawn"
        if self.reasons:
            text += f"; refused {self._refused()}"
        if not self.drawn or self.short <= 0:
            return text
        if self.refused_photographs is None or self.kept:
            left_s = elapsed_s * self.short / max(self.kept, 1)
            return f"{text}; {_minutes(left_s)} left"
        return f"{text}; at most {_minutes(elapsed_s / self.drawn * (self.most - self.drawn))} left"

    def __str__(self) -> str:
        """How many were kept, and the share refused beside that of photographs."""
        lines = [f"phase {self.phase}: {self.kept} pictures"]
        if self.there:
            lines[0] += f", and {self.there} that were there"
        if self.refused_photographs is not None and self.drawn:
            refused = self.drawn - self.kept
            lines[0] += f"; the filter refused {refused} of {self.drawn} ({refused / self.drawn:.0%})"
            if self.reasons:
                lines[0] += f": {self._refused()}"
            lines.append(f"of photographs of held-out patients it refuses {self.refused_photographs:.0%}")
        if self.short:
            lines.append(self._given_up())
        return "\n".join(lines)

    def _given_up(self) -> str:
        text = f"given up after {self.drawn} pictures, {self.short} short of {self.wanted}"
        if not self.too_few_pass():
            return text
        before = f" (and {self.known[0]} of the {self.known[1]} that were evaluated)" if self.known[1] else ""
        least = max(self.tries, round(1 / FEWEST_USABLE))
        return (
            f"{text}: {self.kept} of them passed{before}, so that each picture would take more than {least} tries. "
            "This adapter does not draw such pictures: train a better one (more epochs, a larger base model), look at "
            "rejected/, or draw without --filter. --tries 1000 goes on all the same"
        )

    def _refused(self) -> str:
        return ", ".join(f"{times} {CHECKS.get(name, name)}" for name, times in self.reasons.most_common())


def _minutes(seconds: float) -> str:
    if seconds < 90:
        return f"about {seconds:.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"
