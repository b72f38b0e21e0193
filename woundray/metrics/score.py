"""Score of a set of images, with the size, baseline, interval and threshold that it is read with."""

from dataclasses import dataclass

from woundray.metrics.real_baseline import RealBaseline, z
from woundray.metrics.threshold import Threshold


@dataclass(frozen=True)
class Score:
    """A score and all that it takes to read it.

    Attributes:
        value: of `n` generated pictures against `reference_n` real ones (None: the score needs no reference), on
            the features of `extractor`, with pictures of seed `seed` on.
        real_baseline: real against real, at these sizes as far as the real pictures go.
        low, high: 95 % interval.
        real: what real photographs score where there is no floor, only one value.
    """

    name: str
    value: float
    n: int
    real_baseline: RealBaseline | None
    seed: int
    extractor: str
    reference_n: int | None = None
    low: float | None = None
    high: float | None = None
    real: float | None = None
    threshold: Threshold | None = None

    @property
    def z(self) -> float | None:
        """Standard deviations above the floor; None without a floor, or for one without spread."""
        return None if self.real_baseline is None or self.real_baseline.sd == 0 else z(self.value, self.real_baseline)

    @property
    def of_real(self) -> float | None:
        """What real photographs score."""
        return self.real if self.real_baseline is None else self.real_baseline.mean

    @property
    def verdict(self) -> str:
        """`passes` or `fails`; empty where there is no bar.

        `meaningless at n = 50`: real photographs fail the threshold, too; `not judged`: it was made for other features.
        """
        if self.threshold is None:
            return ""
        if self.of_real is not None and not self.threshold.holds(self.of_real):
            return f"meaningless at n = {self.n}"
        if not self.threshold.comparable:
            return "not judged"
        return "passes" if self.threshold.holds(self.value) else "fails"

    def __str__(self) -> str:
        """One line: `fd_lite0 31.2 (n = 100 against 70 real, lite0, seed 0; floor 25.1 ± 1.6 at n = 100; z +3.8)`."""
        against = "" if self.reference_n is None else f" against {self.reference_n} real"
        score_context = f"n = {self.n}{against}, {self.extractor}, seed {self.seed}"
        real_baseline = (
            "" if self.real_baseline is None or self.z is None else f"; floor {self.real_baseline}; z {self.z:+.1f}"
        )
        return f"{self.name} {self.value:.4g} ({score_context}{real_baseline})"
