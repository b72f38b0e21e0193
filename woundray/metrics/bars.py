"""The bar beside a score: what real photographs reach against real photographs of other patients."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from woundray.errors import UserError
from woundray.metrics.checks import Matrix, feature_matrix

Distance = Callable[[Matrix, Matrix], float]


@dataclass(frozen=True)
class Floor:
    """Real against real: mean and standard deviation of a distance over `repeats` splits, `n` pictures a side.

    `n` is the number really used; it is below `n_wanted` where there were too few real pictures.
    """

    mean: float
    sd: float
    n: int
    repeats: int
    n_wanted: int

    def __str__(self) -> str:
        text = f"{self.mean:.4g} ± {self.sd:.2g} at n = {self.n}"
        if self.n < self.n_wanted:
            text += f", too few real pictures for {self.n_wanted}: the floor lies too high, z too low"
        return text


@dataclass(frozen=True)
class Score:
    """A score and all that it takes to read it.

    `n` generated pictures were compared with `reference_n` real ones (None: the score needs no reference), on the
    features of `extractor`, with pictures of seed `seed`.
    """

    name: str
    value: float
    n: int
    floor: Floor | None
    seed: int
    extractor: str
    reference_n: int | None = None

    @property
    def z(self) -> float | None:
        """Standard deviations above the floor; None without a floor."""
        return None if self.floor is None else z(self.value, self.floor)

    def __str__(self) -> str:
        """One line: `fd_lite0 31.2 (n = 100 against 70 real, lite0, seed 0; floor 25.1 ± 1.6 at n = 100; z +3.8)`."""
        against = "" if self.reference_n is None else f" against {self.reference_n} real"
        basis = f"n = {self.n}{against}, {self.extractor}, seed {self.seed}"
        bar = "" if self.floor is None else f"; floor {self.floor}; z {self.z:+.1f}"
        return f"{self.name} {self.value:.4g} ({basis}{bar})"


def real_floor(
    features: ArrayLike,
    groups: Sequence[Hashable],
    *,
    n: int,
    repeats: int,
    seed: int,
    distance: Distance,
) -> Floor:
    """Distance between two disjoint sets of real pictures, no patient in both, where the truth is 0.

    features: (N, d) of real pictures; groups: the patient of each; distance: of two feature matrices.
    Each repeat deals the patients, in random order, to the side that has fewer pictures, and draws n pictures of
    each side without replacement. Where a side of any repeat holds fewer than n (fewer than 2n real pictures, or
    one patient with very many), every repeat uses the size of the smallest side instead, and the Floor says so in
    `n`: for a biased distance such as Fréchet's it then lies higher than the floor at the n that was wanted.

    Raises UserError for fewer than two patients, fewer than two pictures a side, or groups of another length.
    """
    matrix = feature_matrix(features, "real pictures")
    if len(groups) != len(matrix):
        raise UserError(f"groups: {len(groups)} patients for {len(matrix)} pictures; give one a picture")
    if n < 2 or repeats < 2:
        raise UserError(f"n = {n}, repeats = {repeats}: a floor needs at least 2 of each")

    # split first, so that all repeats can use the same n
    rng = np.random.default_rng(seed)
    pictures_of_patient = _pictures_of_each(groups)
    splits = [_deal(pictures_of_patient, rng) for _ in range(repeats)]
    n_used = min(n, *(len(side) for split in splits for side in split))
    if n_used < 2:
        raise UserError(
            f"real pictures: {len(matrix)} of {len(pictures_of_patient)} patients leave fewer than 2 a side; "
            "give pictures of more patients"
        )

    distances = [
        distance(*(matrix[rng.choice(side, size=n_used, replace=False)] for side in split)) for split in splits
    ]
    return Floor(float(np.mean(distances)), float(np.std(distances, ddof=1)), n_used, repeats, n_wanted=n)


def z(value: float, floor: Floor) -> float:
    """(value - floor mean) / floor sd: near 0 means as near as other patients' photographs are.

    Raises UserError where the floor has no spread.
    """
    if floor.sd == 0.0:
        raise UserError(f"floor {floor}: no spread, so there is no z; look for equal real pictures")
    return (value - floor.mean) / floor.sd


def _pictures_of_each(groups: Sequence[Hashable]) -> list[NDArray[np.int64]]:
    """Row numbers of each patient's pictures, patients in order of first appearance."""
    rows: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups):
        rows.setdefault(group, []).append(row)
    return [np.array(r, dtype=np.int64) for r in rows.values()]


def _deal(patients: list[NDArray[np.int64]], rng: np.random.Generator) -> tuple[NDArray[np.int64], ...]:
    """Two disjoint sets of row numbers: patients in random order, each to the smaller side."""
    sides: tuple[list[int], list[int]] = ([], [])
    for patient in rng.permutation(len(patients)):
        min(sides, key=len).extend(patients[patient].tolist())
    return tuple(np.array(side, dtype=np.int64) for side in sides)
