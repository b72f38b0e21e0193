"""Connection to MLflow: a client of its server or database, and woundray's experiment there."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from woundray.errors import UserError
from woundray.tracking.address import EXPERIMENT, creation_lock, database_of, tracking_uri, unavailable_reason

if TYPE_CHECKING:
    from mlflow import MlflowClient


def check_tracking(uri: str = "") -> None:
    """Check that MLflow answers; create its database and experiment if they do not exist.

    Raises:
        UserError: it does not answer.
    """
    uri = uri or tracking_uri()
    experiment_id(connect(uri), uri)


def connect(uri: str) -> "MlflowClient":
    """Return a client of the server or database at an address; a database is created if it does not exist.

    Raises:
        UserError: it does not answer.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError  # which MLflow does not always wrap

    for name in ("mlflow", "alembic"):  # no lines on the migrations of a new database
        logging.getLogger(name).setLevel(logging.WARNING)
    reason = unavailable_reason(uri)
    if reason:
        raise UserError(f"MLFLOW_TRACKING_URI: {uri} {reason}")
    try:
        with creation_lock(uri):
            client = MlflowClient(tracking_uri=uri)
            client.search_experiments(max_results=1)  # MLflow creates the database at the first query
    except (MlflowException, SQLAlchemyError) as error:
        raise _unusable_error(uri, error) from None
    return client


def experiment_id(client: "MlflowClient", uri: str) -> str:
    """Return the id of woundray's experiment; it is created if it does not exist.

    The artifacts of a database are in `mlartifacts` in its folder, under an absolute path.

    Raises:
        UserError: MLflow refuses the experiment, or it was deleted.
    """
    from mlflow.exceptions import MlflowException

    try:
        if client.get_experiment_by_name(EXPERIMENT) is None:
            database = database_of(uri)
            artifacts = None if database is None else (database.parent / "mlartifacts" / EXPERIMENT).as_uri()
            with _ignore_already_exists():
                client.create_experiment(EXPERIMENT, artifact_location=artifacts)
        found = client.get_experiment_by_name(EXPERIMENT)
    except MlflowException as error:
        raise _unusable_error(uri, error) from None
    assert found is not None
    if found.lifecycle_stage == "deleted":
        raise UserError(
            f"MLFLOW_TRACKING_URI: the experiment {EXPERIMENT} of {uri} was deleted; "
            f"`mlflow experiments restore --experiment-id {found.experiment_id}` brings it back"
        )
    return str(found.experiment_id)


@contextmanager
def _ignore_already_exists() -> Iterator[None]:
    """Ignore the error of MLflow that another process was first to create the experiment."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _unusable_error(uri: str, error: Exception) -> UserError:
    """Return the error of a tracking address that can not be used."""
    return UserError(f"MLFLOW_TRACKING_URI: {uri} can't be used: {str(error).splitlines()[0]}")
