"""Threshold: limit that a score should stay below or reach."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Threshold:
    """Limit of a score: an upper one (`max`) or a lower one (`min`).

    comparable: whether the score was computed on the features that the limit was chosen for.
    """

    limit: float
    kind: Literal["max", "min"]
    comparable: bool = True

    def holds(self, value: float) -> bool:
        """Return whether a value meets the threshold; the limit itself does."""
        return value <= self.limit if self.kind == "max" else value >= self.limit

    def __str__(self) -> str:
        return f"{'≤' if self.kind == 'max' else '≥'} {self.limit:g}"
