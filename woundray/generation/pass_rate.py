"""Pass rate of a checkpoint's images: counts while images are generated, and when to give up."""

from collections import Counter
from dataclasses import dataclass, field

from scipy.stats import binomtest

from woundray.evaluation.verdict import MIN_USABLE_SHARE

CHECKS = {
    "knn": "unlike a wound",
    "copies": "like a copy of a photograph",
    "ssim": "unlike every photograph (SSIM)",
    "lpips": "unlike every photograph (LPIPS)",
    "blank": "black or white",
    "brightness": "too dark or too bright",
    "flat": "of one colour",
}
"""Metric or check of the filter -> description of the images that fail it."""

_CONFIDENCE = 0.95


@dataclass
class PassRate:
    """Counts of images of one checkpoint.

    Attributes:
        existing: requested images that were in the folder before.
        tries: images that are generated at most for each requested one.
        reasons: number of rejected images by metric or check.
        refused_photographs: share of held-out photographs that the filter rejects; None: no filter.
        earlier: number of images that passed and of all, in an earlier evaluation; (0, 0) where there was none.
    """

    phase: str
    requested: int
    existing: int = 0
    tries: int = 1
    generated: int = 0
    kept: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    refused_photographs: float | None = None
    earlier: tuple[int, int] = (0, 0)

    @property
    def missing(self) -> int:
        """Number of images that are still to be generated."""
        return self.requested - self.existing - self.kept

    @property
    def max_generated(self) -> int:
        """Number of images that are generated at most."""
        return (self.requested - self.existing) * self.tries

    def too_few_pass(self) -> bool:
        """Return whether fewer than one image in 20 (in `tries` if these are more) passes, with 95 % confidence.

        By the one-sided exact interval of a share (Clopper & Pearson 1934); counts of the earlier evaluation are added.
        """
        passed, generated = self.kept + self.earlier[0], self.generated + self.earlier[1]
        if self.refused_photographs is None or generated == 0:
            return False
        interval = binomtest(passed, generated, alternative="less").proportion_ci(_CONFIDENCE, method="exact")
        return bool(interval.high < min(MIN_USABLE_SHARE, 1 / self.tries))

    def progress(self, elapsed_s: float) -> str:
        """Format as `kept 3 of 20, 48 drawn; refused 40 unlike a wound; about 4 min left`."""
        text = f"kept {self.kept + self.existing} of {self.requested}, {self.generated} drawn"
        if self.reasons:
            text += f"; refused {self._refused()}"
        if not self.generated or self.missing <= 0:
            return text
        if self.refused_photographs is None or self.kept:
            left_s = elapsed_s * self.missing / max(self.kept, 1)
            return f"{text}; {_minutes(left_s)} left"
        return f"{text}; at most {_minutes(elapsed_s / self.generated * (self.max_generated - self.generated))} left"

    def __str__(self) -> str:
        """Format the number of kept images, and the rejected shares of images and of photographs."""
        lines = [f"phase {self.phase}: {self.kept} pictures"]
        if self.existing:
            lines[0] += f", and {self.existing} that were there"
        if self.refused_photographs is not None and self.generated:
            refused = self.generated - self.kept
            lines[0] += f"; the filter refused {refused} of {self.generated} ({refused / self.generated:.0%})"
            if self.reasons:
                lines[0] += f": {self._refused()}"
            lines.append(f"of photographs of held-out patients it refuses {self.refused_photographs:.0%}")
        if self.missing:
            lines.append(self._given_up())
        return "\n".join(lines)

    def _given_up(self) -> str:
        text = f"given up after {self.generated} pictures, {self.missing} short of {self.requested}"
        if not self.too_few_pass():
            return text
        before = f" (and {self.earlier[0]} of the {self.earlier[1]} that were evaluated)" if self.earlier[1] else ""
        least = max(self.tries, round(1 / MIN_USABLE_SHARE))
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
