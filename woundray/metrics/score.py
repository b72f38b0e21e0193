"""Score of a set of images, with sample size, real-vs-real baseline, interval and threshold."""

from dataclasses import dataclass

from woundray.metrics.real_baseline import RealBaseline, z
from woundray.metrics.threshold import Threshold


@dataclass(frozen=True)
class Score:
    """Value of a metric and everything needed to interpret it.

    Attributes:
        value: of `n` generated images against `reference_n` real ones (None: the metric needs no reference), on the
            features of `extractor`; the seed of the first generated image is `seed`.
        real_baseline: real against real, at the same sizes where there are enough real images.
        low, high: 95 % interval.
        real: value of real photographs, for scores without a baseline.
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
        """Standard deviations above the baseline; None without a baseline or for one with standard deviation 0."""
        return None if self.real_baseline is None or self.real_baseline.sd == 0 else z(self.value, self.real_baseline)

    @property
    def real_value(self) -> float | None:
        """Value of real photographs: the mean of the baseline, else `real`."""
        return self.real if self.real_baseline is None else self.real_baseline.mean

    @property
    def verdict(self) -> str:
        """`passes` or `fails`; empty without a threshold.

        `meaningless at n = 50`: real photographs fail the threshold, too. `not judged`: the threshold was chosen for
        other features.
        """
        if self.threshold is None:
            return ""
        if self.real_value is not None and not self.threshold.holds(self.real_value):
            return f"meaningless at n = {self.n}"
        if not self.threshold.comparable:
            return "not judged"
        return "passes" if self.threshold.holds(self.value) else "fails"

    def __str__(self) -> str:
        """Format as `fd_lite0 31.2 (n = 100 against 70 real, lite0, seed 0; floor 25.1 ± 1.6 at n = 100; z +3.8)`."""
        against = "" if self.reference_n is None else f" against {self.reference_n} real"
        sample = f"n = {self.n}{against}, {self.extractor}, seed {self.seed}"
        baseline = (
            "" if self.real_baseline is None or self.z is None else f"; floor {self.real_baseline}; z {self.z:+.1f}"
        )
        return f"{self.name} {self.value:.4g} ({sample}{baseline})"
