"""Split of photographs whose sides are large enough to be compared; it imports no torch, for `doctor`."""

from collections.abc import Sequence

from woundray.config import Config
from woundray.data.manifest import Photo
from woundray.data.split import Split, split_for
from woundray.metrics.real_baseline import refuse_too_few


def comparable_split(photos: Sequence[Photo], config: Config) -> Split:
    """Training and held-out sides as the configuration wants them.

    Raises:
        UserError: patients or photographs are too few.
    """
    split = split_for(photos, config)
    if split.validation:
        refuse_too_few(
            [photo.group for photo in split.train],
            [photo.group for photo in split.validation],
            n=config.validation.pictures,
            repeats=config.metrics.baseline_repeats,
            seed=config.reproducibility.seed,
        )
    return split
