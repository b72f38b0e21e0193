"""A whole study from its configuration: materials, cluster, tracking, trials."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from woundray.config import Config
from woundray.config.resume import extended
from woundray.config.saved import read_saved_config
from woundray.errors import UserError
from woundray.ray_cluster.torch_trainer import RunFailed
from woundray.search.cross_validation import Folds, refit
from woundray.search.final_message import Closing
from woundray.search.finalists import StudyResult, how_to_go_on
from woundray.search.initial_points import first_points
from woundray.search.interruption import stopped_with
from woundray.search.search_space import load_space
from woundray.search.session import local_device, open_session, resolve_config
from woundray.search.study import SPACE_FILE, run_study
from woundray.search.study_folders import find_study, journal_path, made_folder, refuse_taken
from woundray.system.storage import check_storage, exclusive_lock
from woundray.tracking.journal import Journal, Refitted
from woundray.training.checkpoint import link, write_config
from woundray.training.entry_point import train
from woundray.training.precompute import ProgressCallback

HandOver = Callable[[StudyResult, str, ProgressCallback], list[str]]  # result and hash of its data -> lines to show


def conduct(
    config: Config, progress: ProgressCallback, hand_over: HandOver | None = None, *, refits: bool = False
) -> Closing:
    """Runs a study to its end; its best checkpoint is then `best` in its folder and in study.output.

    Args:
        hand_over: what is done with the result while MLflow still listens.
        refits: afterwards train the winner's settings on all photographs.

    Raises:
        UserError: the name is taken, or data, base model, space, cluster or MLflow can not be used.
    """
    config = resolve_config(config)
    # mistakes of the search are told before minutes of work, as those of places
    first_points(load_space(config.study.space, config), config)
    check_storage(config.study.output)
    with made_folder(config, "study") as folder, exclusive_lock(folder):
        refuse_taken(folder.name, folder.parent)
        write_config(config, folder)
        return _study(config, folder, progress, hand_over, refits)


def resume(
    study: Path,
    output: Path,
    progress: ProgressCallback,
    hand_over: HandOver | None = None,
    *,
    refits: bool = False,
    typed: Mapping[str, Any] | None = None,
) -> Closing:
    """Goes on with a study that was stopped or killed, by its own settings.

    Args:
        study: its folder, or its name in `output`.
        refits: as `conduct`'s.
        typed: settings that are asked for now, by dotted name.

    Raises:
        UserError: there is no such study, it was begun with other settings, or what it needs is no longer there.
    """
    folder = find_study(study, output)
    check_storage(folder.parent)
    with exclusive_lock(folder):
        config = read_saved_config(folder / "config.yaml")
        config = extended(config, typed or {}, folder)
        if typed and "study.space" in typed:
            _refuse_other_space(config, folder)
        return _study(config, folder, progress, hand_over, refits)


def _refuse_other_space(config: Config, folder: Path) -> None:
    """Raises UserError where the space that is asked for is no longer the one that the study began with."""
    own = folder / SPACE_FILE
    if own.is_file() and own.read_bytes() != Path(load_space(config.study.space, config).source).read_bytes():
        raise UserError(
            f"study.space: {config.study.space} has changed since {folder} began with it; leave it out, or begin "
            "another study"
        )


def _refit(study: StudyResult, progress: ProgressCallback) -> Path:
    try:
        return refit(study, local_device(), progress)
    except RunFailed as error:
        raise UserError(
            f"--refit: failed with `{error}`; the study itself has ended: `tune --resume {study.folder} --refit` "
            "tries again"
        ) from None


def _study(
    config: Config,
    folder: Path,
    progress: ProgressCallback,
    hand_over: HandOver | None,
    refits: bool,
) -> Closing:
    """A new study or the rest of one."""
    refitted, journal = None, Journal(journal_path(folder))
    with stopped_with(lambda: how_to_go_on(folder, journal, config)), open_session(config, folder, progress) as place:
        precomputed = place.precomputed
        write_config(config, folder)  # what it goes on with, now that its photographs are known to be the same
        rescore = Folds(config, precomputed, folder, local_device(), progress)
        study = run_study(
            config,
            precomputed=precomputed.folder,
            folder=folder,
            loop=train,
            resources=place.resources,
            rescore=rescore if config.metrics.objective in precomputed.baseline else None,
        )
        if refits:
            refitted = _refit(study, progress)
            journal.append(Refitted(checkpoint=refitted))
        lines = hand_over(study, precomputed.key, progress) if hand_over else []
    for parent in (folder, folder.parent):
        link(parent / "best", os.path.relpath(study.checkpoint, parent))
    return Closing(study, precomputed, rescore.count, refitted, place.tracker, tuple(lines))
