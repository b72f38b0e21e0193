"""Real-vs-real baseline: a score of real photographs against real photographs of other patients.

It shows what a perfect generator would score at the same sample sizes.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from woundray.errors import UserError
from woundray.metrics.feature_checks import Matrix, Rows, feature_matrix

Distance = Callable[[Matrix, Matrix], float]


@dataclass(frozen=True)
class BaselineOptions:
    """Random splits that a baseline is measured on.

    Attributes:
        n, m: images of the two sides; m None: as many as n.
        repeats: number of splits.
    """

    n: int
    repeats: int
    seed: int
    m: int | None = None


@dataclass(frozen=True)
class RealBaseline:
    """Mean and standard deviation of a score, real against real, over `repeats` splits of `n` against `m` images.

    `n` is the size that was used; it is below `n_wanted` where there were too few real images. m None: as many as n.
    """

    mean: float
    sd: float
    n: int
    repeats: int
    n_wanted: int
    m: int | None = None

    @classmethod
    def of(cls, values: Sequence[float], splits: Sequence[tuple[Rows, Rows]], *, n_wanted: int) -> "RealBaseline":
        """Summarise values of a score, one for each split of `patient_splits`."""
        n, m = (len(side) for side in splits[0])
        return cls(float(np.mean(values)), float(np.std(values, ddof=1)), n, len(values), n_wanted, m)

    def __str__(self) -> str:
        text = f"{self.mean:.4g} ± {self.sd:.2g} at n = {self.n}"
        if self.m not in (None, self.n):
            text += f" against {self.m}"
        if self.n < self.n_wanted:
            text += f", too few real pictures for {self.n_wanted}: the floor lies too high, z too low"
        return text


def patient_splits(groups: Sequence[Hashable], options: BaselineOptions) -> list[tuple[Rows, Rows]]:
    """Draw `options.repeats` splits of real images into two sides of n and m images without a common patient.

    groups: patient of each image. Returns row indices of both sides. Each repeat assigns the patients, in random
    order, to the side that is filled less, and then draws images without replacement. Where a side of any repeat has
    too few images, all repeats use sizes that are smaller by the same factor.

    Raises UserError for fewer than two patients or fewer than two images a side.
    """
    requested = (options.n, options.n if options.m is None else options.m)
    if min(requested) < 2 or options.repeats < 2:
        raise UserError(
            f"n = {min(requested)}, repeats = {options.repeats}: a baseline needs at least 2 of each: give "
            "more pictures, or raise metrics.baseline_repeats"
        )
    rng = np.random.default_rng(options.seed)
    rows_of_patients = _rows_by_patient(groups)
    splits = [_split_patients(rows_of_patients, requested, rng) for _ in range(options.repeats)]
    # all splits come first, so that every repeat can use the same sizes
    factor = min(1.0, *(len(side) / size for split in splits for side, size in zip(split, requested, strict=True)))
    sizes = [int(factor * size + 1e-9) for size in requested]
    if min(sizes) < 2:
        raise UserError(
            f"real pictures: {len(groups)} of {len(rows_of_patients)} patients leave fewer than 2 a side; "
            "give pictures of more patients"
        )
    return [(rng.choice(a, sizes[0], replace=False), rng.choice(b, sizes[1], replace=False)) for a, b in splits]


def check_enough_images(train: Sequence[Hashable], held_out: Sequence[Hashable], options: BaselineOptions) -> None:
    """Raise UserError where there are too few photographs or patients to measure a baseline.

    train, held_out: patient of each photograph; `options.m` is replaced by the number of held-out photographs.
    """
    if len(held_out) < 2:
        raise UserError(
            f"photographs: {len(train)} to train on and {len(held_out)} held out; 2 or more must be held out: add "
            "photographs of other patients, or raise validation.share"
        )
    patient_splits([*held_out, *train], replace(options, m=len(held_out)))


def measure_real_baseline(
    features: ArrayLike, groups: Sequence[Hashable], options: BaselineOptions, *, distance: Distance
) -> RealBaseline:
    """Measure a distance between disjoint sets of n and m real images, without a common patient; the truth is 0.

    features: (N, d) of real images; groups: patient of each; distance: function of two feature matrices. The sides
    are those of `patient_splits`. With too few real images `RealBaseline.n` is below `options.n`: the mean of a
    biased distance such as Fréchet's is then higher than it would be at `options.n`.

    Raises UserError for fewer than two patients, fewer than two images a side, or groups of another length.
    """
    matrix = feature_matrix(features, "real pictures")
    if len(groups) != len(matrix):
        raise UserError(f"groups: {len(groups)} patients for {len(matrix)} pictures; give one a picture")
    splits = patient_splits(groups, options)
    return RealBaseline.of([distance(matrix[a], matrix[b]) for a, b in splits], splits, n_wanted=options.n)


def z(value: float, real_baseline: RealBaseline) -> float:
    """Return (value - baseline mean) / baseline sd; near 0: as near as photographs of other patients.

    Raises UserError where the standard deviation of the baseline is 0.
    """
    if real_baseline.sd == 0.0:
        raise UserError(f"floor {real_baseline}: no spread, so there is no z; look for equal real pictures")
    return (value - real_baseline.mean) / real_baseline.sd


def _rows_by_patient(groups: Sequence[Hashable]) -> list[Rows]:
    """Return row indices of each patient's images, patients in order of first appearance."""
    rows: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups):
        rows.setdefault(group, []).append(row)
    return [np.array(r, dtype=np.int64) for r in rows.values()]


def _split_patients(patients: list[Rows], sizes: tuple[int, int], rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Assign patients, in random order, each to the side that is filled less; return row indices of both sides."""
    sides: tuple[list[int], list[int]] = ([], [])
    for patient in rng.permutation(len(patients)):
        fuller = len(sides[0]) / sizes[0] > len(sides[1]) / sizes[1]
        sides[fuller].extend(patients[patient].tolist())
    return np.array(sides[0], dtype=np.int64), np.array(sides[1], dtype=np.int64)
