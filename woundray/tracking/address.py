"""Address of MLflow, a server or a database: read it from the environment, and check that it answers."""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, unquote

from filelock import FileLock

from woundray.errors import UserError

_REQUEST_TIMEOUT_S = 600  # of each wait during the upload of a checkpoint through a slow network
_PROBE_TIMEOUT_S = 10.0  # of a busy server

_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # Tracker retries by itself; default 7
    "MLFLOW_HTTP_REQUEST_TIMEOUT": str(_REQUEST_TIMEOUT_S),  # `unavailable_reason` finds a dead server sooner
    "MLFLOW_CONFIGURE_LOGGING": "false",  # no log lines of MLflow's on the terminal
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # the address of each run at its end
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # MLflow's own progress bar
    "GIT_PYTHON_REFRESH": "quiet",  # no warning where git is not installed
}
for _name, _value in _SETTINGS.items():
    os.environ.setdefault(_name, _value)  # at import of this module, as MLflow reads some when it is imported

EXPERIMENT = "woundray"

log = logging.getLogger(__name__)

_DATABASE_SCHEME = re.compile(r"sqlite(\+\w+)?:///")
_CONNECTION_ERROR = re.compile(r"\[(?:Errno|SSL)[^]]*\] ([^'\"()]+)")


def tracking_uri() -> str:
    """Return MLFLOW_TRACKING_URI, else the database that `mlflow ui` opens in the working directory.

    Raises:
        UserError: the address is a folder, which MLflow 3 does not support.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or database_uri(Path.cwd() / "mlflow.db")
    if "://" not in uri or uri.startswith("file:"):
        raise UserError(
            f"MLFLOW_TRACKING_URI: {uri} is a folder; name a server (http://...) or a database (sqlite:///mlflow.db)"
        )
    return uri


def database_uri(file: Path) -> str:
    """Return the address of a database file; its name may have any characters.

    SQLAlchemy ends a path at `?` and decodes `%`. MLflow creates the folder from the path before it is decoded, unless
    the address names SQLAlchemy's driver.
    """
    path = str(file)
    return f"sqlite+pysqlite:///{quote(path)}" if re.search("[?%]", path) else f"sqlite:///{path}"


def database_of(uri: str) -> Path | None:
    """Return the file of a SQLite address; None: it is another address."""
    start = _DATABASE_SCHEME.match(uri)
    return Path(unquote(uri[start.end() :].partition("?")[0])).absolute() if start else None


def is_server(uri: str) -> bool:
    """Return whether an address is that of an MLflow server."""
    return uri.startswith(("http://", "https://"))


def unavailable_reason(uri: str) -> str:
    """Return within seconds why a server can not be used, with the remedy; empty: it answers, or it is a database."""
    if not is_server(uri):
        return ""
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    try:
        answer = http_request(  # type: ignore[no-untyped-call]
            get_default_host_creds(uri.rstrip("/")),  # type: ignore[no-untyped-call]  # password and certificates
            "/api/2.0/mlflow/experiments/get-by-name",  # /health would not check the password
            "GET",
            params={"experiment_name": EXPERIMENT},
            timeout=_PROBE_TIMEOUT_S,
            max_retries=1,  # the server may have closed an idle connection
            raise_on_status=False,
        )
    except MlflowException as error:
        log.debug("MLflow: %s", error)
        found = _CONNECTION_ERROR.search(str(error))
        reason = found[1].strip() if found else f"nothing within {_PROBE_TIMEOUT_S:g} s"
        return f"does not answer ({reason}); start it, or unset MLFLOW_TRACKING_URI"
    if answer.status_code in (401, 403):
        mend = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        return f"needs a name and password ({answer.status_code}); {mend}"
    if answer.status_code >= 500:
        return f"does not answer ({answer.status_code} {answer.reason}); start it, or unset MLFLOW_TRACKING_URI"
    return ""


@contextmanager
def creation_lock(uri: str) -> Iterator[None]:
    """Hold the lock under which one process at a time creates or migrates a database; several would break it.

    Raises:
        UserError: the database does not exist, and can not be created.
    """
    database = database_of(uri)
    if database is None or database.name == ":memory:":
        yield
        return
    lock = FileLock(database.with_name(f"{database.name}.lock"))
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        if not database.is_file():  # an existing database can be read without the lock
            reason = error.strerror or type(error).__name__
            raise UserError(f"MLFLOW_TRACKING_URI: {database} can not be made ({reason}); name another place") from None
    try:
        yield
    finally:
        lock.release()
