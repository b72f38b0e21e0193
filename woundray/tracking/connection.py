"""Connection to MLflow: a client of its server or database, and woundray's experiment there."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from woundray.errors import UserError
from woundray.tracking.address import EXPERIMENT, database_of, creation_lock, tracking_uri, unavailable_reason

if TYPE_CHECKING:
    from mlflow import MlflowClient


def check_tracking(uri: str = "") -> None:
    """Raises UserError if MLflow does not answer; makes its database and experiment if there are none."""
    uri = uri or tracking_uri()
    experiment_id(connect(uri), uri)


def connect(uri: str) -> "MlflowClient":
    """A client of the server or database at an address; a database is made if there is none.

    Raises:
        UserError: it does not answer.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError  # of MLflow, which lets some of them through

    for name in ("mlflow", "alembic"):  # notes on each migration of a new database
        logging.getLogger(name).setLevel(logging.WARNING)
    why = unavailable_reason(uri)
    if why:
        raise UserError(f"MLFLOW_TRACKING_URI: {uri} {why}")
    try:
        with creation_lock(uri):
            client = MlflowClient(tracking_uri=uri)
            client.search_experiments(max_results=1)  # nothing is made before the first question
    except (MlflowException, SQLAlchemyError) as error:
        raise _unusable_error(uri, error) from None
    return client


def experiment_id(client: "MlflowClient", uri: str) -> str:
    """The experiment's id; it is made if there is none: of a database with artifacts beside it, under an absolute path.

    Raises:
        UserError: MLflow does not take it, or it was deleted.
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
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _unusable_error(uri: str, error: Exception) -> UserError:
    return UserError(f"MLFLOW_TRACKING_URI: {uri} can't be used: {str(error).splitlines()[0]}")
