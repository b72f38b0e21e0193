"""Split of photographs by patient, with sides that are large enough for scores. It imports no torch, for `doctor`."""

from collections.abc import Sequence

from woundray.config import Config
from woundray.data.manifest import Photo
from woundray.data.split import Split, split_for
from woundray.metrics.real_baseline import BaselineOptions, check_enough_images


def comparable_split(photos: Sequence[Photo], config: Config) -> Split:
    """Split photographs into a training and a held-out side, as the configuration says.

    Raises:
        UserError: too few patients or photographs.
    """
    split = split_for(photos, config)
    if split.validation:
        check_enough_images(
            [photo.group for photo in split.train],
            [photo.group for photo in split.validation],
            BaselineOptions(config.validation.pictures, config.metrics.baseline_repeats, config.reproducibility.seed),
        )
    return split
