"""A whole study: session, search, finalists, refit, evaluation, report."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from woundray.config import Config
from woundray.config.resume import extended
from woundray.config.saved import read_config
from woundray.errors import UserError
from woundray.ray_cluster.torch_trainer import RunFailed
from woundray.results.study import StudyResults
from woundray.search.cross_validation import FinalistScorer, refit
from woundray.search.ctrl_c import resume_hint_on_interrupt
from woundray.search.final_message import final_message
from woundray.search.finish_study import finish_study
from woundray.search.initial_points import initial_points
from woundray.search.resume import resume_hint
from woundray.search.search_space import load_search_space
from woundray.search.session import Session, local_device, open_session, resolve_config
from woundray.search.study_folders import create_folder, find_study_folder, journal_path, refuse_taken_name
from woundray.search.tuner import SPACE_FILE, StudySetup, run_search
from woundray.system.progress import ProgressCallback
from woundray.system.storage import check_storage, exclusive_lock
from woundray.tracking.journal import Journal, Refitted
from woundray.training.checkpoint import link, write_config


def run_study(
    config: Config,
    progress: ProgressCallback,
    *,
    resume: Path | None = None,
    typed: Mapping[str, Any] | None = None,
    refits: bool = False,
) -> str:
    """Run or resume a study to its end; link `best` in its folder and in study.output to its best checkpoint.

    Args:
        config: configuration of a new study; when a study is resumed, only its study.output is used.
        progress: progress callback.
        resume: study to resume: its folder, or its name in study.output; None: a new study.
        typed: settings from the command line for a resumed study, by dotted name.
        refits: train the best settings on all photographs afterwards.

    Returns:
        The message that the study ends with.

    Raises:
        UserError: the name is taken, there is no such study, it has other settings, or data, base model, search space,
            cluster or MLflow can not be used.
    """
    opened = _new_study(config) if resume is None else _earlier_study(resume, config.study.output, typed or {})
    with opened as (own_config, folder):
        with (
            resume_hint_on_interrupt(lambda: resume_hint(folder, own_config)),
            open_session(own_config, folder, progress) as session,
        ):
            write_config(own_config, folder)  # after the check that a resumed study has the same photographs
            study = _search(session, own_config, folder, progress)
            if refits:
                Journal(journal_path(folder)).append(Refitted(checkpoint=_refit(study, progress)))
            study = finish_study(study, progress)
        for parent in (folder, folder.parent):
            link(parent / "best", os.path.relpath(study.checkpoint, parent))
        return final_message(study, session.tracker)


@contextmanager
def _new_study(config: Config) -> Iterator[tuple[Config, Path]]:
    """Configuration and folder of a new study, locked for the time of the block."""
    config = resolve_config(config)
    # report mistakes in the search space before minutes of work
    initial_points(load_search_space(config.study.space, config), config)
    check_storage(config.study.output)
    with create_folder(config, "study") as folder, exclusive_lock(folder):
        refuse_taken_name(folder.name, folder.parent)
        write_config(config, folder)
        yield config, folder


@contextmanager
def _earlier_study(study: Path, output: Path, typed: Mapping[str, Any]) -> Iterator[tuple[Config, Path]]:
    """Configuration and folder of a study that is resumed, locked for the time of the block."""
    folder = find_study_folder(study, output)
    check_storage(folder.parent)
    with exclusive_lock(folder):
        config = extended(read_config(folder), typed, folder)
        if "study.space" in typed:
            _refuse_other_space(config, folder)
        yield config, folder


def _refuse_other_space(config: Config, folder: Path) -> None:
    """Raise UserError if the search space on the command line differs from that of the study."""
    copy = folder / SPACE_FILE
    if copy.is_file() and copy.read_bytes() != Path(load_search_space(config.study.space, config).source).read_bytes():
        raise UserError(
            f"study.space: {config.study.space} has changed since {folder} began with it; leave it out, or begin "
            "another study"
        )


def _search(session: Session, config: Config, folder: Path, progress: ProgressCallback) -> StudyResults:
    """Run all trials, and score finalists on new images if the objective is a score of images."""
    data = session.precomputed
    scorer = FinalistScorer(config, data, folder, local_device(), progress)
    return run_search(
        StudySetup(config, folder, data.folder, session.resources),
        score_finalist=scorer if config.metrics.objective in data.baseline else None,
    )


def _refit(study: StudyResults, progress: ProgressCallback) -> Path:
    """Train the best settings on all photographs, and return the checkpoint.

    Raises:
        UserError: training failed.
    """
    try:
        return refit(study, local_device(), progress)
    except RunFailed as error:
        raise UserError(
            f"--refit: failed with `{error}`; the study itself has ended: `tune --resume {study.folder} --refit` "
            "tries again"
        ) from None
