"""Fast checks of the settings of a study, run or measurement, before anything slow is imported or written."""

from collections.abc import Callable, Iterator, Sequence

from woundray.config import Config
from woundray.errors import UserError
from woundray.search.search_space import load_search_space
from woundray.search.study_folders import (
    find_earlier_study,
    refuse_bad_name,
    refuse_taken_name,
)
from woundray.weights.base_models import base_model_folder
from woundray.weights.repositories import REPOSITORIES

Check = Callable[[Config], object]
"""Raises UserError for a mistake."""


def check_data_folder(config: Config) -> None:
    """Refuse data.root if it is no folder."""
    root = config.data.root
    if root is not None and not root.is_dir():
        raise UserError(f"--data: {root} is no folder; give the one that `woundray prepare` wrote")


def check_base_model(config: Config) -> None:
    """Refuse a base model that is neither a known name nor a folder."""
    if config.model.base not in ("tiny", *REPOSITORIES):
        base_model_folder(config.model.base)


def check_held_out(config: Config) -> None:
    """Refuse settings that hold out no patients."""
    if config.validation.share == 0:
        raise UserError("validation.share: 0 holds nobody out, and nothing could be scored; see `tune --refit`")


def check_search_space(config: Config) -> None:
    """Refuse a search space that can not be read, or does not fit the settings."""
    load_search_space(config.study.space, config)


def check_study_name(config: Config) -> None:
    """Refuse a name that no folder can have, or that another study has."""
    refuse_bad_name(config.study.name)
    refuse_taken_name(config.study.name, config.study.output)


def check_run_name(config: Config) -> None:
    """Refuse a name that no folder can have, or that a study has."""
    refuse_bad_name(config.study.name)
    refuse_taken_name(config.study.name, config.study.output, run=True)


RUN_CHECKS: tuple[Check, ...] = (check_data_folder, check_base_model, check_held_out, check_run_name)
"""Checks of a single run."""
STUDY_CHECKS: tuple[Check, ...] = (
    check_data_folder,
    check_base_model,
    check_held_out,
    check_search_space,
    check_study_name,
    find_earlier_study,
)
"""Checks of a study."""
MEASUREMENT_CHECKS: tuple[Check, ...] = (check_data_folder, check_base_model)
"""Checks of a measurement of the effect of synthetic images on a classifier."""


def find_mistakes(config: Config, checks: Sequence[Check]) -> Iterator[str]:
    """Yield each mistake in one line, with its remedy."""
    for check in checks:
        try:
            check(config)
        except UserError as error:
            yield str(error)


def refuse_mistakes(config: Config, checks: Sequence[Check]) -> None:
    """Raise UserError for the first mistake."""
    for check in checks:
        check(config)
