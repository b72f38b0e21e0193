"""Threshold of a score, such as FID at most 50."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Threshold:
    """What a score should reach: at most (`max`) or at least (`min`) the limit.

    comparable: the score was taken on the features that the limit was chosen for.
    """

    limit: float
    kind: Literal["max", "min"]
    comparable: bool = True

    def holds(self, value: float) -> bool:
        """Whether a value is on the right side; the limit itself is."""
        return value <= self.limit if self.kind == "max" else value >= self.limit

    def __str__(self) -> str:
        return f"{'≤' if self.kind == 'max' else '≥'} {self.limit:g}"
