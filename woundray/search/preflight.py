"""Mistakes in the settings of a study that are found in a moment, before anything slow is imported or written."""

from collections.abc import Callable, Iterator, Sequence

from woundray.config import Config
from woundray.errors import UserError
from woundray.search.search_space import load_space
from woundray.search.study_folders import journal_path, refuse_bad_name, refuse_taken
from woundray.weights.base_models import base_model_folder
from woundray.weights.repositories import REPOSITORIES

Check = Callable[[Config], object]


def data_folder(config: Config) -> None:
    """Refuses a folder of photographs that is none."""
    root = config.data.root
    if root is not None and not root.is_dir():
        raise UserError(f"--data: {root} is no folder; give the one that `woundray prepare` wrote")


def base_model(config: Config) -> None:
    """Refuses a base model that is neither a known name nor a folder."""
    if config.model.base not in ("tiny", *REPOSITORIES):
        base_model_folder(config.model.base)


def held_out(config: Config) -> None:
    """Refuses a study that holds no patient out."""
    if config.validation.share == 0:
        raise UserError("validation.share: 0 holds nobody out, and nothing could be judged; see `tune --refit`")


def search_space(config: Config) -> None:
    """Refuses a search space that can not be read, or does not fit the settings."""
    load_space(config.study.space, config)


def study_name(config: Config) -> None:
    """Refuses a name that no folder can have, or that another study has."""
    refuse_bad_name(config.study.name)
    refuse_taken(config.study.name, config.study.output)


def run_name(config: Config) -> None:
    """Refuses a name that no folder can have, or that a study has."""
    refuse_bad_name(config.study.name)
    refuse_taken(config.study.name, config.study.output, run=True)


def earlier_study(config: Config) -> None:
    """Refuses a study.begin_with that is no study."""
    earlier = config.study.begin_with
    if earlier and not any(journal_path(place).is_file() for place in (earlier, config.study.output / earlier)):
        raise UserError(
            f"study.begin_with: neither {earlier} nor {config.study.output / earlier} is a study; "
            "give the folder of one"
        )


RUN: tuple[Check, ...] = (data_folder, base_model, held_out, run_name)
"""Checks of a single run."""
STUDY: tuple[Check, ...] = (data_folder, base_model, held_out, search_space, study_name, earlier_study)
"""Checks of a study."""
MEASUREMENT: tuple[Check, ...] = (data_folder, base_model)
"""Checks of a measurement of what synthetic pictures do for a classifier."""


def mistakes(config: Config, checks: Sequence[Check]) -> Iterator[str]:
    """What is wrong, one line each with its mend."""
    for check in checks:
        try:
            check(config)
        except UserError as error:
            yield str(error)


def refuse_mistakes(config: Config, checks: Sequence[Check]) -> None:
    """Raises UserError for the first mistake."""
    for check in checks:
        check(config)
