"""Coverage of the interval of `woundray augment` on simulated studies; nominal: 95 %.

python scripts/coverage.py --studies 1000
"""

from dataclasses import dataclass

import numpy as np
import tyro

from woundray.downstream import statistics
from woundray.downstream.statistics import Floats

_POPULATION = 300_000  # patients that stand for all


@dataclass(frozen=True)
class Simulated:
    """Simulated studies of two arms with shared patient difficulty; `shift`: advantage of the second arm.

    Of one to three pictures a patient; of seeds that agree in part.
    """

    patients: int
    shift: float
    seeds: int = 3

    def study(self, generator: np.random.Generator, patients: int) -> Floats:
        """Simulate counts (P, 2, S, 3, 3)."""
        patient = np.repeat(np.arange(patients), generator.integers(1, 4, patients))
        truth = generator.choice(3, size=patients, p=(0.22, 0.48, 0.30))[patient]
        shape = (2, self.seeds, len(patient))
        ease = generator.normal(0, 1.2, patients)[patient] + generator.normal(0, 0.5, len(patient))
        of_arm = generator.normal(0, 0.6, (2, 1, len(patient)))
        right = ease + of_arm + generator.normal(0, 0.3, shape) > -np.array([0.3, 0.3 + self.shift]).reshape(2, 1, 1)
        other = (truth + generator.choice((1, 2), p=(0.7, 0.3), size=shape)) % 3
        return statistics.patient_confusions(truth, np.where(right, truth, other), patient, 3)


def gain(confusions: Floats) -> Floats:
    """Return the gain in mean kappa over seeds: (..., 2, S, 3, 3) -> (...)."""
    means: Floats = statistics.kappa(confusions).mean(axis=-1)
    difference: Floats = means[..., 1] - means[..., 0]
    return difference


@dataclass(frozen=True)
class Options:
    """Command-line options."""

    studies: int = 1000
    """Studies of each size and gain."""
    resamples: int = 1000
    """Bootstrap samples of each."""
    patients: tuple[int, ...] = (60, 90, 200, 300)
    """Sizes."""


def main() -> None:
    """Print a line for each size and gain."""
    options = tyro.cli(Options, description=__doc__)
    held_of_all = []
    for shift in (0.0, 0.4):
        truth = float(gain(Simulated(0, shift).study(np.random.default_rng(0), _POPULATION).sum(axis=0)))
        for patients in options.patients:
            simulated = Simulated(patients, shift)
            held, wide = [], []
            for number in range(options.studies):
                counts = simulated.study(np.random.default_rng([1, patients, number]), patients)
                found = statistics.bootstrap(counts, gain, resamples=options.resamples, seed=number)
                held.append(found.low <= truth <= found.high)
                wide.append(found.high - found.low)
            held_of_all += held
            print(f"{patients:4} patients, true gain {truth:+.3f}: {np.mean(held):.1%} held, width {np.mean(wide):.3f}")
    print(f"all: {np.mean(held_of_all):.2%} of {len(held_of_all)}")


if __name__ == "__main__":
    main()
