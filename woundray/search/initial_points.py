"""Where a study begins: at its own configuration, and at the best trials of an earlier study."""

from pathlib import Path

from woundray.config import Config
from woundray.config.saved import read_saved_config
from woundray.errors import UserError
from woundray.results.trials import ranked, summarise
from woundray.search.search_space import Space, Value
from woundray.search.study_folders import journal_path
from woundray.tracking.journal import Journal

_OF_EARLIER = 3


def first_points(space: Space, config: Config) -> list[dict[str, Value]]:
    """The points of a space that are tried first, none twice.

    Raises:
        UserError: study.begin_with names no study, or one in which no trial has a score.
    """
    configurations = [config]
    if config.study.begin_with:
        configurations += [config.with_values(values) for values in _best_values(config.study.begin_with, config)]
    points: list[dict[str, Value]] = []
    for configuration in configurations:
        point = space.nearest_to(configuration)
        if point not in points:
            points.append(point)
    return points


def _best_values(study: Path, config: Config) -> list[dict[str, object]]:
    """What the best trials of an earlier study varied, by its own objective."""
    places = [place for place in (study, config.study.output / study) if journal_path(place).is_file()]
    if not places:
        raise UserError(
            f"study.begin_with: neither {study} nor {config.study.output / study} is a study; give the folder of one"
        )
    earlier = read_saved_config(places[0] / "config.yaml")
    trials = ranked(summarise(Journal(journal_path(places[0])).events(), earlier.metrics.objective))
    if not trials:
        raise UserError(f"study.begin_with: no trial of {places[0]} has a score; name another study")
    return [dict(trial.values) for trial in trials[:_OF_EARLIER]]
