"""What it takes to read a score: what real photographs reach against real photographs of other patients, and a bar."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from woundray.errors import UserError
from woundray.metrics.feature_checks import Matrix, feature_matrix

Distance = Callable[[Matrix, Matrix], float]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class RealBaseline:
    """Real against real: mean and standard deviation of a score over `repeats` splits, `n` pictures against `m`.

    `n` is the number really used; it is below `n_wanted` where there were too few real pictures. m None: n.
    """

    mean: float
    sd: float
    n: int
    repeats: int
    n_wanted: int
    m: int | None = None

    @classmethod
    def of(cls, values: Sequence[float], splits: Sequence[tuple[Rows, Rows]], *, n_wanted: int) -> "RealBaseline":
        """The floor of a score that was taken on each of the splits of `deals`."""
        n, m = (len(side) for side in splits[0])
        return cls(float(np.mean(values)), float(np.std(values, ddof=1)), n, len(values), n_wanted, m)

    def __str__(self) -> str:
        text = f"{self.mean:.4g} ± {self.sd:.2g} at n = {self.n}"
        if self.m not in (None, self.n):
            text += f" against {self.m}"
        if self.n < self.n_wanted:
            text += f", too few real pictures for {self.n_wanted}: the floor lies too high, z too low"
        return text


def deals(
    groups: Sequence[Hashable], *, n: int, m: int | None = None, repeats: int, seed: int
) -> list[tuple[Rows, Rows]]:
    """Row numbers of two sides of real pictures, n and m (None: n) of them, without a common patient; `repeats` times.

    groups: the patient of each picture. Each repeat deals the patients, in random order, to the side that lacks the
    larger part of what it wants, and draws without replacement. Where a side of any repeat holds too few, all repeats
    use sizes that are smaller by the same factor.

    Raises UserError for fewer than two patients or fewer than two pictures a side.
    """
    wanted = (n, n if m is None else m)
    if min(wanted) < 2 or repeats < 2:
        raise UserError(
            f"n = {min(wanted)}, repeats = {repeats}: a baseline needs at least 2 of each: give "
            "more pictures, or raise metrics.baseline_repeats"
        )
    rng = np.random.default_rng(seed)
    pictures_of_patient = _pictures_of_each(groups)
    splits = [_deal(pictures_of_patient, wanted, rng) for _ in range(repeats)]
    # split first, so that all repeats can use the same sizes
    share = min(1.0, *(len(side) / want for split in splits for side, want in zip(split, wanted, strict=True)))
    sizes = [int(share * want + 1e-9) for want in wanted]
    if min(sizes) < 2:
        raise UserError(
            f"real pictures: {len(groups)} of {len(pictures_of_patient)} patients leave fewer than 2 a side; "
            "give pictures of more patients"
        )
    return [(rng.choice(a, sizes[0], replace=False), rng.choice(b, sizes[1], replace=False)) for a, b in splits]


def refuse_too_few(train: Sequence[Hashable], held_out: Sequence[Hashable], *, n: int, repeats: int, seed: int) -> None:
    """Raises UserError for photographs that are too few to be compared with one another.

    train, held_out: patient of each photograph; n, repeats, seed: of the baseline, as `measure_real_baseline` has them.
    """
    if len(held_out) < 2:
        raise UserError(
            f"photographs: {len(train)} to train on and {len(held_out)} held out; 2 or more must be held out: add "
            "photographs of other patients, or raise validation.share"
        )
    deals([*held_out, *train], n=n, m=len(held_out), repeats=repeats, seed=seed)


def measure_real_baseline(
    features: ArrayLike,
    groups: Sequence[Hashable],
    *,
    n: int,
    m: int | None = None,
    repeats: int,
    seed: int,
    distance: Distance,
) -> RealBaseline:
    """Distance between two disjoint sets of n and m real pictures, no patient in both, where the truth is 0.

    features: (N, d) of real pictures; groups: the patient of each; distance: of two feature matrices. Sides are dealt
    by `deals`. Where there are too few real pictures the Floor says so in `n`: for a biased distance such as
    Fréchet's it then lies higher than the floor at the n that was wanted.

    Raises UserError for fewer than two patients, fewer than two pictures a side, or groups of another length.
    """
    matrix = feature_matrix(features, "real pictures")
    if len(groups) != len(matrix):
        raise UserError(f"groups: {len(groups)} patients for {len(matrix)} pictures; give one a picture")
    splits = deals(groups, n=n, m=m, repeats=repeats, seed=seed)
    return RealBaseline.of([distance(matrix[a], matrix[b]) for a, b in splits], splits, n_wanted=n)


def z(value: float, real_baseline: RealBaseline) -> float:
    """(value - floor mean) / floor sd: near 0 means as near as other patients' photographs are.

    Raises UserError where the floor has no spread.
    """
    if real_baseline.sd == 0.0:
        raise UserError(f"floor {real_baseline}: no spread, so there is no z; look for equal real pictures")
    return (value - real_baseline.mean) / real_baseline.sd


def _pictures_of_each(groups: Sequence[Hashable]) -> list[Rows]:
    """Row numbers of each patient's pictures, patients in order of first appearance."""
    rows: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups):
        rows.setdefault(group, []).append(row)
    return [np.array(r, dtype=np.int64) for r in rows.values()]


def _deal(patients: list[Rows], wanted: tuple[int, int], rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Two disjoint sets of row numbers: patients in random order, each to the side that is filled less."""
    sides: tuple[list[int], list[int]] = ([], [])
    for patient in rng.permutation(len(patients)):
        fuller = len(sides[0]) / wanted[0] > len(sides[1]) / wanted[1]
        sides[fuller].extend(patients[patient].tolist())
    return np.array(sides[0], dtype=np.int64), np.array(sides[1], dtype=np.int64)
