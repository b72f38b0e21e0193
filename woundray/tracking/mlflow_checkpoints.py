"""Checkpoints that MLflow keeps: of a run, or of a registered model."""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from woundray.errors import UserError
from woundray.tracking.address import database_of, tracking_uri, unavailable_reason
from woundray.tracking.connection import connect

SCHEMES = ("runs:/", "models:/")
_CHECKPOINT_ARTIFACT = "checkpoint"  # where `Runs` puts the best checkpoint of a trial


@dataclass(frozen=True)
class _CheckpointSource:
    """A run's id, the address of its files, and a reference to them that stays the same."""

    run: str
    source: str
    reference: str


def fetch_checkpoint(reference: str, folder: Path, uri: str = "") -> Path:
    """Copies the checkpoint of a run to this machine.

    Args:
        reference: `runs:/ID` (of a study: its best trial), `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
        folder: the copy is in a folder below it that has the name of the run; an older copy's files are replaced.
        uri: address of MLflow; empty: see `tracking_uri`.

    Raises:
        UserError: MLflow does not answer, knows no such run or model, or the run has no checkpoint.
    """
    uri = uri or tracking_uri()
    place = _resolve(reference, uri)
    from mlflow.artifacts import download_artifacts, list_artifacts
    from mlflow.exceptions import MlflowException

    try:
        if not list_artifacts(artifact_uri=place.source, tracking_uri=uri):
            raise UserError(f"--from: {reference}: run {place.run} has no checkpoint: it ended before its first epoch")
        target = folder / place.run
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as beside:
            fetched = Path(download_artifacts(artifact_uri=place.source, dst_path=beside, tracking_uri=uri))
            if (fetched / "MLmodel").is_file():  # a model that can be served holds its checkpoint
                fetched = fetched / "artifacts" / _CHECKPOINT_ARTIFACT
            for path in fetched.iterdir():
                if path.is_file():
                    shutil.move(path, target / path.name)
    except MlflowException as error:
        raise UserError(f"--from: {reference}: MLflow at {uri}: {_reason(error)}") from None
    return target


def pin_reference(reference: str, uri: str = "") -> str:
    """The reference by number of what an alias, or a study's run, means now.

    Raises:
        UserError: as `fetch_checkpoint`.
    """
    return _resolve(reference, uri or tracking_uri()).reference


def _resolve(reference: str, uri: str) -> _CheckpointSource:
    """Where a reference leads to, as far as MLflow's database says."""
    database = database_of(uri)
    if database is not None and not database.is_file():  # MLflow would make an empty one
        raise UserError(f"--from: {reference}: no database {database}; give --tracking-uri or MLFLOW_TRACKING_URI")
    why = unavailable_reason(uri)
    if why:
        raise UserError(f"--from: {reference}: MLflow at {uri} {why}")
    from mlflow.exceptions import MlflowException

    try:
        return _locate(reference, uri)
    except MlflowException as error:
        raise UserError(f"--from: {reference}: MLflow at {uri}: {_reason(error)}") from None


def _locate(reference: str, uri: str) -> _CheckpointSource:
    client = connect(uri)
    scheme, _, name = reference.partition(":/")
    name = name.strip("/")
    if scheme == "runs":
        run = client.get_run(name.removesuffix(f"/{_CHECKPOINT_ARTIFACT}"))
        run_id = str(run.data.tags.get("best_run", run.info.run_id))  # a study's run means its best trial's
        return _CheckpointSource(run_id, f"runs:/{run_id}/{_CHECKPOINT_ARTIFACT}", f"runs:/{run_id}")
    model, at, alias = name.partition("@")
    if at:
        aliases = client.get_registered_model(model).aliases
        if alias not in aliases:
            known = ", ".join(f"models:/{model}@{name}" for name in sorted(aliases)) or "no version with an alias"
            raise UserError(f"--from: {reference} is not there; give one of these: {known}")
        version = client.get_model_version_by_alias(model, alias)
    else:
        model, slash, number = name.rpartition("/")
        if not slash:
            raise UserError(f"--from: {reference}: give models:/NAME@ALIAS or models:/NAME/VERSION")
        version = client.get_model_version(model, number)
    if not version.source:
        raise UserError(f"--from: {reference}: this version of the model has no files; give another version")
    run_id = version.run_id or f"{model}-{version.version}"
    return _CheckpointSource(run_id, version.source, f"models:/{model}/{version.version}")


def _reason(error: Exception) -> str:
    """The end of MLflow's message: the innermost cause, without its advice."""
    line = str(error).splitlines()[0]
    return "no answer" if "Max retries exceeded" in line or "Connection" in line else line
