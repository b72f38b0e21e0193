"""Folders of studies, runs and measurements: found, made, and named. Nothing slow is imported here."""

import itertools
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from woundray.config import Config
from woundray.config.error_messages import nearest
from woundray.config.saved import read_saved_config
from woundray.errors import UserError
from woundray.tracking.journal import JOURNAL_NAME, Journal, MeasurementStarted
from woundray.tracking.study_id import study_id

_TAKEN = ("best", "fetched")  # in study.output: the last best checkpoint, and checkpoints that MLflow kept


def journal_path(folder: Path) -> Path:
    """The journal of a study's folder."""
    return folder / JOURNAL_NAME


def find_study(study: Path, output: Path) -> Path:
    """A study's folder, absolute, by its path or its name in `output`. Raises UserError where there is none."""
    for place in (study, output / study):
        if (place / "run" / "config.yaml").exists():
            raise UserError(f"--resume: {place} is a run; `woundray train --study.name {place.name}` goes on with it")
        if (place / "run.json").is_file():
            study_of = next((f for f in place.resolve().parents if journal_path(f).is_file()), place.resolve().parent)
            raise UserError(f"--resume: {place} is a checkpoint; give the study that it is of, {study_of}")
        if (place / "config.yaml").is_file():  # it is written first
            if any(isinstance(event, MeasurementStarted) for event in Journal(journal_path(place)).events()):
                raise UserError(
                    f"--resume: {place} is a measurement; `woundray augment --study.name {place.name}` goes on with it"
                )
            return place.absolute()
    raise UserError(f"--resume: neither {study} nor {output / study} is a study{nearest_folder(study, output)}")


def study_folder(study: Path, output: Path) -> Path:
    """A folder with a journal, by its path or its name in `output`. Raises UserError where there is none."""
    for place in (study, output / study):
        if journal_path(place).is_file():
            return place
    raise UserError(f"neither {study} nor {output / study} is a study or run{nearest_folder(study, output)}")


def nearest_folder(name: str | Path, output: Path) -> str:
    """`; did you mean NAME?`: of the studies and runs in a folder; empty where there is none of a near name."""
    return nearest(str(name), (folder.name for folder in output.glob("*/") if journal_path(folder).is_file()))


def own_settings(study: Path, settings: Config) -> Config:
    """Settings that a study was begun with. UserError: there is none."""
    file = find_study(study, settings.study.output) / "config.yaml"
    return read_saved_config(file)


def is_begun(config: Config) -> bool:
    """Whether study.name names what was begun before, and goes on by its own settings."""
    folder = config.study.output / config.study.name
    return bool(config.study.name) and any((folder / name).is_file() for name in ("config.yaml", "run/config.yaml"))


def refuse_taken(name: str, output: Path, *, run: bool = False) -> None:
    """Raises UserError for the name of what is in `output` and can not be gone on with by the same command.

    Args:
        run: a single run is meant, which goes on under its own name.
    """
    folder = output / name
    if not name:
        return
    if not run and journal_path(folder).exists():
        raise UserError(
            f"study.name: {name} is a study already, in {folder.absolute()}; go on with it by "
            f"`python -m woundray.tune --resume {name}`, or give another name"
        )
    if run and (folder / "config.yaml").is_file():
        raise UserError(
            f"study.name: {name} is a study or measurement already, in {folder.absolute()}; give another name"
        )


@contextmanager
def made_folder(config: Config, kind: str) -> Iterator[Path]:
    """The folder of a study or run for a block; one that a mistake ends before anything was computed is removed.

    Raises:
        UserError: as `new_folder`.
    """
    name = config.study.name
    found = bool(name) and (config.study.output / name).exists()
    folder = new_folder(config, kind)
    try:
        yield folder
    except UserError:
        computed = journal_path(folder).exists() or (folder / "precomputed/base_model_scores.json").exists()
        if not found and not computed:
            shutil.rmtree(folder)
        raise


def new_folder(config: Config, kind: str) -> Path:
    """Folder of a study or run, made where there is none: study.name, or kind, phase, time, and a number if need be.

    Raises:
        UserError: study.name is no name, or no folder can have it here.
    """
    name, parent = config.study.name, config.study.output.absolute()
    refuse_bad_name(name)
    try:
        if name:
            folder = parent / name
            folder.mkdir(parents=True, exist_ok=True)
        else:
            folder = _first_of(parent / f"{kind}-{config.phase}-{datetime.now():%Y%m%d-%H%M%S}")
        study_id(folder)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(f"study.name: {name or parent} can not be a folder in {parent} ({reason})") from None
    return folder


def refuse_bad_name(name: str) -> None:
    """Raises UserError for a name that is a path, or that can't be shown."""
    if "/" in name or name in (".", ".."):
        raise UserError(f"study.name: {name} is a path; give a name, and the folder it shall be in as study.output")
    if name in _TAKEN:
        raise UserError(
            f"study.name: {name} is what woundray itself calls something in study.output; give another name"
        )
    if not name.isprintable():
        raise UserError(f"study.name: {name!a} has characters that can't be shown; give another name")


def _first_of(folder: Path) -> Path:
    """Makes a folder that was not there, of this name or with a number behind it: studies may start in one second."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        made = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        try:
            made.mkdir()
            return made
        except FileExistsError:
            continue
    raise AssertionError
