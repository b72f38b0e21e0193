"""Download of checkpoints from MLflow: of a run, or of a registered model."""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from woundray.errors import UserError
from woundray.tracking.address import database_of, tracking_uri, unavailable_reason
from woundray.tracking.connection import connect

SCHEMES = ("runs:/", "models:/")
_CHECKPOINT_ARTIFACT = "checkpoint"  # folder of a trial's best checkpoint (see `MlflowRuns`)


@dataclass(frozen=True)
class _CheckpointSource:
    """Source of a checkpoint in MLflow.

    Attributes:
        run: id of the run.
        source: address of its files.
        reference: reference to them that does not change, without aliases.
    """

    run: str
    source: str
    reference: str


def fetch_checkpoint(reference: str, folder: Path, uri: str = "") -> Path:
    """Copy the checkpoint of a run to this machine, and return its folder.

    Args:
        reference: `runs:/ID` (of a study: its best trial), `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
        folder: parent of the copy, which has the id of the run as its name; files of an older copy are replaced.
        uri: address of MLflow; empty: see `tracking_uri`.

    Raises:
        UserError: MLflow does not answer or has no such run or model, or the run has no checkpoint.
    """
    uri = uri or tracking_uri()
    found = _resolve(reference, uri)
    from mlflow.artifacts import download_artifacts, list_artifacts
    from mlflow.exceptions import MlflowException

    try:
        if not list_artifacts(artifact_uri=found.source, tracking_uri=uri):
            raise UserError(f"--from: {reference}: run {found.run} has no checkpoint: it ended before its first epoch")
        target = folder / found.run
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as temporary:
            fetched = Path(download_artifacts(artifact_uri=found.source, dst_path=temporary, tracking_uri=uri))
            if (fetched / "MLmodel").is_file():  # the checkpoint is inside a served model
                fetched = fetched / "artifacts" / _CHECKPOINT_ARTIFACT
            for path in fetched.iterdir():
                if path.is_file():
                    shutil.move(path, target / path.name)
    except MlflowException as error:
        raise UserError(f"--from: {reference}: MLflow at {uri}: {_reason(error)}") from None
    return target


def pin_reference(reference: str, uri: str = "") -> str:
    """Replace an alias by its version, and a study's run by that of its best trial.

    Raises:
        UserError: as `fetch_checkpoint`.
    """
    return _resolve(reference, uri or tracking_uri()).reference


def _resolve(reference: str, uri: str) -> _CheckpointSource:
    """Return the source of a reference; errors of MLflow become UserError."""
    database = database_of(uri)
    if database is not None and not database.is_file():  # MLflow would create an empty one
        raise UserError(f"--from: {reference}: no database {database}; give --tracking-uri or MLFLOW_TRACKING_URI")
    reason = unavailable_reason(uri)
    if reason:
        raise UserError(f"--from: {reference}: MLflow at {uri} {reason}")
    from mlflow.exceptions import MlflowException

    try:
        return _locate(reference, uri)
    except MlflowException as error:
        raise UserError(f"--from: {reference}: MLflow at {uri}: {_reason(error)}") from None


def _locate(reference: str, uri: str) -> _CheckpointSource:
    """Look a reference up in MLflow's database."""
    client = connect(uri)
    scheme, _, name = reference.partition(":/")
    name = name.strip("/")
    if scheme == "runs":
        run = client.get_run(name.removesuffix(f"/{_CHECKPOINT_ARTIFACT}"))
        run_id = str(run.data.tags.get("best_run", run.info.run_id))  # a study stands for its best trial
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
    """Return the first line of MLflow's message, or `no answer` for a connection error."""
    line = str(error).splitlines()[0]
    return "no answer" if "Max retries exceeded" in line or "Connection" in line else line
