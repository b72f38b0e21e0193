"""First points of a search: the study's own configuration, and the best trials of an earlier study."""

from woundray.config import Config
from woundray.config.saved import read_config
from woundray.errors import UserError
from woundray.results.trials import ranked, read_trials
from woundray.search.search_space import SearchSpace, Value
from woundray.search.study_folders import find_earlier_study, journal_path
from woundray.tracking.journal import Journal

_EARLIER_TRIALS = 3  # best trials that are taken from an earlier study


def initial_points(space: SearchSpace, config: Config) -> list[dict[str, Value]]:
    """Return the points of a space that are tried first, without duplicates.

    Raises:
        UserError: study.begin_with names no study, or one in which no trial has a score.
    """
    configurations = [config, *(config.with_values(values) for values in _best_values_of_earlier_study(config))]
    points: list[dict[str, Value]] = []
    for configuration in configurations:
        point = space.nearest_to(configuration)
        if point not in points:
            points.append(point)
    return points


def _best_values_of_earlier_study(config: Config) -> list[dict[str, object]]:
    """Return the searched settings of the best trials of study.begin_with, by that study's objective."""
    folder = find_earlier_study(config)
    if folder is None:
        return []
    objective = read_config(folder).metrics.objective
    trials = ranked(read_trials(Journal(journal_path(folder)).events(), objective))
    if not trials:
        raise UserError(f"study.begin_with: no trial of {folder} has a score; name another study")
    return [dict(trial.values) for trial in trials[:_EARLIER_TRIALS]]
