"""Folders of studies, runs and measurements: find, create and name them. Imports nothing slow."""

import itertools
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from woundray.checkpoints.earlier_layout import upgrade_layout
from woundray.config import Config
from woundray.config.error_messages import nearest
from woundray.config.saved import read_config
from woundray.errors import UserError
from woundray.tracking.journal import JOURNAL_NAME, Journal, MeasurementStarted
from woundray.tracking.study_id import study_id

_RESERVED_NAMES = ("best", "fetched")  # in study.output: link to the last best checkpoint; checkpoints out of MLflow


def journal_path(folder: Path) -> Path:
    """Return the path of a study's journal."""
    return folder / JOURNAL_NAME


def find_study_folder(study: Path, output: Path) -> Path:
    """Return the absolute folder of a study to resume, by its path or its name in `output`.

    Raises:
        UserError: there is none, or it is a run, a checkpoint or a measurement.
    """
    for folder in (study, output / study):
        if (folder / "run" / "config.yaml").exists():
            raise UserError(f"--resume: {folder} is a run; `woundray train --study.name {folder.name}` goes on with it")
        if (folder / "run.json").is_file():
            parents = folder.resolve().parents
            owner = next((parent for parent in parents if journal_path(parent).is_file()), parents[0])
            raise UserError(f"--resume: {folder} is a checkpoint; give the study that it is of, {owner}")
        if (folder / "config.yaml").is_file():  # the first file of a study
            if any(isinstance(event, MeasurementStarted) for event in Journal(journal_path(folder)).events()):
                raise UserError(
                    f"--resume: {folder} is a measurement; "
                    f"`woundray augment --study.name {folder.name}` goes on with it"
                )
            upgrade_layout(folder)
            return folder.absolute()
    raise UserError(f"--resume: neither {study} nor {output / study} is a study{suggest_folder(study, output)}")


def find_journal_folder(study: Path, output: Path) -> Path:
    """Return the folder of a study, run or measurement, by its path or its name in `output`.

    Raises:
        UserError: there is no folder with a journal.
    """
    folder = _folder_with_journal(study, output)
    if folder is not None:
        return folder
    raise UserError(f"neither {study} nor {output / study} is a study or run{suggest_folder(study, output)}")


def find_earlier_study(config: Config) -> Path | None:
    """Return the folder of study.begin_with; None: it is not set.

    Raises:
        UserError: it is no study.
    """
    study = config.study.begin_with
    if not study:
        return None
    folder = _folder_with_journal(study, config.study.output)
    if folder is None:
        raise UserError(
            f"study.begin_with: neither {study} nor {config.study.output / study} is a study; give the folder of one"
        )
    return folder


def _folder_with_journal(study: Path, output: Path) -> Path | None:
    """Return the first of a path and a name in `output` that holds a journal."""
    return next((folder for folder in (study, output / study) if journal_path(folder).is_file()), None)


def suggest_folder(name: str | Path, output: Path) -> str:
    """Return `; did you mean NAME?` for the study or run in a folder with the nearest name; empty: none is near."""
    return nearest(str(name), (folder.name for folder in output.glob("*/") if journal_path(folder).is_file()))


def read_study_config(study: Path, settings: Config) -> Config:
    """Read the configuration of a study to resume.

    Raises:
        UserError: as `find_study_folder`.
    """
    return read_config(find_study_folder(study, settings.study.output))


def already_exists(config: Config) -> bool:
    """Return whether study.name is an existing study, run or measurement, which is resumed with its own settings."""
    folder = config.study.output / config.study.name
    return bool(config.study.name) and any((folder / name).is_file() for name in ("config.yaml", "run/config.yaml"))


def refuse_taken_name(name: str, output: Path, *, run: bool = False) -> None:
    """Refuse the name of a folder in `output` that the same command can not resume.

    Args:
        name: name of the study or run; empty: a new name is made, which is never taken.
        output: study.output.
        run: a single run; it is resumed by its name.

    Raises:
        UserError: the name is taken.
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
def create_folder(config: Config, kind: str) -> Iterator[Path]:
    """Create the folder of a study or run for a block; remove it if UserError ends the block before any computation.

    Raises:
        UserError: as `make_folder`.
    """
    name = config.study.name
    existed = bool(name) and (config.study.output / name).exists()
    folder = make_folder(config, kind)
    try:
        yield folder
    except UserError:
        computed = journal_path(folder).exists() or (folder / "precomputed/base_model_scores.json").exists()
        if not existed and not computed:
            shutil.rmtree(folder)
        raise


def make_folder(config: Config, kind: str) -> Path:
    """Return the folder of a study or run, created if it does not exist.

    Its name is study.name, or kind, phase and time, with a number if that folder exists.

    Raises:
        UserError: study.name is no valid name, or the folder can not be created.
    """
    name, parent = config.study.name, config.study.output.absolute()
    refuse_bad_name(name)
    try:
        if name:
            folder = parent / name
            folder.mkdir(parents=True, exist_ok=True)
        else:
            folder = _make_numbered_folder(parent / f"{kind}-{config.phase}-{datetime.now():%Y%m%d-%H%M%S}")
        study_id(folder)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(f"study.name: {name or parent} can not be a folder in {parent} ({reason})") from None
    return folder


def refuse_bad_name(name: str) -> None:
    """Raise UserError for a name that is a path, is reserved, or has characters that can not be printed."""
    if "/" in name or name in (".", ".."):
        raise UserError(f"study.name: {name} is a path; give a name, and the folder it shall be in as study.output")
    if name in _RESERVED_NAMES:
        raise UserError(
            f"study.name: {name} is what woundray itself calls something in study.output; give another name"
        )
    if not name.isprintable():
        raise UserError(f"study.name: {name!a} has characters that can't be shown; give another name")


def _make_numbered_folder(folder: Path) -> Path:
    """Create a new folder with this name, or with a number after it: several studies may start in one second."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        candidate = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        try:
            candidate.mkdir()
            return candidate
        except FileExistsError:
            continue
    raise AssertionError
